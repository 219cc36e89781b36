"""Keeps what was set while a run was going on: by whom, when, and whether the run took it."""

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from batchrun.journal.connection import damaged, translated_errors
from batchrun.journal.schema import ADJUSTMENTS

if TYPE_CHECKING:
    from batchrun.journal.journal import Journal


class Adjustment(NamedTuple):
    """New caps and limits for a run. `at` is milliseconds since 1970 UTC; `settings` are JSON."""

    id: str
    run: int
    at: int
    author: str
    settings: str
    refused: str | None = None


def insert_adjustments(connection: sqlite3.Connection, adjustments: Iterable[Adjustment]) -> None:
    """Adds records inside the caller's transaction."""
    connection.execute(ADJUSTMENTS)
    connection.executemany("INSERT OR IGNORE INTO adjustments VALUES (?, ?, ?, ?, ?, ?)", adjustments)


def adjustments_of(journal: "Journal") -> list[Adjustment]:
    """Returns all adjustments in the order in which they were made. Raises JournalError."""
    with translated_errors(journal.path):
        found = read_adjustments(journal.connection)
    if not all(map(is_whole, found)):
        raise damaged(journal.path, "a record of adjustments is not as it was written")
    return found


def read_adjustments(connection: sqlite3.Connection) -> list[Adjustment]:
    if not _has_table(connection):
        return []
    records = connection.execute("SELECT * FROM adjustments ORDER BY run, at, rowid")
    return [Adjustment(*record) for record in records]


def is_whole(adjustment: Adjustment) -> bool:
    """Returns whether a record that was read can be as it was written."""
    try:
        msgspec.json.decode(adjustment.settings, type=dict[str, tuple[str | None, str | None]])
    except (ValueError, TypeError):
        return False
    return isinstance(adjustment.at, int)


def _has_table(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'adjustments'").fetchone()
    return found is not None
