"""The one thread that writes attempts: group commits, each with one fsync."""

import queue
import sqlite3
import threading
from collections.abc import Callable

from batchrun.errors import JournalError, StorageError
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
_DELETE_INTENT = "DELETE FROM intents WHERE attempt = ?"
_INSERT_RESPONSE = "INSERT INTO responses VALUES (?, ?, ?)"

_MOST_IN_A_COMMIT = 5_000


class _Withdrawal(int):
    """The number of an attempt whose request was never sent."""


class _Close:
    pass


class JournalWriter:
    """Takes records from the event loop without waiting, and commits them in the order they came.

    `committed(intents, refused)` is called in this thread after every commit: how many of the
    intents handed in have become durable by now (in their order), and the numbers of those
    among them that were not needed, since the same request had been answered in the meantime.
    `failed(error)` is called once, in this thread, when a commit fails; nothing is written after it.
    """

    def __init__(
        self,
        journal: Journal,
        committed: Callable[[int, frozenset[int]], object],
        failed: Callable[[JournalError | StorageError], object],
    ) -> None:
        self._journal = journal
        self._committed = committed
        self._failed = failed
        self._queue: queue.SimpleQueue[Intent | Attempt | _Withdrawal | _Close] = queue.SimpleQueue()
        self._error: JournalError | StorageError | None = None
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
                refused = self._commit(batch)
            except sqlite3.Error as error:
                self._error = translate(self._journal.path, error)
                self._failed(self._error)
            else:
                intents = sum(type(record) is Intent for record in batch)
                if intents:
                    self._committed(intents, refused)

    def _next_batch(self) -> list[Intent | Attempt | _Withdrawal | _Close]:
        batch = [self._queue.get()]
        while len(batch) < _MOST_IN_A_COMMIT and not isinstance(batch[-1], _Close):
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[Intent | Attempt | _Withdrawal | _Close]) -> frozenset[int]:
        """One transaction. Ends go before intents, so that an intent sees the answers that came before it."""
        intents = [record for record in batch if type(record) is Intent]
        ends = [record for record in batch if type(record) is Attempt]
        withdrawn = [(int(record),) for record in batch if type(record) is _Withdrawal]
        answers = [
            (end.attempt, checksum(end.attempt, end.response), end.response)
            for end in ends
            if end.response is not None
        ]
        connection = self._journal.connection
        with transaction(connection):
            connection.executemany(_INSERT_ATTEMPT, (end[:-1] for end in ends))
            connection.executemany(_INSERT_RESPONSE, answers)
            connection.executemany(_DELETE_INTENT, ((end.attempt,) for end in ends))
            inserted = connection.executemany(_INSERT_INTENT, intents).rowcount if intents else 0
            refused = frozenset() if inserted == len(intents) else self._not_needed(intents)
            connection.executemany(_DELETE_INTENT, withdrawn)
        return refused

    def _not_needed(self, intents: list[Intent]) -> frozenset[int]:
        """The intents that were not inserted."""
        first = intents[0].attempt
        inserted = self._journal.connection.execute(
            "SELECT attempt FROM intents WHERE attempt >= ?", (first,)
        )
        return frozenset(intent.attempt for intent in intents) - {row[0] for row in inserted}
