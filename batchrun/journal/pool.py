"""A pool: one budget for several jobs on one machine, in an SQLite file of its own.

Invariant, after every commit: for each journal and UTC day, the pool counts at least what the journal does,
settled, uncertain and reserved. A run claims money here before it reserves it in its journal, in batches, and
gives back what it did not use after its journal's last commit. Thus the sum over all journals never exceeds a
cap, whenever a process dies: what a killed run had claimed stays counted until the job's next run.

A journal's attempt numbers only grow. One that has fewer than the pool knows of is an older copy: what the
newer one had spent stays counted.
"""

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from batchrun.errors import HeldError, JournalError, MovedError, StorageError, UsageError
from batchrun.journal.checksums import checksum
from batchrun.journal.connection import (
    connect,
    is_held,
    is_storage_fault,
    transaction,
    translated_errors,
)
from batchrun.journal.journal import Journal
from batchrun.journal.place import Place
from batchrun.journal.records import Grant
from batchrun.text import single_line

APPLICATION_ID = 0x62617470  # "batp"
FORMAT = 1
BATCHES = 32
"""A claim takes this part of what is left, on top of what it needs. So a few hundred claims use up any pool,
and no run keeps much from the others."""

MOST_WAIT_MS = 100
"""Enough for the claims of other runs; a person who looks at the pool may hold it for an hour."""
_UNBOUNDED = 10**18
_TABLES = f"""
CREATE TABLE caps (
    nano_usd INTEGER,                   -- over the pool's life; NULL: no such cap
    nano_usd_per_day INTEGER,
    crc32 INTEGER NOT NULL
);
CREATE TABLE claims (                   -- at least what a journal counts for a day
    journal TEXT NOT NULL,              -- its path
    born INTEGER NOT NULL,              -- when its first run began, in milliseconds since 1970 UTC
    sandbox INTEGER NOT NULL,           -- 1: no model answered and nothing was paid
    retired INTEGER NOT NULL,           -- 0: it is there; n: the n-th that an older copy replaced
    day INTEGER NOT NULL,               -- days since 1970 UTC
    nano_usd INTEGER NOT NULL,
    attempt INTEGER NOT NULL,           -- the journal's highest one that was durable by then
    crc32 INTEGER NOT NULL,
    PRIMARY KEY (journal, born, sandbox, retired, day)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""
_OWN = "(journal, born, sandbox, retired) = (?, ?, ?, 0)"


class PoolCaps(NamedTuple):
    """Caps in nano-USD, over the pool's life and for one UTC day; None: no such cap."""

    life: int | None
    per_day: int | None

    def left(self, counted: int, today: int) -> tuple[int, bool]:
        """Returns what is left by the tighter cap, and whether that is the cap per day."""
        life = _UNBOUNDED if self.life is None else self.life - counted
        per_day = _UNBOUNDED if self.per_day is None else self.per_day - today
        return min(life, per_day), per_day < life


class PoolMember(NamedTuple):
    """A journal, and what the pool counts for it in all and on one day, in nano-USD.

    `born` tells a journal from a later one at the same path, `retired` from an older copy that replaced it;
    0: it is there.
    """

    journal: str
    born: int
    retired: int
    counted: int
    today: int


class Pool:
    """An open pool. Methods raise StorageError and JournalError where its file can't be used."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._place = Place(path)

    def close(self) -> None:
        self.connection.close()

    def caps(self) -> PoolCaps:
        with _translated_errors(self.path):
            *caps, crc = self.connection.execute("SELECT * FROM caps").fetchone()
        if checksum(caps) != crc:
            raise _damaged(self.path, "its caps don't match their checksum")
        return PoolCaps(*caps)

    def change_caps(self, changes: Mapping[str, int | None]) -> PoolCaps:
        """Sets caps by the fields of PoolCaps, unless no cap would be left; returns all."""
        with self.changing():
            caps = self.caps()._replace(**changes)
            if caps != PoolCaps(None, None):
                _write_caps(self.connection, caps)
        return caps

    def members(self, day: int, *, sandbox: bool) -> list[PoolMember]:
        """Returns the journals that the pool counts, by path; `today` is for the UTC day `day`."""
        with _translated_errors(self.path):
            found = self.connection.execute(
                "SELECT journal, born, retired,"
                " sum(nano_usd), ifnull(sum(nano_usd) FILTER (WHERE day = ?), 0)"
                " FROM claims WHERE sandbox = ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
                (day, sandbox),
            ).fetchall()
        return [PoolMember(*member) for member in found]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Commits at the end. No other process changes the pool meanwhile."""
        with _translated_errors(self.path), transaction(self.connection, immediate=True):
            yield

    @contextmanager
    def waiting_at_most(self, milliseconds: int) -> Iterator[None]:
        """Raises HeldError in this block where another program holds the pool for longer."""
        (usual,) = self.connection.execute("PRAGMA busy_timeout").fetchone()
        self.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
        try:
            yield
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {usual}")

    def check(self) -> None:
        """Raises JournalError where anything in the file is damaged."""
        with _translated_errors(self.path):
            _check_format(self.connection, self.path)
            (verdict,) = self.connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise _damaged(self.path, str(verdict).splitlines()[-1])
            for *claim, crc in self.connection.execute("SELECT * FROM claims"):
                if checksum(claim) != crc:
                    raise _damaged(self.path, "a claim doesn't match its checksum")
        self.caps()

    def check_place(self) -> None:
        """Raises MovedError where the open file is no longer the one at the pool's path."""
        if not self._place.is_kept():
            raise MovedError(
                f"The pool {self.path} was deleted, moved or replaced while the run was going on.\n"
                "Put it back, then run the same command."
            )


@dataclass(frozen=True, slots=True)
class PoolShare:
    """What a pool counts for one journal: for the holder of the lock of the journal's run."""

    pool: Pool
    journal: str
    born: int
    sandbox: bool

    def claim(self, least: int, day: int, attempt: int) -> Grant:
        """Claims `least` nano-USD or more for attempts of a day, or nothing if a cap leaves less.

        `attempt` is the highest one known to be durable in the journal, which tells it from older copies.
        Raises MovedError, StorageError, JournalError: then nothing more may be reserved. Returns soon, since
        it is called while requests are sent: raises HeldError while another program holds the pool.
        """
        self.pool.check_place()
        with self.pool.waiting_at_most(MOST_WAIT_MS), self.pool.changing():
            left, per_day = self.pool.caps().left(*self._counted(day, others_alone=False))
            if left < least:
                return Grant(0, left, per_day)
            granted = least + (left - least) // BATCHES
            self._write({day: self._own(day) + granted}, attempt)
        self.pool.check_place()  # again: it may have been replaced by a file where this claim is not
        return Grant(granted, left - granted, per_day)

    def settle(self, counted: Mapping[int, int], attempt: int) -> None:
        """Counts what the journal does, in nano-USD by day, instead of what was claimed.

        `attempt` is the journal's highest one. If the pool knows of a higher one, this is an older copy of
        the journal: what was claimed stays counted, too. All of it has to be durable, none in flight.
        """
        with self.pool.changing():
            claims = self.pool.connection.execute(
                f"DELETE FROM claims WHERE {_OWN} RETURNING day, nano_usd, attempt", self._key
            ).fetchall()
            if attempt < max((known for *_, known in claims), default=0):
                retired = self._last_retired() + 1
                for day, nano_usd, known in claims:
                    self._write({day: nano_usd}, known, retired)
            self._write(counted, attempt)

    def settle_salvaged(self, counted: Mapping[int, int], attempt: int, *, complete: bool) -> None:
        """Does what `settle` does for a journal that was salvaged, whose attempts are fewer for that reason.

        What the pool counted above it stays counted, unless the journal is `complete`: its records may be
        lost. The same goes for what an older copy had replaced, which may have been added to it.
        """
        with self.pool.changing():
            claims = self.pool.connection.execute(
                "DELETE FROM claims WHERE (journal, born, sandbox) = (?, ?, ?)"
                " RETURNING retired, day, nano_usd, attempt",
                self._key,
            ).fetchall()
            before = Counter[int]()
            for _, day, nano_usd, _ in claims:
                before[day] += nano_usd
            if not complete or any(retired or known > attempt for retired, *_, known in claims):
                self._write(before - Counter(counted), attempt, retired=1)
            self._write(counted, attempt)

    def left(self, day: int) -> int:
        """Returns what the caps leave for a day."""
        with _translated_errors(self.pool.path):
            return self.pool.caps().left(*self._counted(day, others_alone=False))[0]

    def left_after(self, counted: Mapping[int, int], day: int) -> int:
        """Returns what the caps would leave for a day once `counted` is settled."""
        with _translated_errors(self.pool.path):
            others, others_today = self._counted(day, others_alone=True)
        own = sum(counted.values())
        return self.pool.caps().left(others + own, others_today + counted.get(day, 0))[0]

    @property
    def _key(self) -> tuple[str, int, int]:
        return self.journal, self.born, int(self.sandbox)

    def _counted(self, day: int, *, others_alone: bool) -> tuple[int, int]:
        """Returns what counts in all and for a day, of all journals or of all but this one."""
        where, values = (f" AND NOT {_OWN}", self._key) if others_alone else ("", ())
        counted, today = self.pool.connection.execute(
            "SELECT ifnull(sum(nano_usd), 0), ifnull(sum(nano_usd) FILTER (WHERE day = ?), 0)"
            f" FROM claims WHERE sandbox = ?{where}",
            (day, self.sandbox, *values),
        ).fetchone()
        return counted, today

    def _own(self, day: int) -> int:
        found = self.pool.connection.execute(
            f"SELECT nano_usd FROM claims WHERE {_OWN} AND day = ?", (*self._key, day)
        ).fetchone()
        return 0 if found is None else int(found[0])

    def _last_retired(self) -> int:
        (last,) = self.pool.connection.execute(
            "SELECT ifnull(max(retired), 0) FROM claims WHERE (journal, born, sandbox) = (?, ?, ?)", self._key
        ).fetchone()
        return int(last)

    def _write(self, counted: Mapping[int, int], attempt: int, retired: int = 0) -> None:
        claims = [(*self._key, retired, day, nano_usd, attempt) for day, nano_usd in counted.items()]
        self.pool.connection.executemany(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*claim, checksum(claim)) for claim in claims],
        )


def share_of(pool: Pool, path: Path, journal: Journal | None, *, sandbox: bool) -> PoolShare:
    """Returns the share of the journal at `path`, for one kind of runs; None: there is no journal yet."""
    born = 0
    if journal is not None:
        with translated_errors(path):
            # Not the earliest start: a clock that is set back must not make it another journal.
            (born,) = journal.connection.execute(
                "SELECT ifnull((SELECT started_at FROM runs ORDER BY run LIMIT 1), 0)"
            ).fetchone()
    return PoolShare(pool, os.path.realpath(path), born, sandbox)


def open_pool(path: Path) -> Pool:
    """Opens an existing pool and checks all of it. Raises UsageError where there is none, JournalError where
    the file is damaged or not a pool, StorageError where it can't be used."""
    if not path.exists():
        raise UsageError(f"There is no pool {path}.\nNext: batchrun pool {quote(str(path))} --usd 20")
    with _translated_errors(path):
        pool = Pool(path, _connected(path))
        try:
            pool.check()
        except BaseException:
            pool.close()
            raise
    return pool


def make_pool(path: Path, caps: PoolCaps) -> None:
    """Makes a pool with these caps. Raises StorageError, also where the path is taken meanwhile."""
    try:
        # It gets its name when it is complete: a process that dies leaves no half-made pool behind.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        try:
            with _translated_errors(path), closing(_connected(Path(name))) as connection:
                connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
                connection.execute("INSERT INTO caps VALUES (NULL, NULL, 0)")
                _write_caps(connection, caps)
            os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise StorageError(f"The pool {path} can't be made: {error.strerror}.") from None


def _connected(path: Path) -> sqlite3.Connection:
    connection = connect(path, "rw")
    # With a rollback journal the pool is one file; EXTRA makes the end of a commit durable, too.
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _write_caps(connection: sqlite3.Connection, caps: PoolCaps) -> None:
    connection.execute(
        "UPDATE caps SET (nano_usd, nano_usd_per_day, crc32) = (?, ?, ?)", (*caps, checksum(list(caps)))
    )


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise _damaged(path, "it is not a pool of batchrun, or its first page is damaged")
    if version != FORMAT:
        raise JournalError(
            f"The pool {path} has format {version}; this batchrun knows format {FORMAT}.\n"
            "Install the batchrun that wrote it. The pool is left as it is."
        )


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_storage_fault(error) or is_held(error):
            kind = HeldError if is_held(error) else StorageError
            raise kind(
                f"The pool {path} can't be written or read: {error}.\n"
                "Make room, fix the permissions or close what holds it, then run the same command."
            ) from error
        raise _damaged(path, str(error)) from error
    except UnicodeDecodeError:
        raise _damaged(path, "text that isn't UTF-8") from None


def _damaged(path: Path, finding: str) -> JournalError:
    return JournalError(
        f"The pool {path} can't be trusted: {single_line(finding)}. It is left as it is.\n"
        "Restore it from a backup, or make another: each job's spend counts there from its next run."
    )
