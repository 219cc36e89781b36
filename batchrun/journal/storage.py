"""The journal's file: its tables, opening it, and reading it."""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from batchrun.amounts import Amount
from batchrun.errors import JournalError, StorageError
from batchrun.journal.records import Outcome, RequestHistory, Spend, Totals

FORMAT = 1
APPLICATION_ID = 0x62617463  # "batc", by which `file` and SQLite tools know the format

TABLES = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    version TEXT NOT NULL,              -- of batchrun
    started_at INTEGER NOT NULL,        -- milliseconds since 1970 UTC, as all times here
    finished_at INTEGER,
    sandbox INTEGER NOT NULL,           -- 1: no model answered and nothing was paid
    endpoint TEXT NOT NULL,
    fingerprint TEXT NOT NULL,          -- of the job's prompt, request and endpoint
    job TEXT NOT NULL,                  -- the job as JSON, without secrets
    rows TEXT,                          -- counts by status, as JSON
    exit_code INTEGER,
    reason TEXT
);
CREATE TABLE intents (                  -- requests that may be on their way: no outcome is known
    attempt INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    nano_usd INTEGER NOT NULL,          -- the three amounts are reserved, at the worst case
    credits INTEGER NOT NULL,
    tokens INTEGER NOT NULL
);
CREATE TABLE attempts (                 -- requests whose end is known, or given up
    attempt INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,              -- answered, refused (not billed), uncertain
    final INTEGER NOT NULL,             -- 1: this failure ended its row
    nano_usd INTEGER,                   -- the three amounts are booked; NULL: the cost can't be computed
    credits INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    remaining_credits INTEGER,
    latency_ms REAL,
    first_token_ms REAL,
    http_status INTEGER,
    error_code TEXT,
    error TEXT
);
CREATE INDEX attempts_by_digest ON attempts (digest);
CREATE TABLE responses (                -- the answers as they came
    attempt INTEGER PRIMARY KEY,
    crc32 INTEGER NOT NULL,
    body BLOB NOT NULL
);
"""


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: the one place where they are told apart."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error


def translate(path: Path, error: sqlite3.Error) -> JournalError | StorageError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StorageError(
            f"The journal {path} can't be written or read: {error}.\n"
            "Answers committed so far are safe. Make room or mend the permissions, then run the same command."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError(
            f"The journal {path} is held by another program: {error}. Close it, then try again."
        )
    return JournalError(
        f"The journal {path} is damaged: {error}. It is left as it is.\n"
        "Restore it from a backup, or move the folder away to start anew (answered rows are then paid again)."
    )


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
        columns = "version, started_at, sandbox, endpoint, fingerprint, job"
        with translated_errors(self.path):
            cursor = self.connection.execute(
                f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?)",
                (version, started_at, sandbox, endpoint, fingerprint, job),
            )
        return int(cursor.lastrowid or 0)

    def finish_run(self, run: int, finished_at: int, rows: str, exit_code: int, reason: str) -> None:
        with translated_errors(self.path):
            self.connection.execute(
                "UPDATE runs SET finished_at = ?, rows = ?, exit_code = ?, reason = ? WHERE run = ?",
                (finished_at, rows, exit_code, reason, run),
            )

    def give_up_intents(self, finished_at: int, final: bool) -> int:
        """Books the intents that a dead run has left as uncertain, at their worst case; returns how many.

        Only the holder of the lock may call this: another run's intents would be in flight.
        """
        with translated_errors(self.path), transaction(self.connection):
            cursor = self.connection.execute(
                "INSERT INTO attempts (attempt, run, digest, number, started_at, finished_at, outcome, final,"
                " nano_usd, credits, tokens, error_code, error)"
                " SELECT attempt, run, digest, number, started_at, ?, 'uncertain', ?,"
                " nano_usd, credits, tokens, 'in_doubt', 'The run ended before this request was answered.'"
                " FROM intents",
                (finished_at, final),
            )
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

    def settled_digests(self, digests: Sequence[bytes], retry_failed_before: int = 0) -> set[bytes]:
        """Those of the requests that need no asking: answered, or failed for good.

        Failures of runs before `retry_failed_before` don't count.
        """
        if not digests:
            return set()
        with translated_errors(self.path):
            rows = self.connection.execute(
                f"SELECT digest FROM attempts WHERE digest IN ({_marks(digests)})"
                " AND (outcome = 'answered' OR (final AND run >= ?))",
                (*digests, retry_failed_before),
            )
            return {row[0] for row in rows}

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
                " remaining_credits, latency_ms, first_token_ms, finished_at, error_code, error, crc32, body"
                f" FROM attempts LEFT JOIN responses USING (attempt) WHERE digest IN ({_marks(digests)})"
                " ORDER BY attempt",
                digests,
            )
            for row in rows:
                _add_attempt(histories.setdefault(row[0], RequestHistory()), row, self.path)
        return histories

    def totals(self, sandbox: bool, *, run: int | None = None, since: int | None = None) -> Totals:
        """Sums over one kind of runs (with a sandbox or without), over one run, or since an instant."""
        where = "run IN (SELECT run FROM runs WHERE sandbox = ?)"
        parameters: list[Any] = [int(sandbox)]
        for condition, value in (("run = ?", run), ("started_at >= ?", since)):
            if value is not None:
                where += f" AND {condition}"
                parameters.append(value)
        with translated_errors(self.path), transaction(self.connection):
            return _sum_up(self.connection, where, parameters)

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
    with translated_errors(path):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StorageError(
                f"The journal {path} can't be opened for writing: {error.strerror}."
            ) from error
        new = path.stat().st_size == 0
        connection = _connect(path, "rw")
        try:
            if new:
                _create(connection)
            else:
                _check_format(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -16000")  # KiB
        except BaseException:
            connection.close()
            raise
        return Journal(path, connection)


def open_for_reading(path: Path) -> Journal:
    """Opens the journal beside a run that may be going on. Raises JournalError, StorageError."""
    with translated_errors(path):
        try:
            connection = _connect(path, "ro")
            _check_format(connection, path)
        except sqlite3.OperationalError:
            # In a folder that can't be written there is no place for the index of the write-ahead log.
            connection = _connect(path, "ro&immutable=1")
            _check_format(connection, path)
        return Journal(path, connection)


def check_whole(journal: Journal) -> None:
    """Raises JournalError when SQLite finds the file's structure damaged."""
    with translated_errors(journal.path):
        (verdict,) = journal.connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise translate(journal.path, sqlite3.DatabaseError(str(verdict).splitlines()[0]))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    )


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is no journal of batchrun, or its first page is damaged. It is left as it is."
        )
    if version > FORMAT:
        raise JournalError(
            f"The journal {path} has format {version}; this batchrun knows formats up to {FORMAT}.\n"
            "Install the newer batchrun that wrote it. The journal is left as it is."
        )


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _add_attempt(history: RequestHistory, row: tuple[Any, ...], path: Path) -> None:
    outcome, final, nano_usd, credits_booked, input_tokens, output_tokens = row[1:7]
    history.attempts += 1
    if outcome == Outcome.ANSWERED:
        history.remaining_credits, history.latency_ms, history.first_token_ms, history.answered_at = row[7:11]
        crc, body = row[13:15]
        if body is None or zlib.crc32(body) != crc:
            raise JournalError(f"The journal {path} is damaged: an answer doesn't match its checksum.")
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


def _sum_up(connection: sqlite3.Connection, where: str, parameters: Sequence[Any]) -> Totals:
    booked = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT outcome, count(*), ifnull(sum(nano_usd), 0), sum(credits), sum(tokens),"
            " ifnull(sum(input_tokens), 0), ifnull(sum(output_tokens), 0), sum(number > 1), sum(final)"
            f" FROM attempts WHERE {where} GROUP BY outcome",
            parameters,
        )
    }
    nothing = (0,) * 8
    answered, refused, uncertain = (booked.get(outcome, nothing) for outcome in Outcome)
    in_flight = connection.execute(
        "SELECT count(*), ifnull(sum(nano_usd), 0), ifnull(sum(credits), 0), ifnull(sum(tokens), 0),"
        f" ifnull(sum(number > 1), 0) FROM intents WHERE {where}",
        parameters,
    ).fetchone()
    remaining, rate = _credits_seen(connection, where, parameters)
    errors = connection.execute(
        f"SELECT error_code, count(*) FROM attempts WHERE {where} AND error_code NOTNULL GROUP BY error_code",
        parameters,
    )
    return Totals(
        spend=Spend(Amount(answered[1], answered[2], answered[3], answered[0]), Amount(*uncertain[1:4])),
        open=Amount(*in_flight[1:4]),
        open_intents=in_flight[0],
        requests=answered[0] + refused[0] + uncertain[0] + in_flight[0],
        retried=answered[6] + refused[6] + uncertain[6] + in_flight[4],
        answered=answered[0],
        failed=refused[7] + uncertain[7],
        uncertain=uncertain[0],
        input_tokens=answered[4],
        output_tokens=answered[5],
        remaining_credits=remaining,
        credits_per_token=rate,
        by_error=dict(errors),
    )


def _credits_seen(
    connection: sqlite3.Connection, where: str, parameters: Sequence[Any]
) -> tuple[int | None, Fraction | None]:
    (remaining,) = connection.execute(
        f"SELECT remaining_credits FROM attempts WHERE {where} AND remaining_credits IS NOT NULL"
        " ORDER BY attempt DESC LIMIT 1",
        parameters,
    ).fetchone() or (None,)
    rate = connection.execute(
        # SQLite takes the other columns of a lone max() from the row that has the maximum.
        "SELECT credits, tokens, max(CAST(credits AS REAL) / tokens) FROM attempts"
        f" WHERE {where} AND outcome = 'answered' AND credits > 0 AND tokens > 0",
        parameters,
    ).fetchone()
    return remaining, Fraction(rate[0], rate[1]) if rate and rate[1] else None
