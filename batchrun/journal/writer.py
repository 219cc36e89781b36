"""The one thread that writes attempts: group commits, each with one fsync."""

import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable

from msgspec.structs import astuple

from batchrun.errors import StorageError
from batchrun.journal.connection import transaction, translate
from batchrun.journal.records import Attempt, Intent
from batchrun.journal.storage import Journal, checksum

_INSERT_INTENT = """
INSERT INTO intents SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?1 + ?2 + ?4 + ?5 + ?6 + ?7 + ?8
WHERE NOT EXISTS (
    SELECT 1 FROM attempts WHERE digest = ?3 AND (outcome = 'answered' OR (final AND run = ?2)))
"""
_INSERT_ATTEMPT = """
INSERT INTO attempts SELECT attempt, run, digest, number, started_at,
    ?4, ?2, ?3, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
    attempt + run + started_at + ?3 + ifnull(?5, -1) + ?6 + ?7
FROM intents WHERE attempt = ?1
"""
_INSERT_OVERRUN = "INSERT INTO overruns VALUES (?1, ?2, ?3, ?1 + ?2 + ?3)"
_NOTE_ROWS = "UPDATE runs SET rows = ? WHERE run = ?"
_DELETE_INTENT = "DELETE FROM intents WHERE attempt = ?"
_INSERT_RESPONSE = "INSERT INTO responses VALUES (?, ?, ?)"

_MOST_IN_A_COMMIT = 5_000
_SECONDS_BETWEEN_COMMITS = 0.02
"""At least, from begin to begin: an fsync costs as much for one record as for all that come meanwhile."""


class _Withdrawal(int):
    """The number of an attempt whose request was never sent."""


class _Close:
    pass


_Record = Intent | Attempt | _Withdrawal | _Close


class JournalWriter:
    """Takes records from the event loop without waiting, and commits them in the order they came.

    `committed(intents, refused)` is called in this thread after every commit: how many of the
    intents handed in have become durable by now (in their order), and the numbers of those
    among them that were not needed, since the same request had been answered in the meantime.
    `failed(error)` is called once, in this thread, when a commit fails; nothing is written after it.
    `make_room()` frees space for a second try where the disk is full, and says whether it has; when that
    try succeeds, `nearly_full(error)` is called: there is room for what is in flight, and no more.
    `row_counts()` is called in this thread with every commit: the counts of rows so far, as JSON, and the run
    to write them down for; None where that can wait.
    """

    def __init__(
        self,
        journal: Journal,
        committed: Callable[[int, frozenset[int]], object],
        failed: Callable[[Exception], object],
        make_room: Callable[[], bool],
        nearly_full: Callable[[StorageError], object],
        row_counts: Callable[[], tuple[str, int] | None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._committed = committed
        self._failed = failed
        self._make_room = make_room
        self._nearly_full = nearly_full
        self._row_counts = row_counts
        self._queue: queue.SimpleQueue[_Record] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._last_commit = -math.inf
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def intend(self, intent: Intent) -> None:
        """Writes an intent down. The request may go out once `committed` has counted it."""
        self._queue.put(intent)

    def record(self, attempt: Attempt) -> None:
        """Writes down how an intent ended. What is handed in later is never durable before this."""
        self._queue.put(attempt)

    def withdraw(self, attempt: int) -> None:
        """Takes back an intent whose request was not sent and will not be."""
        self._queue.put(_Withdrawal(attempt))

    def close(self) -> None:
        """Waits until everything handed in is durable. Raises the error that stopped the thread, if any."""
        self._queue.put(_Close())
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            batch = self._next_batch()
            open_for_more = not isinstance(batch[-1], _Close)
            if self._error is not None:
                continue
            try:
                refused = self._commit_making_room(batch)
            except Exception as error:  # whatever it is, a run that waits for a dead thread never ends
                self._error = self._translated(error)
                self._failed(self._error)
            else:
                intents = sum(type(record) is Intent for record in batch)
                if intents:
                    self._committed(intents, refused)

    def _translated(self, error: Exception) -> Exception:
        return translate(self._journal.path, error) if isinstance(error, sqlite3.Error) else error

    def _commit_making_room(self, batch: list[_Record]) -> frozenset[int]:
        try:
            return self._commit(batch)
        except sqlite3.Error as error:
            translated = translate(self._journal.path, error)
            if not isinstance(translated, StorageError) or not self._make_room():
                raise
        refused = self._commit(batch)
        self._nearly_full(translated)
        return refused

    def _next_batch(self) -> list[_Record]:
        batch = [self._queue.get()]
        time.sleep(max(0.0, self._last_commit + _SECONDS_BETWEEN_COMMITS - time.monotonic()))
        self._last_commit = time.monotonic()
        while len(batch) < _MOST_IN_A_COMMIT and not isinstance(batch[-1], _Close):
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[_Record]) -> frozenset[int]:
        """One transaction. Ends go before intents, so that an intent sees the answers that came before it."""
        intents = [record for record in batch if type(record) is Intent]
        ends = [record for record in batch if type(record) is Attempt]
        withdrawn = [(int(record),) for record in batch if type(record) is _Withdrawal]
        answers = [
            (end.attempt, _checksum(end.response, end), end.response)
            for end in ends
            if end.response is not None
        ]
        overruns = [(end.attempt, *end.passed_bounds) for end in ends if end.passed_bounds is not None]
        connection = self._journal.connection
        with transaction(connection):
            connection.executemany(_INSERT_ATTEMPT, (_values(end) for end in ends))
            connection.executemany(_INSERT_RESPONSE, answers)
            connection.executemany(_INSERT_OVERRUN, overruns)
            connection.executemany(_DELETE_INTENT, ((end.attempt,) for end in ends))
            new = map(astuple, intents)
            inserted = connection.executemany(_INSERT_INTENT, new).rowcount if intents else 0
            refused = frozenset() if inserted == len(intents) else self._not_needed(intents)
            connection.executemany(_DELETE_INTENT, withdrawn)
            if (row_counts := self._row_counts()) is not None:
                connection.execute(_NOTE_ROWS, row_counts)
        return refused

    def _not_needed(self, intents: list[Intent]) -> frozenset[int]:
        """The intents that were not inserted."""
        first = intents[0].attempt
        inserted = self._journal.connection.execute(
            "SELECT attempt FROM intents WHERE attempt >= ?", (first,)
        )
        return frozenset(intent.attempt for intent in intents) - {row[0] for row in inserted}


def _values(end: Attempt) -> tuple[int | float | str | None, ...]:
    """The attempt's own. Of plain types, since any other costs a look through SQLite's adapters."""
    attempt, outcome, final, *others, _response, _passed_bounds = astuple(end)
    return (attempt, outcome.value, int(final), *others)


def _checksum(body: bytes, end: Attempt) -> int:
    return checksum(
        body,
        end.attempt,
        end.finished_at,
        end.input_tokens,
        end.output_tokens,
        end.remaining_credits,
        end.latency_ms,
        end.first_token_ms,
    )
