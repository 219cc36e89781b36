"""The journal's format: its tables. `checksums` says what protects their records."""

import sqlite3
from functools import cache
from pathlib import Path

from batchrun.errors import JournalError

FORMAT = 4
APPLICATION_ID = 0x62617463  # "batc", by which `file` and SQLite tools recognize the format

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
    control INTEGER NOT NULL,           -- CRC-32 of the columns up to first_token_ms
    response_crc32 INTEGER NOT NULL,    -- continues it over the response
    response BLOB                       -- as it came
);
CREATE TABLE attempts_by_digest (       -- the index by digest, of all attempts but the unindexed ones
    digest BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (digest, attempt)
) WITHOUT ROWID;
CREATE TABLE unindexed (                -- the attempts that a commit ended, until they are indexed
    number INTEGER PRIMARY KEY,
    attempts TEXT NOT NULL,             -- a JSON array
    digests BLOB NOT NULL,              -- their digests, 16 bytes each
    crc32 INTEGER NOT NULL
);
CREATE INDEX attempts_without_answer ON attempts (outcome) WHERE outcome <> 'answered';
CREATE TABLE intent_blocks (            -- the intents of one commit, until the last of them has ended
    first INTEGER PRIMARY KEY,          -- their first attempt
    intents TEXT NOT NULL,              -- [attempt, run, number, started_at, nano_usd, credits, tokens]
    digests BLOB NOT NULL,              -- their digests, 16 bytes each
    crc32 INTEGER NOT NULL
);
CREATE TABLE overruns (                 -- answers that cost more than had been thought possible
    attempt INTEGER PRIMARY KEY,
    input_bound INTEGER NOT NULL,       -- of tokens, as the worst case was reckoned with them
    output_bound INTEGER NOT NULL,
    control INTEGER NOT NULL CHECK (control = {OVERRUN_CONTROL})
);
CREATE TABLE totals (                   -- sums over attempts, kept in the same transactions
    run INTEGER NOT NULL,
    day INTEGER NOT NULL,               -- of started_at: days since 1970 UTC
    outcome TEXT NOT NULL,
    error_code TEXT NOT NULL,           -- '' with a response
    requests INTEGER NOT NULL,
    retried INTEGER NOT NULL,
    final INTEGER NOT NULL,
    nano_usd INTEGER NOT NULL,
    credits INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    dearest_credits INTEGER NOT NULL,   -- and tokens, of the response with the most credits per token
    dearest_tokens INTEGER NOT NULL,
    least_balance INTEGER,              -- the lowest remaining_credits, and when the first with it ended
    least_balance_at INTEGER,
    crc32 INTEGER NOT NULL,
    PRIMARY KEY (run, day, outcome, error_code)
) WITHOUT ROWID;
CREATE TABLE checks (                   -- when the whole journal was last checked
    checked_at INTEGER NOT NULL
);
CREATE VIEW intents AS                  -- requests that may be on their way: no outcome is known
SELECT attempt, run, digest, number, started_at, nano_usd, credits, tokens FROM (
    SELECT json_extract(value, '$[0]') AS attempt, json_extract(value, '$[1]') AS run,
        substr(digests, 1 + 16 * key, 16) AS digest, json_extract(value, '$[2]') AS number,
        json_extract(value, '$[3]') AS started_at, json_extract(value, '$[4]') AS nano_usd,
        json_extract(value, '$[5]') AS credits, json_extract(value, '$[6]') AS tokens
    FROM intent_blocks, json_each(intents)
) AS opened WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.attempt = opened.attempt);
CREATE VIEW responses AS                -- the answers as they came
SELECT attempt, response_crc32 AS crc32, response AS body FROM attempts WHERE response NOTNULL;
"""

ADJUSTMENTS = """CREATE TABLE IF NOT EXISTS adjustments (
    id TEXT PRIMARY KEY,
    run INTEGER NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    settings TEXT NOT NULL,             -- key: [old value, new value], as JSON
    refused TEXT                        -- why the run didn't take it
)"""
"""What was set while a run was going on."""
SAMPLES = """CREATE TABLE IF NOT EXISTS samples (
    run INTEGER NOT NULL,
    second INTEGER NOT NULL,            -- since the run's start
    stride INTEGER NOT NULL,            -- seconds between two samples from here on
    in_flight INTEGER NOT NULL,
    nano_usd INTEGER NOT NULL,          -- settled, uncertain and reserved, over the journal's life
    requests_per_minute REAL,           -- the limit; NULL without one
    held_by TEXT,                       -- what held the next request back
    PRIMARY KEY (run, second)
)"""
LATER = {"adjustments": ADJUSTMENTS, "samples": SAMPLES}
"""Tables that are created with their first record, in journals of any age: no amount rests on them."""


@cache
def columns(table: str) -> tuple[str, ...]:
    """Returns the names of a table's columns, in order."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create(fresh)
        return tuple(name for (name,) in fresh.execute("SELECT name FROM pragma_table_info(?)", (table,)))
    finally:
        fresh.close()


def create(connection: sqlite3.Connection) -> None:
    """Creates the tables, all or none of them."""
    connection.executescript(
        f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    )


def format_of(connection: sqlite3.Connection, path: Path) -> int:
    """Returns the format of a journal's file. Raises JournalError where it isn't one, or is newer."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is not a journal of batchrun, or its first page is damaged. It is left as it is.\n"
            "If it was one, save what can still be read: batchrun export --salvage JOB"
        )
    if not 1 <= version <= FORMAT:
        raise JournalError(
            f"The journal {path} has format {version}; this batchrun knows format {FORMAT} and older.\n"
            "Install the batchrun that wrote it. The journal is left as it is."
        )
    return int(version)


def has_our_tables(connection: sqlite3.Connection) -> bool:
    """Returns whether all tables are there as they were made, and nothing else."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create(fresh)
        wanted, found = _definitions(fresh), _definitions(connection)
        return wanted <= found and found - wanted <= _LATER
    finally:
        fresh.close()


# SQLite keeps a table's definition without the condition.
_LATER = {
    ("table", name, name, definition.replace("IF NOT EXISTS ", "")) for name, definition in LATER.items()
}


def _definitions(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"
    return set(connection.execute(query))
