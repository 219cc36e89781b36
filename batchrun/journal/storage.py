"""The journal's file: its tables, opening it, and reading it."""

import os
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batchrun.errors import StorageError
from batchrun.journal.connection import connect, damaged, transaction, translated_errors
from batchrun.journal.records import Outcome, RequestHistory, Totals
from batchrun.journal.schema import check_contents, check_format, create
from batchrun.journal.totals import sum_up

_encode = msgspec.msgpack.Encoder().encode


LONGEST_ATTEMPT_MS = 600_000
"""An older attempt is taken not to have ended just now."""

_SETTLED = (
    "(outcome = 'answered' OR (final AND run >= ?"
    " AND attempt = (SELECT max(later.attempt) FROM attempts AS later WHERE later.digest = attempts.digest)))"
)
"""A failure ends its request only until somebody has asked for it again."""


class Journal:
    """An open journal. Reads may run on a connection of their own while a run writes."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    def close(self) -> None:
        self.connection.close()

    def start_run(
        self, version: str, started_at: int, sandbox: bool, endpoint: str, fingerprint: str, job: str
    ) -> int:
        """Writes down that a run starts; returns its number."""
        with translated_errors(self.path), transaction(self.connection):
            (number,) = self.connection.execute("SELECT ifnull(max(run), 0) + 1 FROM runs").fetchone()
            self.connection.execute(
                "INSERT INTO runs (run, version, started_at, sandbox, endpoint, fingerprint, job, control)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?1 + ?3 + ?4)",
                (number, version, started_at, sandbox, endpoint, fingerprint, job),
            )
        return int(number)

    def finish_run(self, run: int, finished_at: int, rows: str, exit_code: int, reason: str) -> None:
        with translated_errors(self.path):
            self.connection.execute(
                "UPDATE runs SET finished_at = ?, rows = ?, exit_code = ?, reason = ? WHERE run = ?",
                (finished_at, rows, exit_code, reason, run),
            )

    def note_rows(self, run: int, rows: str) -> None:
        """Writes down the counts of rows so far, as JSON, for whoever looks on."""
        with translated_errors(self.path):
            self.connection.execute("UPDATE runs SET rows = ? WHERE run = ?", (rows, run))

    def note_sampling(self, run: int, plan: str) -> None:
        """Writes down how the rows of a run are drawn, as JSON, before the first one is asked for."""
        with translated_errors(self.path):
            self.connection.execute("UPDATE runs SET sampling = ? WHERE run = ?", (plan, run))

    def samplings(self) -> dict[int, str]:
        """How the runs that drew their rows at random have done so, as JSON, by the number of the run."""
        with translated_errors(self.path):
            return dict(self.connection.execute("SELECT run, sampling FROM runs WHERE sampling NOTNULL"))

    def give_up_intents(self, finished_at: int, final: bool) -> int:
        """Books the intents that a dead run has left as uncertain, at their worst case; returns how many.

        Only the holder of the lock may call this: another run's intents would be in flight.
        """
        with translated_errors(self.path), transaction(self.connection):
            cursor = self.connection.execute(_GIVE_UP_INTENTS, (finished_at, final))
            self.connection.execute("DELETE FROM intents")
        return cursor.rowcount

    def next_attempt(self) -> int:
        """The first attempt number that was never used."""
        with translated_errors(self.path):
            row = self.connection.execute(
                "SELECT max(attempt)"
                " FROM (SELECT attempt FROM attempts UNION ALL SELECT attempt FROM intents)"
            ).fetchone()
        return int(row[0] or 0) + 1

    def latest_start(self) -> int:
        """When the newest request was intended, in milliseconds since 1970 UTC; 0 before the first."""
        with translated_errors(self.path):
            row = self.connection.execute(
                "SELECT started_at FROM attempts ORDER BY attempt DESC LIMIT 1"
            ).fetchone()
        return int(row[0]) if row else 0

    def settled_digests(self, digests: Sequence[bytes], retry_failed_before: int = 0) -> dict[bytes, bool]:
        """Those of the requests that need no asking: False where answered, True where failed for good.

        Failures of runs before `retry_failed_before` don't count.
        """
        if not digests:
            return {}
        with translated_errors(self.path):
            return dict(
                self.connection.execute(
                    "SELECT digest, outcome <> 'answered' FROM attempts"
                    f" WHERE digest IN ({_marks(digests)}) AND {_SETTLED}",
                    (*digests, retry_failed_before),
                )
            )

    def settled_after(
        self, attempt: int, most: int, retry_failed_before: int = 0
    ) -> list[tuple[int, bytes, bool]]:
        """The next `most` attempts after `attempt` that settled their requests, with the digests of these
        and whether they failed for good.

        In the order of asking, and by the rule of `settled_digests`.
        """
        with translated_errors(self.path):
            return self.connection.execute(
                "SELECT attempt, digest, outcome <> 'answered' FROM attempts"
                f" WHERE attempt > ? AND {_SETTLED}"
                " ORDER BY attempt LIMIT ?",
                (attempt, retry_failed_before, most),
            ).fetchall()

    def histories(self, digests: Sequence[bytes]) -> dict[bytes, RequestHistory]:
        """What is known of each of the requests; those never asked are left out.

        Raises JournalError where an answer no longer matches its checksum.
        """
        histories: dict[bytes, RequestHistory] = {}
        if not digests:
            return histories
        with translated_errors(self.path):
            rows = self.connection.execute(
                "SELECT digest, outcome, final, nano_usd, credits, input_tokens, output_tokens,"
                " remaining_credits, latency_ms, first_token_ms, finished_at, error_code, error,"
                " attempt, crc32, body, run"
                f" FROM attempts LEFT JOIN responses USING (attempt) WHERE digest IN ({_marks(digests)})"
                " ORDER BY digest, attempt",  # the order of the index, so that no answer has to be sorted
                digests,
            )
            for row in rows:
                _add_attempt(histories.setdefault(row[0], RequestHistory()), row, self.path)
        return histories

    def totals(self, sandbox: bool, *, run: int | None = None, since: int | None = None) -> Totals:
        """Sums over one kind of runs (with a sandbox or without), over one run, or since an instant."""
        with translated_errors(self.path), transaction(self.connection):
            conditions = [_of_kind(self.connection, sandbox)]
            if run is not None:
                conditions.append(f"run = {run:d}")
            if since is not None:
                conditions.append(f"started_at >= {since:d}")
            return sum_up(self.connection, " AND ".join(conditions))

    def lowest_balance(self, sandbox: bool) -> int | None:
        """The credits that the account has at least, if nobody else spends on the key. None: no answer said.

        Answers come out of order, so the lowest that the newest run with a report has seen counts, less
        what requests without a known outcome may have used since then.
        """
        with translated_errors(self.path), transaction(self.connection):
            kind = _of_kind(self.connection, sandbox)
            reported = self.connection.execute(
                "SELECT remaining_credits, finished_at FROM attempts"
                " WHERE remaining_credits NOTNULL AND run ="
                f" (SELECT max(run) FROM attempts WHERE remaining_credits NOTNULL AND {kind})"
                " ORDER BY remaining_credits, finished_at LIMIT 1"
            ).fetchone()
            if reported is None:
                return None
            (used_since,) = self.connection.execute(
                "SELECT ifnull(sum(credits), 0) FROM attempts"
                f" WHERE outcome = 'uncertain' AND finished_at >= ? AND {kind}",
                (reported[1],),
            ).fetchone()
        return int(reported[0] - used_since)

    def uncertain_credits_by_balance(self, sandbox: bool) -> int | None:
        """The credits that uncertain requests really used, as the account's balance shows.

        None where it doesn't show that: an answer named no balance, uncertain requests were sent
        before the first answer or ended after the last, or the clock was set back, so that nobody knows.
        True only if nobody else spends on the key and it wasn't topped up.
        """
        with translated_errors(self.path), transaction(self.connection):
            kind = _of_kind(self.connection, sandbox)
            began, ended, bound, before_begin = self.connection.execute(
                "SELECT min(started_at), max(finished_at), sum(credits), sum(finished_at < started_at)"
                f" FROM attempts WHERE outcome = 'uncertain' AND {kind}"
            ).fetchone()
            if began is None or before_begin:
                return None
            first, last, silent, used, most, least, before_begin = self.connection.execute(
                "SELECT min(finished_at), max(started_at), count(*) - count(remaining_credits), sum(credits),"
                " max(remaining_credits + credits), min(remaining_credits), sum(finished_at < started_at)"
                f" FROM attempts WHERE outcome = 'answered' AND {kind}"
            ).fetchone()
        if first is None or silent or before_begin or not (first < began and ended < last):
            return None
        rest = int(most - least - used)
        return rest if 0 <= rest <= bound else None

    def answers_since(self, instant: int) -> int:
        """The answers that came at or after an instant, among the attempts that can have ended since."""
        with translated_errors(self.path):
            (answers,) = self.connection.execute(
                "SELECT count(*) FROM attempts WHERE outcome = 'answered' AND finished_at >= ?1"
                " AND attempt > ifnull("
                "(SELECT attempt FROM attempts WHERE started_at < ?2 ORDER BY attempt DESC LIMIT 1), 0)",
                (instant, instant - LONGEST_ATTEMPT_MS),
            ).fetchone()
        return int(answers)

    def last_row_counts(self, sandbox: bool) -> str | None:
        """The counts of rows by status, as JSON, when a run last ended in order."""
        with translated_errors(self.path):
            row = self.connection.execute(
                "SELECT rows FROM runs WHERE sandbox = ? AND rows NOTNULL ORDER BY run DESC LIMIT 1",
                (int(sandbox),),
            ).fetchone()
        return None if row is None else str(row[0])

    def last_run(self, sandbox: bool) -> dict[str, Any] | None:
        """The newest run's row, by column name."""
        with translated_errors(self.path):
            cursor = self.connection.execute(
                "SELECT * FROM runs WHERE sandbox = ? ORDER BY run DESC LIMIT 1", (int(sandbox),)
            )
            row = cursor.fetchone()
            return None if row is None else dict(zip((c[0] for c in cursor.description), row, strict=True))


def create_or_open(path: Path) -> Journal:
    """Opens the journal for writing; creates it where there is none.

    Only the holder of the run's lock may call this. Raises JournalError where the file is damaged or
    of another format, StorageError where it can't be written.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"The journal {path} can't be opened for writing: {error.strerror}.") from error
    return _open(path, "rw", _prepare_for_writing)


def open_for_reading(path: Path) -> Journal:
    """Opens the journal beside a run that may be going on. Raises JournalError, StorageError."""
    try:
        return _open(path, "ro", check_format)
    except StorageError:
        # In a folder that can't be written there is no place for the index of the write-ahead log.
        return _open(path, "ro&immutable=1", check_format)


def check_whole(journal: Journal) -> None:
    """Raises JournalError where anything but an answer's body is damaged: `histories` checks those."""
    with translated_errors(journal.path):
        check_contents(journal.connection, journal.path)


def _open(path: Path, mode: str, prepare: Callable[[sqlite3.Connection, Path], None]) -> Journal:
    with translated_errors(path):
        connection = connect(path, mode)
        try:
            prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return Journal(path, connection)


def _prepare_for_writing(connection: sqlite3.Connection, path: Path) -> None:
    # Asked of SQLite, since a process that died while it created the file may have left half of it.
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages == 0 and path.stat().st_size == 0:
        create(connection)
    else:
        check_format(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16000")  # KiB
    # Pages of the index by digest change again and again: the fewer checkpoints, the fewer copies of them.
    connection.execute("PRAGMA wal_autocheckpoint = 32000")  # pages of 4 KiB: 131 MB


_GIVE_UP_INTENTS = """
INSERT INTO attempts (attempt, run, digest, number, started_at, finished_at, outcome, final, nano_usd,
    credits, tokens, error_code, error, control)
SELECT attempt, run, digest, number, started_at, ?1, 'uncertain', ?2, nano_usd,
    credits, tokens, 'in_doubt', 'The run ended before this request was answered.',
    attempt + run + started_at + ?2 + nano_usd + credits + tokens
FROM intents
"""


def checksum(body: bytes, *numbers: float | None) -> int:
    """CRC-32 of an answer and the numbers that go with it.

    `numbers`: attempt, finished_at, input_tokens, output_tokens, remaining_credits, latency_ms and
    first_token_ms.
    """
    return zlib.crc32(_encode(numbers), zlib.crc32(body))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _add_attempt(history: RequestHistory, row: tuple[Any, ...], path: Path) -> None:
    outcome, final, nano_usd, credits_booked, input_tokens, output_tokens = row[1:7]
    history.attempts += 1
    history.run = row[16]
    if outcome == Outcome.ANSWERED:
        history.remaining_credits, history.latency_ms, history.first_token_ms, history.answered_at = row[7:11]
        attempt, crc, body = row[13:16]
        if body is None or checksum(body, attempt, row[10], *row[5:10]) != crc:
            raise damaged(path, f"the answer of attempt {attempt} is missing or doesn't match its checksum")
        history.answer = body
        history.input_tokens = (history.input_tokens or 0) + (input_tokens or 0)
        history.output_tokens = (history.output_tokens or 0) + (output_tokens or 0)
        history.credits = (history.credits or 0) + credits_booked
        if nano_usd is not None:
            history.nano_usd = (history.nano_usd or 0) + nano_usd
    else:
        history.failed = bool(final)
        history.error_code, history.error = row[11:13]
        if outcome == Outcome.UNCERTAIN:
            history.uncertain_nano_usd += nano_usd or 0


def _of_kind(connection: sqlite3.Connection, sandbox: bool) -> str:
    """A condition on the attempts of one kind of runs; a short one where there is no other kind."""
    others = connection.execute("SELECT run FROM runs WHERE sandbox <> ?", (int(sandbox),)).fetchall()
    return f"run NOT IN ({', '.join(str(run) for (run,) in others)})" if others else "true"
