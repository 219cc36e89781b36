"""Counts the occurrences of requests, in memory that doesn't grow with the input."""

from collections.abc import Sequence
from pathlib import Path

from batchrun.client.builder import InvalidRow
from batchrun.client.request import Request, nth_occurrence
from batchrun.rows.scratch import storing_in, temporary_database


class OccurrenceCounter:
    """Counts how often each digest has occurred, in a temporary database that spills to disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = temporary_database(folder)
        with storing_in(folder):
            self._connection.execute(
                "CREATE TABLE seen (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._connection.execute("BEGIN")

    def add(self, digests: Sequence[bytes]) -> set[bytes]:
        """Adds distinct digests; returns the digests that were new."""
        if not digests:
            return set()
        marks = ",".join(["(?, 1)"] * len(digests))
        with storing_in(self._folder):
            new = self._connection.execute(
                f"INSERT INTO seen VALUES {marks} ON CONFLICT DO NOTHING RETURNING digest", digests
            )
            return {digest for (digest,) in new}

    def count(self, digest: bytes) -> int:
        """Returns how many times this digest has been counted, this time included."""
        with storing_in(self._folder):
            (n,) = self._connection.execute(
                "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n", (digest,)
            ).fetchone()
        return int(n)


class Occurrences:
    """Makes each occurrence of a request distinct if rows with the same request are sent separately."""

    def __init__(self, separately: bool, folder: Path) -> None:
        self._counter = OccurrenceCounter(folder) if separately else None

    def separated(self, requests: list[Request | InvalidRow]) -> list[Request | InvalidRow]:
        """Returns `requests`, which follow those of the last call."""
        counter = self._counter
        if counter is None:
            return requests
        return [
            nth_occurrence(request, counter.count(request.digest))
            if isinstance(request, Request)
            else request
            for request in requests
        ]
