"""Reads and changes records of the table `attempts`, with their checksums."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from batchrun.journal.checksums import NUMBERS, UNSEALED, check_numbers, is_whole, sealed
from batchrun.journal.connection import damaged
from batchrun.journal.records import AttemptRow, Intent, Outcome

COLUMNS = ", ".join(AttemptRow._fields)
_VALUES = f"({', '.join('?' * len(AttemptRow._fields))})"
_INSERT = f"INSERT INTO attempts ({COLUMNS}) VALUES {_VALUES}"
_INSERT_TEN = f"{_INSERT}{f', {_VALUES}' * 9}"
_REPLACE = _INSERT.replace("INSERT", "REPLACE", 1)
_NUMBERS = ", ".join(AttemptRow._fields[:-1])
FAILURES = f"outcome <> '{Outcome.ANSWERED}'"


def read_attempts(
    connection: sqlite3.Connection, path: Path, where: str = "true", values: Sequence[Any] = ()
) -> Iterator[AttemptRow]:
    """Yields the records for which the condition `where` holds. Raises JournalError at a damaged one."""
    for values_read in connection.execute(f"SELECT {COLUMNS} FROM attempts WHERE {where}", values):
        row = AttemptRow._make(values_read)
        if not is_whole(row):
            raise damaged(path, f"attempt {row.attempt} or its answer doesn't match its checksum")
        yield row


def read_numbers(connection: sqlite3.Connection, path: Path) -> Iterator[AttemptRow]:
    """Yields all records without their responses. Raises JournalError where a number is damaged."""
    for values in connection.execute(f"SELECT {_NUMBERS}, NULL FROM attempts"):
        row = AttemptRow._make(values)
        check_numbers(path, row[: len(NUMBERS)], row.control)
        yield row


def first_started_since(connection: sqlite3.Connection, instant: int) -> int:
    """Returns a lower bound of the attempts that were sent since an instant, by bisection.

    They are numbered in the order of sending; clocks that were set back make the bound lower or higher.
    """
    (newest,) = connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()
    low, high = 0, newest + 1
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(
            "SELECT started_at FROM attempts WHERE attempt >= ? ORDER BY attempt LIMIT 1", (middle,)
        ).fetchone()
        if found is None or found[0] >= instant:
            high = middle
        else:
            low = middle + 1
    return low


def abandoned(intent: Intent, finished_at: int, *, final: bool) -> AttemptRow:
    """Returns the record of an intent whose run ended before its outcome was known: its worst case counts."""
    return sealed(
        (
            intent.attempt, intent.run, intent.digest, intent.number, intent.started_at, finished_at,
            str(Outcome.UNCERTAIN), int(final), intent.nano_usd, intent.credits, intent.tokens, None, None,
            None, None, None, None, "in_doubt", "The run ended before this request was answered.",
        ),
        None,
    )  # fmt: skip


def reopened(row: AttemptRow) -> AttemptRow:
    """Returns the record with a failure that is no longer final."""
    return _sealed_again(row._replace(final=0))


def rebooked(row: AttemptRow, nano_usd: int, note: str) -> AttemptRow:
    """Returns the record with another amount booked, and a note of it in its error."""
    error = f"{row.error or ''} {note} It was {row.nano_usd or 0} nano-USD."
    return _sealed_again(row._replace(nano_usd=nano_usd, error=error))


def _sealed_again(row: AttemptRow) -> AttemptRow:
    return sealed(row[:UNSEALED], row.response)


def insert_attempts(connection: sqlite3.Connection, rows: Iterable[AttemptRow]) -> None:
    """Inserts records, ten in a statement: sqlite3 hands the interpreter's lock over at each statement."""
    waiting = iter(rows)
    while len(part := list(islice(waiting, 10))) == 10:
        connection.execute(_INSERT_TEN, tuple(chain.from_iterable(part)))
    # Plain tuples: sqlite3 binds the values of any other sequence one call at a time.
    connection.executemany(_INSERT, map(tuple, part))


def replace_attempts(connection: sqlite3.Connection, rows: Iterable[AttemptRow]) -> None:
    connection.executemany(_REPLACE, rows)
