"""Which request is next: a retry that is due, what follows an answer, or the first of a new row."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from batchrun.books import Lease
from batchrun.labelling import Labelling, Reply
from batchrun.open_rows import Ended, Next, OpenRows, Row
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.stops import Stop

MOST_WAITING = 4_096
"""Rows that may wait for another attempt before no new row is begun."""


class RowWatch(Protocol):
    """Is told of rows that come to their end, here or with another row's answer that is in the journal.

    It may call `stop`, which the engine sets.
    """

    stop: Callable[[Stop], object]

    def ended(self, row: Ended) -> None: ...
    def answered_elsewhere(self, request: Request) -> None: ...


class RowQueue:
    """The rows of a run, from the source to their end. A request that waits for a retry holds no worker."""

    def __init__(self, labelling: Labelling | None, progress: Progress, watch: RowWatch | None) -> None:
        self._open = OpenRows(labelling)
        self._follows_up = labelling is not None and labelling.follows_up
        self._progress = progress
        self._watch = watch
        self._rows: deque[Row] = deque()
        self._following: deque[Request] = deque()
        self._waiting: list[tuple[float, int, Lease]] = []
        self._exhausted = False

    def feed(self, rows: Sequence[Row] | None) -> None:
        """Takes the next rows of the source; None says that there are no more."""
        self._exhausted = rows is None
        self._rows.extend(rows or ())

    @property
    def wants_rows(self) -> bool:
        return not self._exhausted and not self._rows and len(self._waiting) < MOST_WAITING

    @property
    def at_the_end(self) -> bool:
        """Whether there are no new rows."""
        return self._exhausted and not self._rows

    @property
    def finished(self) -> bool:
        return self.at_the_end and not self._open

    def next(self, now: float, *, new_rows_first: bool) -> Lease | None:
        """The next request to make, None where there is none yet.

        `new_rows_first` holds retries back as long as there are new rows.
        """
        may_begin = (bool(self._rows) or not self._exhausted) and len(self._waiting) < MOST_WAITING
        if self._waiting and self._waiting[0][0] <= now and not (new_rows_first and may_begin):
            return heapq.heappop(self._waiting)[2]
        while may_begin and self._rows and not self._following:
            self._begin(self._rows.popleft())
        return Lease(self._following.popleft()) if self._following else None

    def seconds_to_retry(self, now: float) -> float | None:
        return self._waiting[0][0] - now if self._waiting else None

    def retry(self, lease: Lease, due: float) -> None:
        heapq.heappush(self._waiting, (due, lease.attempt, lease))

    def gives_way(self, lease: Lease) -> bool:
        """Puts the first request of a row back where others wait that rows in progress need.

        A cap that has no room for a new row may have room for these.
        """
        if lease.number or lease.request.follows is not None:
            return False
        others = [request for request in self._following if request.row != lease.request.row]
        if not others:
            return False
        own = [request for request in self._following if request.row == lease.request.row]
        self._following = deque([*others, lease.request, *own])  # a row's first request goes first
        return True

    def close(self, lease: Lease) -> bool:
        """Begins no new row any more, and gives up the one that `lease` begins; rows in progress go on.

        False where it begins none, or no other row takes more requests.
        """
        if not self._follows_up or lease.request.follows is not None or len(self._open) == 1:
            return False
        self._open.drop(lease.request)
        self._following = deque(request for request in self._following if request.row != lease.request.row)
        self._rows.clear()
        self._exhausted = True
        return True

    def ended(self, request: Request, reply: Reply) -> None:
        """A request has come to its end."""
        self._go_on(self._open.take(request, reply))

    def drop(self, request: Request) -> None:
        """Gives a row up in this run."""
        self._open.drop(request)

    def answered_elsewhere(self, request: Request) -> None:
        """Another row with the same request had come to its end after this one was looked up."""
        if request in self._open:
            self._open.drop(request)
            self._progress.shared += 1
            if self._watch is not None:
                self._watch.answered_elsewhere(request)

    def _begin(self, row: Row) -> None:
        if row.request in self._open:
            self._progress.shared += 1
            return
        following = self._open.begin(row)
        if not isinstance(following, Ended):
            self._following.extend(following)
        elif self._watch is not None:
            self._watch.ended(following)

    def _go_on(self, following: Next) -> None:
        if not isinstance(following, Ended):
            self._following.extend(following)
            return
        self._progress.row_ended(failed=following.text is None, invalid=following.invalid)
        if self._watch is not None:
            self._watch.ended(following)
