"""Counts the occurrences of requests, in memory that doesn't grow with the input."""

from collections.abc import Mapping, Sequence
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


class SeenRequests:
    """Tells the first row of each request from later ones, in a bit for each attempt.

    A row is known by the first attempt of its requests, which is no other row's. Only those without any
    attempt are counted by their digests.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._attempts = bytearray()
        self._unsent: OccurrenceCounter | None = None

    def add(self, first_attempts: Mapping[bytes, int]) -> set[bytes]:
        """Adds digests, each with its first attempt (0: none). Returns the digests that were new."""
        bits, new = self._attempts, set()
        highest = max(first_attempts.values(), default=0) >> 3
        if highest >= len(bits):
            bits.extend(bytes(highest + 1 - len(bits)))
        for digest, attempt in first_attempts.items():
            bit = 1 << (attempt & 7)
            if attempt and not bits[attempt >> 3] & bit:
                bits[attempt >> 3] |= bit
                new.add(digest)
        return new | self._new_unsent([digest for digest, attempt in first_attempts.items() if not attempt])

    def _new_unsent(self, digests: list[bytes]) -> set[bytes]:
        if not digests:
            return set()
        if self._unsent is None:
            self._unsent = OccurrenceCounter(self._folder)
        return self._unsent.add(digests)


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
