"""Keeps what a run knows of itself from time to time, for its charts: a bounded number of records.

Attempts say when they began and ended; what was reserved, on the wire and allowed meanwhile, samples say.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from batchrun.journal.connection import translated_errors
from batchrun.journal.journal import Journal
from batchrun.journal.schema import SAMPLES

RUNS_KEPT = 20
"""Samples of older runs are deleted."""


class Sample(NamedTuple):
    """`second` counts from the run's start, and is a multiple of `stride`. `nano_usd` is what
    counts against budget.usd: settled, uncertain and reserved over the journal's life.

    `requests_per_minute` is the limit, None without one; `held_by` says what holds the next request back.
    """

    run: int
    second: int
    stride: int
    in_flight: int
    nano_usd: int
    requests_per_minute: float | None
    held_by: str | None


def insert_samples(connection: sqlite3.Connection, samples: Iterable[Sample]) -> None:
    """Adds samples inside the caller's transaction, and deletes those between the new one's strides."""
    connection.execute(SAMPLES)
    for sample in samples:
        connection.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", sample)
        connection.execute(
            "DELETE FROM samples WHERE run = ? AND second % ? <> 0", (sample.run, sample.stride)
        )
        connection.execute("DELETE FROM samples WHERE run <= ?", (sample.run - RUNS_KEPT,))


def samples_of(journal: Journal, run: int) -> list[Sample]:
    """Returns the samples of a run in their order; none of a journal without them. Raises JournalError."""
    with translated_errors(journal.path):
        has_table = "SELECT 1 FROM sqlite_schema WHERE name = 'samples'"
        if journal.connection.execute(has_table).fetchone() is None:
            return []
        found = journal.connection.execute("SELECT * FROM samples WHERE run = ? ORDER BY second", (run,))
        return [Sample(*record) for record in found]
