"""Journals of formats 1 to 3, shown as the current format: temporary views over their tables.

Format 1 had no sampling plans, formats 1 and 2 no overruns. All kept the bodies in a table of their own, the
open intents one by one, and no sums.
"""

import sqlite3
import zlib
from typing import Any

import msgspec

from batchrun.journal.checksums import NUMBERS, UNSEALED, sealed
from batchrun.journal.records import AttemptRow, Intent

_ALWAYS = ("runs", "intents", "attempts", "responses")
TABLES: dict[int, tuple[str, ...]] = {1: _ALWAYS, 2: _ALWAYS, 3: (*_ALWAYS, "overruns")}
"""The tables of each former format."""

_encode = msgspec.msgpack.Encoder().encode
_CHECKED = tuple(
    AttemptRow._fields.index(name)
    for name in (
        "attempt",
        "finished_at",
        "input_tokens",
        "output_tokens",
        "remaining_credits",
        "latency_ms",
        "first_token_ms",
    )
)
"""The columns that a response's checksum covered besides its body."""
_UNKNOWN = -1
"""In place of a checksum: no record has it."""


def show_as_current(connection: sqlite3.Connection, former: int) -> None:
    """Lets queries for the current format's tables with runs and attempts read the former ones."""
    _add_functions(connection)
    for table, query in _queries(former).items():
        connection.execute(f"CREATE TEMP VIEW {table} AS {query}")


def former_intents(connection: sqlite3.Connection) -> list[Intent]:
    """Returns the open intents of a journal of a former format, but those that are damaged."""
    names = Intent.__struct_fields__
    control = " + ".join(name for name in names if name != "digest")
    found = connection.execute(
        f"SELECT {', '.join(names)} FROM main.intents WHERE control = {control} ORDER BY attempt"
    )
    return [Intent(*row) for row in found]


def _queries(former: int) -> dict[str, str]:
    """Returns for each table of the current format the query that reads it from the former ones."""
    values = ", ".join(f"a.{name} AS {name}" for name in AttemptRow._fields[:UNSEALED])
    numbers = ", ".join(f"a.{name}" for name in NUMBERS)
    sampling = "sampling" if former > 1 else "NULL AS sampling"
    return {
        "attempts_by_digest": "SELECT digest, attempt FROM main.attempts",
        "unindexed": "SELECT 0 AS number, '' AS attempts, x'' AS digests, 0 AS crc32 WHERE false",
        "runs": (
            f"SELECT run, version, started_at, finished_at, sandbox, endpoint, fingerprint, job, {sampling},"
            " rows, exit_code, reason, control FROM main.runs"
        ),
        "attempts": (
            f"SELECT {values}, current_control({numbers}, a.control) AS control,"
            f" current_crc32({numbers}, r.crc32, r.body) AS response_crc32, r.body AS response"
            f" FROM main.attempts AS a LEFT JOIN main.responses AS r ON r.attempt = a.attempt"
        ),
        "overruns": (
            "SELECT attempt, input_bound, output_bound, control FROM main.overruns"
            if former == 3
            else "SELECT 0 AS attempt, 0 AS input_bound, 0 AS output_bound, 0 AS control WHERE false"
        ),
    }


def _add_functions(connection: sqlite3.Connection) -> None:
    """Adds functions that compute a record's current checksums; wrong ones where the former don't match."""

    def current_crc32(*values: Any) -> int:
        *numbers, crc, body = values
        if body is not None and (type(body) is not bytes or crc != _former_checksum(numbers, body)):
            return _UNKNOWN
        return _sealed(numbers, body).response_crc32

    def current_control(*values: Any) -> int:
        *numbers, control = values
        return _sealed(numbers, None).control if control == _former_control(numbers) else _UNKNOWN

    connection.create_function("current_control", len(NUMBERS) + 1, current_control, deterministic=True)
    connection.create_function("current_crc32", len(NUMBERS) + 2, current_crc32, deterministic=True)


def _sealed(numbers: Any, body: bytes | None) -> AttemptRow:
    return sealed((*numbers, *(None,) * (UNSEALED - len(NUMBERS))), body)


def _former_control(numbers: Any) -> int | None:
    known = dict(zip(NUMBERS, numbers, strict=True))
    nano_usd = -1 if known["nano_usd"] is None else known["nano_usd"]
    added = [known[name] for name in ("attempt", "run", "started_at", "final", "credits", "tokens")]
    # A damaged record may have a number of another type.
    return sum(added, nano_usd) if all(type(number) is int for number in (nano_usd, *added)) else None


def _former_checksum(numbers: Any, body: bytes) -> int:
    return zlib.crc32(_encode([numbers[place] for place in _CHECKED]), zlib.crc32(body))
