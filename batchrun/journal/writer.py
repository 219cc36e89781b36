"""The single thread that writes attempts, in group commits with one fsync each."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from batchrun.errors import MovedError, StorageError
from batchrun.journal.adjustments import Adjustment
from batchrun.journal.commits import Close, Commits, Record, Wake, Withdrawal
from batchrun.journal.connection import no_longer_written
from batchrun.journal.digest_index import MOST_UNINDEXED
from batchrun.journal.journal import Journal
from batchrun.journal.records import Attempt, Intent
from batchrun.journal.samples import Sample

_MOST_IN_A_COMMIT = 5_000
_SECONDS_BETWEEN_COMMITS = 0.02
"""The least time from commit to commit: an fsync costs as much for one record as for many."""


class CommitsSomewhere(Protocol):
    """`Commits`, in this process or in another one. All raise JournalError and StorageError.

    `process` is the id of the other one.
    """

    process: int | None

    def write(self, batch: Sequence[Record], row_counts: tuple[str, int] | None) -> frozenset[int]: ...
    def index_digests(self, at_least: int = ...) -> bool: ...
    def give_up(self) -> None: ...
    def close(self) -> None: ...


OpenCommits = Callable[[Journal, Callable[[], object]], CommitsSomewhere]
"""Opens the commits of a journal. They call the function, in any thread, once they can't be written."""


def commits_here(journal: Journal, _lost: Callable[[], object]) -> Commits:
    """Opens commits in this process, on the journal's own connection."""
    return Commits(journal.connection, journal.path)


class JournalWriter:
    """Takes records from the event loop without waiting, and commits them in order of arrival.

    `committed(intents, refused)` is called in this thread after every commit: how many of the queued intents
    are durable by now (in order), and the numbers of unneeded ones among them, whose request got a response
    in the meantime. `failed(error)` is called once, in this thread, when a commit fails; nothing is written
    after it. `make_room()` frees space for a second try where the disk is full, and returns whether it did;
    when that try succeeds, `nearly_full(error)` is called: there is room for the requests in flight, and no
    more. `moved(error)` is called after the first commit that finds another file or none at the journal's
    path. `row_counts()` is called in this thread with every commit: it returns the row counts so far, as
    JSON, with their run; None where that can wait. `open_commits` says where the thread writes.
    """

    def __init__(
        self,
        journal: Journal,
        committed: Callable[[int, frozenset[int]], object],
        failed: Callable[[Exception], object],
        make_room: Callable[[], bool],
        nearly_full: Callable[[StorageError], object],
        row_counts: Callable[[], tuple[str, int] | None] = lambda: None,
        moved: Callable[[MovedError], object] = lambda _: None,
        open_commits: OpenCommits = commits_here,
    ) -> None:
        self._journal = journal
        self._committed = committed
        self._failed = failed
        self._make_room = make_room
        self._nearly_full = nearly_full
        self._row_counts = row_counts
        self._moved = moved
        self._has_moved = False
        self._queue: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._last_commit = -math.inf
        self._may_index = True
        self._commits = open_commits(journal, lambda: self._queue.put(Wake()))
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def write_intent(self, intent: Intent) -> None:
        """Queues an intent. Its request may be sent once `committed` has counted it."""
        self._queue.put(intent)

    def record(self, attempt: Attempt) -> None:
        """Queues how an intent ended. Later records are never durable before it."""
        self._queue.put(attempt)

    def cancel_intent(self, attempt: int) -> None:
        """Takes back an intent whose request was not sent and will not be."""
        self._queue.put(Withdrawal(attempt))

    def note(self, note: Adjustment | Sample) -> None:
        """Queues a record on which no amount rests."""
        self._queue.put(note)

    def give_up(self) -> None:
        """Waits no longer for a process that writes. What it has not written is lost to the journal."""
        self._commits.give_up()

    def close(self) -> None:
        """Waits until every queued record is durable. Raises the error that stopped the thread, if any."""
        self._queue.put(Close())
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._write_all()
        except BaseException as error:  # any kind: a run that waits for a dead thread never ends
            self._error = no_longer_written(self._journal.path, error)
            self._failed(self._error)
        finally:
            self._commits.close()

    def _write_all(self) -> None:
        open_for_more = True
        while open_for_more:
            batch = self._next_batch()
            open_for_more = not isinstance(batch[-1], Close)
            if self._error is not None:
                continue
            try:
                refused = self._commit_making_room(batch)
            except Exception as error:
                self._error = error
                self._failed(self._error)
            else:
                self._look_at_place()
                intents = sum(type(record) is Intent for record in batch)
                if intents:
                    self._committed(intents, refused)
                self._index(open_for_more)

    def _index(self, open_for_more: bool) -> None:
        """Indexes a part of the digests between two commits, and all at the end.

        A run can do without: on a full disk the room is for the requests in flight.
        """
        try:
            if self._may_index and open_for_more:
                self._commits.index_digests(MOST_UNINDEXED)
            while self._may_index and not open_for_more and self._commits.index_digests():
                pass
        except StorageError:
            self._may_index = False

    def _look_at_place(self) -> None:
        """Checks the journal's place before `committed` releases the intents of this commit."""
        try:
            if not self._has_moved:
                self._journal.check_place()
        except MovedError as error:
            self._has_moved = True
            self._moved(error)

    def _commit_making_room(self, batch: list[Record]) -> frozenset[int]:
        try:
            return self._commit(batch)
        except StorageError as error:
            if not self._make_room():
                raise
            full = error
        self._may_index = False
        refused = self._commit(batch)
        self._nearly_full(full)
        return refused

    def _next_batch(self) -> list[Record]:
        batch = [self._queue.get()]
        time.sleep(max(0.0, self._last_commit + _SECONDS_BETWEEN_COMMITS - time.monotonic()))
        self._last_commit = time.monotonic()
        while len(batch) < _MOST_IN_A_COMMIT and not isinstance(batch[-1], Close):
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[Record]) -> frozenset[int]:
        return self._commits.write(batch, self._row_counts())
