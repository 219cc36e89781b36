"""Chooses the next request: a due retry, a follow-up to a response, or the first of a new row."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

from batchrun.client.request import Request
from batchrun.engine.accounting import ActiveRequest
from batchrun.engine.usefulness import Usefulness
from batchrun.exchange import Completion
from batchrun.rows.active import ActiveRows, Next, Row
from batchrun.rows.labelling import Labelling
from batchrun.rows.observer import Observer
from batchrun.rows.result import RowResult

MOST_WAITING = 4_096
"""Rows that may wait for another attempt; with more, no new row is begun."""


class Scheduler:
    """The rows of a run, from the source to their end; `observer` gets their events.

    A request that waits for a retry holds no sender. `may_begin` says whether a new row may begin; one may
    always be in progress.
    """

    def __init__(
        self,
        labelling: Labelling,
        observer: Observer,
        usefulness: Usefulness,
        may_begin: Callable[[Row], bool] | None = None,
    ) -> None:
        self._may_begin = may_begin
        self._open = ActiveRows(labelling)
        self._follows_up = labelling.follows_up
        self._votes = labelling.votes
        self._observer = observer
        self._usefulness = usefulness
        self._rows: deque[Row] = deque()
        self._following: deque[ActiveRequest] = deque()
        self._waiting: list[tuple[float, int, ActiveRequest]] = []
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
        """Returns whether no new rows are left."""
        return self._exhausted and not self._rows

    @property
    def rows_left(self) -> float:
        """Returns the rows that have not ended; infinite while new rows may come."""
        return len(self._open) if self.at_the_end else math.inf

    @property
    def finished(self) -> bool:
        return self.at_the_end and not self._open

    def next(self, now: float, *, new_rows_first: Callable[[], bool]) -> ActiveRequest | None:
        """Returns the next request to prepare, None if there is none yet.

        `new_rows_first` says whether a due retry waits as long as there are new rows.
        """
        if self._waiting and self._waiting[0][0] <= now and not (self._next_may_begin and new_rows_first()):
            return heapq.heappop(self._waiting)[2]
        while self._rows and not self._following and self._next_may_begin:
            self._begin(self._rows.popleft())
        return self._following.popleft() if self._following else None

    @property
    def _next_may_begin(self) -> bool:
        """Returns whether the next new row may begin, also if it has yet to come from the source."""
        if self.at_the_end or len(self._waiting) >= MOST_WAITING:
            return False
        if self._may_begin is None or not self._rows or not self._open:
            return True
        return self._may_begin(self._rows[0])

    def seconds_to_retry(self, now: float) -> float:
        """Returns the seconds until the first retry is due; infinite if none waits."""
        return self._waiting[0][0] - now if self._waiting else math.inf

    def retry(self, active: ActiveRequest, due: float) -> None:
        heapq.heappush(self._waiting, (due, active.attempt, active))

    def yield_to_follow_ups(self, active: ActiveRequest) -> bool:
        """Puts the request that begins a row back if requests of rows in progress wait.

        A cap that has no room for a new row may have room for these.
        """
        if active.number or not active.begins:
            return False
        # A row's first request goes first. Of rows that begin there may be several: they were put aside.
        beginning = {each.request.row for each in (active, *self._following) if each.begins}
        others = [each for each in self._following if each.request.row not in beginning]
        if not others:
            return False
        own = [each for each in self._following if each.request.row in beginning]
        self._following = deque([*others, active, *own])
        return True

    def close(self, active: ActiveRequest, *, retries_fit: bool = False) -> bool:
        """Begins no more rows, and drops the row that `active` begins; rows in progress continue.

        Returns False if `active` begins none, or no other row takes more requests; if `retries_fit`, a retry
        is such a request too.
        """
        if not (self._follows_up or retries_fit) or not active.begins or len(self._open) == 1:
            return False
        self._open.drop(active.request)
        row = active.request.row
        self._following = deque(each for each in self._following if each.request.row != row)
        self._rows.clear()
        self._exhausted = True
        return True

    def ended(self, request: Request, completion: Completion) -> None:
        """Takes a request's end, and what follows it for its row."""
        self._go_on(request, self._open.take(request, completion))

    def row_index(self, request: Request) -> int | None:
        """Returns the index of a request's row in the input; None if the row was dropped."""
        return self._open.index(request)

    def drop(self, request: Request) -> None:
        """Drops a row in this run."""
        self._open.drop(request)

    def deduplicated(self, request: Request) -> None:
        """Ends a row whose request was completed for another row after this one was looked up."""
        if request in self._open:
            self._open.drop(request)
            self._observer.row_shared(request, ended=True)

    def _begin(self, row: Row) -> None:
        following = self._open.begin(row)
        if following is None:
            self._observer.row_shared(row.request, ended=False)
        elif isinstance(following, RowResult):
            self._observer.row_known(row.request, following)
        else:
            for place, request in enumerate(following):
                self._following.append(ActiveRequest(request, place == 0, self._votes > 1))

    def _go_on(self, request: Request, following: Next) -> None:
        if isinstance(following, RowResult):
            self._usefulness.row_ended(following)
            self._observer.row_ended(request, following)
        else:
            self._following.extend(ActiveRequest(each, begins=False) for each in following)
