"""Brings a journal back to format 3, as a run of an earlier version would have left it."""

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import msgspec

_FORMAT_3 = Path(__file__).parents[1] / "journals" / "format3" / "journal.sqlite"
_IN_THE_CHECKSUM = (
    "attempt, finished_at, input_tokens, output_tokens, remaining_credits, latency_ms, first_token_ms"
)
_FILL = f"""
INSERT INTO runs SELECT * FROM now.runs;
INSERT INTO overruns SELECT * FROM now.overruns;
INSERT INTO intents SELECT attempt, run, digest, number, started_at, nano_usd, credits, tokens,
    attempt + run + number + started_at + nano_usd + credits + tokens FROM now.intents;
INSERT INTO attempts SELECT attempt, run, digest, number, started_at, finished_at, outcome, final, nano_usd,
    credits, tokens, input_tokens, output_tokens, remaining_credits, latency_ms, first_token_ms, http_status,
    error_code, error, attempt + run + started_at + final + ifnull(nano_usd, -1) + credits + tokens
    FROM now.attempts;
INSERT INTO responses SELECT attempt, former_checksum(response, {_IN_THE_CHECKSUM}), response
    FROM now.attempts WHERE response NOTNULL;
"""


def bring_back(journal: Path) -> bool:
    """Writes the journal again in format 3, unless it has that. False without a journal or its tables."""
    stored_format = _format_of(journal) if journal.exists() else 0
    if stored_format in (0, 3):
        return stored_format == 3
    former = journal.with_name("former.sqlite")
    with closing(sqlite3.connect(former)) as target, closing(sqlite3.connect(_FORMAT_3)) as example:
        for (definition,) in example.execute("SELECT sql FROM sqlite_schema WHERE sql NOTNULL"):
            target.execute(definition)
        for pragma in ("application_id", "user_version"):
            target.execute(f"PRAGMA {pragma} = {example.execute(f'PRAGMA {pragma}').fetchone()[0]}")
        target.create_function("former_checksum", -1, _former_checksum)
        target.execute("ATTACH ? AS now", (str(journal),))
        target.executescript(f"BEGIN; {_FILL} COMMIT;")
    for end in ("-wal", "-shm"):
        journal.with_name(journal.name + end).unlink(missing_ok=True)
    former.replace(journal)
    return True


def _format_of(journal: Path) -> int:
    with closing(sqlite3.connect(journal)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _former_checksum(body: bytes, *numbers: float | None) -> int:
    return zlib.crc32(msgspec.msgpack.encode(numbers), zlib.crc32(body))
