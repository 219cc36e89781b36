"""The journal's format: its tables, and what shows that they are whole.

A flipped bit is found by SQLite's integrity check: in pages by their structure, in digests by the second copy
in the index, in the numbers that the budget rests on by the column `control`, which a CHECK constraint
compares with their sum. An answer and what goes with it have a checksum, compared whenever they are read.
Texts of errors have neither.
"""

import sqlite3
from pathlib import Path

from batchrun.errors import JournalError
from batchrun.journal.connection import damaged

FORMAT = 3
APPLICATION_ID = 0x62617463  # "batc", by which `file` and SQLite tools know the format

INTENT_CONTROL = "attempt + run + number + started_at + nano_usd + credits + tokens"

# What the budget rests on. NULL counts as -1, since a flipped bit can make a 0 of it.
ATTEMPT_CONTROL = "attempt + run + started_at + final + ifnull(nano_usd, -1) + credits + tokens"
RUN_CONTROL = "run + started_at + sandbox"
OVERRUN_CONTROL = "attempt + input_bound + output_bound"

TABLES = f"""
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    version TEXT NOT NULL,              -- of batchrun
    started_at INTEGER NOT NULL,        -- milliseconds since 1970 UTC, as all times here
    finished_at INTEGER,
    sandbox INTEGER NOT NULL,           -- 1: no model answered and nothing was paid
    endpoint TEXT NOT NULL,
    fingerprint TEXT NOT NULL,          -- of the job's prompt, request and endpoint
    job TEXT NOT NULL,                  -- the job as JSON, without secrets
    sampling TEXT,                      -- how an evaluation draws its rows, as JSON
    rows TEXT,                          -- counts by status, as JSON
    exit_code INTEGER,
    reason TEXT,
    control INTEGER NOT NULL CHECK (control = {RUN_CONTROL})
);
CREATE TABLE intents (                  -- requests that may be on their way: no outcome is known
    attempt INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    nano_usd INTEGER NOT NULL,          -- the three amounts are reserved, at the worst case
    credits INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    control INTEGER NOT NULL CHECK (control = {INTENT_CONTROL})
);
CREATE TABLE attempts (                 -- requests whose end is known, or given up
    attempt INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('answered', 'refused', 'uncertain')), -- refused: not billed
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
    error TEXT,
    control INTEGER NOT NULL CHECK (control = {ATTEMPT_CONTROL})
);
CREATE INDEX attempts_by_digest ON attempts (digest);
CREATE INDEX attempts_without_answer ON attempts (outcome) WHERE outcome <> 'answered';
CREATE TABLE responses (                -- the answers as they came
    attempt INTEGER PRIMARY KEY,
    crc32 INTEGER NOT NULL,             -- of the body and of the numbers that go with it
    body BLOB NOT NULL
);
CREATE TABLE overruns (                 -- answers that cost more than had been thought possible
    attempt INTEGER PRIMARY KEY,
    input_bound INTEGER NOT NULL,       -- of tokens, as the worst case was reckoned with them
    output_bound INTEGER NOT NULL,
    control INTEGER NOT NULL CHECK (control = {OVERRUN_CONTROL})
);
"""


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables, all or none of them."""
    connection.executescript(
        f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    )


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raises JournalError where the file is no journal, or has another format."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is no journal of batchrun, or its first page is damaged. It is left as it is.\n"
            "If it was one, save what can still be read: batchrun export --salvage JOB"
        )
    if version != FORMAT:
        raise JournalError(
            f"The journal {path} has format {version}; this batchrun knows format {FORMAT}.\n"
            "Install the batchrun that wrote it. The journal is left as it is."
        )


def check_contents(connection: sqlite3.Connection, path: Path) -> None:
    """Raises JournalError where anything but an answer's body is found damaged."""
    if not has_our_tables(connection):
        raise damaged(path, "its tables are not as they were made")
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != ("ok",):
        raise damaged(path, str(verdict[0]).splitlines()[-1])


def has_our_tables(connection: sqlite3.Connection) -> bool:
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create(fresh)
        return _definitions(connection) == _definitions(fresh)
    finally:
        fresh.close()


def _definitions(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
