"""The attempts of a request, found by its digest.

Digests are random: indexed one by one, each attempt would change a page of its own. So each commit lists its
attempts in the table `unindexed`, and `attempts_by_digest` takes over many of them at a time, sorted. Every
attempt is in one of the two, or for a time in both, at whatever moment a process dies.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import msgspec

from batchrun.errors import JournalError
from batchrun.journal.attempt_rows import insert_attempts
from batchrun.journal.checksums import checksum
from batchrun.journal.connection import damaged, transaction
from batchrun.journal.records import AttemptRow

MOST_UNINDEXED = 100_000
"""A process that looks up digests holds the unindexed ones in memory: about 130 bytes each."""
ATTEMPTS_IN_A_PART = 500_000
"""Indexing is one part in a smaller journal, and one more for each such number: commits wait for a part."""
_DIGEST_BYTES = 16
_LOOKED_UP_AT_ONCE = 1_000
_LIST = "INSERT INTO unindexed (attempts, digests, crc32) VALUES (?, ?, ?)"
_TAKE_OVER = """
INSERT OR IGNORE INTO attempts_by_digest SELECT substr(digests, 1 + 16 * key, 16) AS digest, value
FROM unindexed, json_each(attempts) WHERE number <= ? AND digest >= ? AND digest < ? ORDER BY 1, 2
"""
_KEEP_NUMBER = """
INSERT INTO unindexed SELECT * FROM (SELECT ?, ?, ?, ?) WHERE NOT EXISTS (SELECT 1 FROM unindexed)
"""
_MOST_PARTS = 50
_encode = msgspec.json.Encoder().encode


class DigestIndex:
    """Finds attempts through one connection. It keeps the unindexed ones, and reads those that are new."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        # The unindexed attempts, from the records with these numbers. Once the first one is gone, it has been
        # indexed, and the attempts are read again.
        self._first: int | None = None
        self._last = 0
        self._count = 0
        self._attempt_of: dict[bytes, int] = {}
        self._further: dict[bytes, list[int]] = {}
        # The ranges of digests that are still to be indexed, of the records up to a number.
        self._parts: list[tuple[bytes, bytes]] = []
        self._up_to = 0

    def attempts(self, digests: Sequence[bytes]) -> list[int]:
        """Returns the attempts of some requests, at most 32,766. Raises JournalError for a damaged record.

        The unindexed ones are read first: what is indexed between the two looks is found twice, never missed.
        """
        self._read_new()
        query = f"SELECT attempt FROM attempts_by_digest WHERE digest IN ({_marks(digests)})"
        found = {attempt for (attempt,) in self._connection.execute(query, tuple(digests))}
        for digest in digests:
            if (attempt := self._attempt_of.get(digest)) is not None:
                found.update((attempt, *self._further.get(digest, ())))
        return sorted(found)

    def condition(self, digests: Sequence[bytes]) -> tuple[str, list[str]]:
        """Returns an SQL condition on attempts, and its values: those of some requests, at most 32,766."""
        return condition_of(self.attempts(digests))

    def repeated(self, most: int) -> frozenset[bytes] | None:
        """Returns the digests with several attempts; None if there are more than `most`."""
        self._read_new()
        query = "SELECT digest FROM attempts_by_digest GROUP BY digest HAVING count(*) > 1 LIMIT ?"
        found = {digest for (digest,) in self._connection.execute(query, (most + 1,))}
        found.update(self._further)
        unindexed = iter(self._attempt_of)
        while part := list(islice(unindexed, _LOOKED_UP_AT_ONCE)):
            query = f"SELECT digest, attempt FROM attempts_by_digest WHERE digest IN ({_marks(part)})"
            indexed = self._connection.execute(query, part)
            found.update(digest for digest, attempt in indexed if attempt != self._attempt_of[digest])
        return None if len(found) > most else frozenset(found)

    def unindexed(self) -> int:
        """Returns how many attempts are not indexed yet."""
        self._read_new()
        return self._count

    def index_part(self, at_least: int, attempts_in_a_part: int = ATTEMPTS_IN_A_PART) -> bool:
        """Indexes a part of the attempts once `at_least` are unindexed; returns whether there is more to do.

        Only the process that writes the journal may call it. A part has a range of the digests, and as large
        a share of them as changes about the same number of pages in a journal of any size. The attempts stay
        listed until the last part is indexed.
        """
        with transaction(self._connection):
            if not self._parts and not self._begin(at_least, attempts_in_a_part):
                return False
            self._connection.execute(_TAKE_OVER, (self._up_to, *self._parts[0]))
            if len(self._parts) == 1:
                self._connection.execute("DELETE FROM unindexed WHERE number <= ?", (self._up_to,))
                # An empty record keeps the numbers ascending, by which other processes know what is new.
                self._connection.execute(_KEEP_NUMBER, (self._up_to + 1, *_record((), ())))
        del self._parts[0]
        return bool(self._parts)

    def _begin(self, at_least: int, attempts_in_a_part: int) -> bool:
        """Decides what is indexed, and in which parts; returns whether it is enough."""
        if self.unindexed() < at_least:  # it raises at a damaged record, which must not get into the index
            return False
        (newest,) = self._connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()
        count = min(_MOST_PARTS, 1 + newest // attempts_in_a_part)
        inner = [(2**16 * part // count).to_bytes(2, "big") for part in range(1, count)]
        self._parts = list(pairwise([b"", *inner, b"\xff" * (_DIGEST_BYTES + 1)]))
        self._up_to = self._last
        return True

    def _read_new(self) -> None:
        (first,) = self._connection.execute("SELECT min(number) FROM unindexed").fetchone()
        if first != self._first:
            self._first, self._last, self._count = first, 0, 0
            self._attempt_of.clear()
            self._further.clear()
        for number, attempts, digests in unindexed_records(self._connection, self._path, self._last):
            for digest, attempt in zip(digests, attempts, strict=True):
                if self._attempt_of.setdefault(digest, attempt) != attempt:
                    self._further.setdefault(digest, []).append(attempt)
            self._count += len(attempts)
            self._last = number


def list_unindexed(connection: sqlite3.Connection, attempts: Iterable[AttemptRow]) -> None:
    """Lists attempts that the same transaction writes."""
    found = [(row.attempt, row.digest) for row in attempts]
    if found:
        connection.execute(_LIST, _record(*zip(*found, strict=True)))


def insert_indexed(connection: sqlite3.Connection, attempts: Sequence[AttemptRow]) -> None:
    """Writes a few attempts with their entries in the index."""
    insert_attempts(connection, attempts)
    connection.executemany(
        "INSERT INTO attempts_by_digest VALUES (?, ?)", [(row.digest, row.attempt) for row in attempts]
    )


def condition_of(attempts: Sequence[int]) -> tuple[str, list[str]]:
    """Returns a condition on attempts, and its values: those with these numbers, however many."""
    return "attempt IN (SELECT value FROM json_each(?))", [_encode(attempts).decode()]


def index_all(connection: sqlite3.Connection) -> None:
    """Indexes all attempts of a journal that has no index yet."""
    connection.execute(
        "INSERT INTO attempts_by_digest SELECT digest, attempt FROM attempts ORDER BY digest, attempt"
    )


def unindexed_records(
    connection: sqlite3.Connection, path: Path, after: int = 0
) -> Iterator[tuple[int, list[int], list[bytes]]]:
    """Yields the records of `unindexed` with a number above `after`: number, attempts, and their digests.

    Raises JournalError at a damaged one.
    """
    query = "SELECT number, attempts, digests, crc32 FROM unindexed WHERE number > ? ORDER BY number"
    for number, text, digests, crc in connection.execute(query, (after,)):
        if type(digests) is not bytes or checksum((text,), digests) != crc:
            raise damaged(path, f"record {number} of its unindexed attempts doesn't match its checksum")
        parts = [digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)]
        yield number, msgspec.json.decode(text, type=list[int]), parts


def check_index(connection: sqlite3.Connection, path: Path) -> None:
    """Raises JournalError unless each attempt is in the index or listed as unindexed, and nothing else is."""
    listed = {
        (digest, attempt)
        for _, attempts, digests in unindexed_records(connection, path)
        for digest, attempt in zip(digests, attempts, strict=True)
    }
    lacking = connection.execute(
        "SELECT digest, attempt FROM attempts AS a WHERE NOT EXISTS"
        " (SELECT 1 FROM attempts_by_digest AS i WHERE i.digest = a.digest AND i.attempt = a.attempt)"
    )
    missing = 0
    for pair in lacking:
        if pair not in listed:
            raise _mismatch(path)
        listed.discard(pair)
        missing += 1
    (indexed,) = connection.execute("SELECT count(*) FROM attempts_by_digest").fetchone()
    (written,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
    if indexed + missing != written:
        raise _mismatch(path)
    in_both = "SELECT 1 FROM attempts_by_digest WHERE digest = ? AND attempt = ?"
    if not all(connection.execute(in_both, pair).fetchone() for pair in listed):
        raise _mismatch(path)


def _mismatch(path: Path) -> JournalError:
    return damaged(path, "its index by digest doesn't match its attempts")


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _record(attempts: Sequence[int], digests: Sequence[bytes]) -> tuple[str, bytes, int | None]:
    text, joined = _encode(attempts).decode(), b"".join(digests)
    return text, joined, checksum((text,), joined)
