"""Which occurrence of its request a row is, without a memory that grows with the input."""

import sqlite3
from collections.abc import Sequence


class OccurrenceCounter:
    """Counts how often each digest has come up, in a temporary database that leaves memory for disk."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute(
            "CREATE TABLE seen (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._connection.execute("BEGIN")

    def add(self, digests: Sequence[bytes]) -> set[bytes]:
        """Takes several at once, each of them once; returns those that had not been taken before."""
        if not digests:
            return set()
        marks = ",".join(["(?, 1)"] * len(digests))
        new = self._connection.execute(
            f"INSERT INTO seen VALUES {marks} ON CONFLICT DO NOTHING RETURNING digest", digests
        )
        return {digest for (digest,) in new}

    def count(self, digest: bytes) -> int:
        """How many times this digest has been counted, this time included."""
        (n,) = self._connection.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n", (digest,)
        ).fetchone()
        return int(n)
