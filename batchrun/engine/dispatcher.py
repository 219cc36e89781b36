"""Decides which request is prepared, sent, retried or dropped. Awaits nothing and reads no clock.

Each method takes an event and does the bookkeeping; `committed`, `completed` and `release` return the
requests to send now. The caller does the I/O: `engine/local` with tasks of this process.

`now` is in seconds of one monotonic clock.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from batchrun.client.retry import RetryPolicy, fate_unknown
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.failures import FailureJudge
from batchrun.engine.forerunners import Forerunners
from batchrun.engine.ledger import Shortfall
from batchrun.engine.limits.admission import AdmissionControl
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.send_order import Admission
from batchrun.engine.prefetch import PrefetchLimit
from batchrun.engine.scheduler import Scheduler
from batchrun.engine.usefulness import Usefulness
from batchrun.engine.waiting import WaitingReports
from batchrun.exchange import BillingStatus, Completion, Failure, FailureAction, Response
from batchrun.rows.active import Row
from batchrun.rows.labelling import PLAIN, Labelling
from batchrun.rows.observer import AttemptFailed, Observer
from batchrun.stops import Stop, at_cap_of, by_endpoint

ROWS: Final = "rows"
"""The next rows of the source are needed."""
END: Final = "end"
"""Nothing is left to do: every row has ended, or the run was stopped and has drained."""

Need = float | Literal["rows", "end"]
"""The condition for further progress. A number: the seconds after which `advance` has to be called again
unless another method is called first; infinite if only another method's call helps."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`leave_in_doubt`: a row whose request may have been billed is not sent again.

    `outage_seconds`: an endpoint that fails everything for longer ends the run. `labelling` says which
    requests follow a row's first one. `useless_rows`: this many consecutive rows without a usable response
    end the run; 0: any number. `address` is the endpoint's, as named in a reason to stop.
    """

    concurrency: int
    retry: RetryPolicy
    leave_in_doubt: bool = False
    outage_seconds: float = 900.0
    labelling: Labelling = PLAIN
    useless_rows: int = 0
    address: str = "the endpoint"


class ReleasedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request to send, with its records in the accounting and the limiter."""

    active: ActiveRequest
    admission: Admission


class Dispatcher:
    """One run's requests, from the rows of the source to the rows' ends.

    `observer` gets their events. `enough` is called when rows have ended: the stop that it returns ends the
    run. `may_begin` says whether a new row may begin yet, besides the first one.
    """

    def __init__(
        self,
        rules: Rules,
        accounting: Accounting,
        limiter: Limiter,
        observer: Observer,
        enough: Callable[[], Stop | None] | None = None,
        may_begin: Callable[[Row], bool] | None = None,
    ) -> None:
        self._rules = rules
        self._accounting = accounting
        retry = rules.retry
        self._control = AdmissionControl(limiter, rules.outage_seconds, may_repeat=retry.max_attempts > 1)
        self._failures = FailureJudge(retry, self._control, leave_in_doubt=rules.leave_in_doubt)
        self._usefulness = Usefulness(rules.useless_rows)
        self._observer = observer
        self._scheduler = Scheduler(rules.labelling, observer, self._usefulness, may_begin)
        self._enough = enough
        self._forerunners = Forerunners()
        self._reports = WaitingReports(observer, self._failures, rules.outage_seconds)

        # A request that has left the scheduler is in exactly one of these five states, and passes through
        # them in this order. From the second to the last the ledger holds a reservation for it, and the
        # journal an open intent.
        #
        # 1. Next: there is no room yet, among the prepared requests or under a cap. Or deferred, until
        #    the response to another with the same marked beginning begins.
        # 2. Uncommitted: the journal's writer has its intent. It must not be sent before this is durable, and
        #    is not cancelled either: `committed` counts intents in their order, cancelled or not. The number
        #    is the count of requests sent by then.
        # 3. Durable: it waits for the limiter, the circuit breaker and a free sender. A stop cancels it.
        # 4. Released: limiter and breaker have counted it, and the caller has it, but no byte has been sent.
        #    A stop does not cancel it.
        # 5. On the wire: it may be billed from here on. `completed` ends it, or else `abandon`, which counts
        #    its reservation as spent.
        self._next: ActiveRequest | None = None
        self._uncommitted: deque[tuple[ActiveRequest, int]] = deque()
        self._durable: deque[ActiveRequest] = deque()
        self._released: dict[int, ActiveRequest] = {}
        self._on_wire: dict[int, ActiveRequest] = {}

        # All requests sent so far, and the bound on states 2 and 3 together that is derived from it.
        self._sent = 0
        self._prefetch = PrefetchLimit(rules.concurrency)

        # Why the run ends before its last row; the first reason of each kind counts:
        # - `_closed`: a cap has no room for another row. Rows that take several requests still get theirs.
        # - `_stop`: nothing more is prepared; the run waits for states 4 and 5, until `_drain_until` at most.
        # - `_error`: the same, for a fault to raise afterwards.
        self._closed: Stop | None = None
        self._stop: Stop | None = None
        self._error: Exception | None = None
        self._drain_until: float | None = None

    # Preparing: rows are begun, retried and reserved for in a definite order.

    def feed(self, rows: Sequence[Row] | None) -> None:
        """Takes the next rows of the source, which `advance` requested; None: there are none."""
        self._scheduler.feed(rows)

    def advance(self, now: float) -> Need:
        """Prepares as many requests as there is room for, and returns the condition for further progress."""
        while not self._ending and not self._scheduler.finished:
            if self._next is None:
                # While everything fails, new rows go first: they tell a bad endpoint from bad rows, and no
                # row has to spend its attempts on an outage.
                in_doubt = self._control.in_doubt
                self._next = self._forerunners.next() or self._scheduler.next(now, new_rows_first=in_doubt)
                if self._stop_if_enough() or (self._next is None and self._scheduler.finished):
                    continue
                if self._next is None:
                    return ROWS if self._scheduler.wants_rows else self._seconds_to_retry(now)
            if not self._prepare(self._next):
                return self._accounting.seconds_to_try
            self._next = None
        return self._seconds_to_drain(now) or END

    def _seconds_to_retry(self, now: float) -> float:
        seconds = self._scheduler.seconds_to_retry(now)
        if seconds < math.inf and not (self._durable or self._uncommitted or self._released or self._on_wire):
            self._reports.held("retry", now, seconds)
        return seconds

    def _prepare(self, active: ActiveRequest) -> bool:
        """Handles the next request; False if it has to wait for room."""
        if len(self._uncommitted) + len(self._durable) >= self._prefetch.most:
            return False
        if self._forerunners.has_to_wait(active):
            return self._forerunners.put_aside(active)
        if self._forerunners.let_its_row_begin(active):
            return True
        shortfall = self._accounting.reserve(active)
        if shortfall is None:
            self._forerunners.prepared(active)
            self._uncommitted.append((active, self._sent))
        elif not shortfall.may_pass:
            self._end_at(shortfall, active)
        # Not while others are deferred: one of the same row would go before the one that begins it.
        elif self._forerunners.has_next or not self._scheduler.yield_to_follow_ups(active):
            self._reports.blocked(shortfall.cap)
            return False
        return True

    def _end_at(self, shortfall: Shortfall, active: ActiveRequest) -> None:
        """Begins no further row. Rows in progress that take more requests go on, if these fit."""
        self._reports.blocked(None)
        at_cap = at_cap_of(shortfall.cap, shortfall.lack, none_sent=self._sent == 0)
        stop = self._closed or shortfall.stop or at_cap
        # The rows that a cap on rows has counted already need no more of it.
        by_rows = shortfall.lack is not None and shortfall.lack.unit == "rows"
        if not self._scheduler.close(active, retries_fit=by_rows):
            self.stop(stop)
            return
        self._forerunners.drop(active.request.row)
        if self._closed is None:
            self._closed = stop
            self._observer.stopping(stop.reason)

    def _seconds_to_drain(self, now: float) -> float:
        """Returns how long the requests that can't be cancelled may still take; 0: the run doesn't wait."""
        if not (self._on_wire or self._released or self._uncommitted):
            return 0.0
        return math.inf if self._drain_until is None else max(0.0, self._drain_until - now)

    # Sending.

    def committed(self, intents: int, not_needed: frozenset[int], now: float) -> list[ReleasedRequest]:
        """Counts `intents` more as durable, or refused as `not_needed`. Returns the requests to send."""
        # The first of them has waited longest, for the previous commit too.
        sent_before = self._uncommitted[0][1]
        for _ in range(intents):
            active, _ = self._uncommitted.popleft()
            if active.attempt in not_needed:
                self._accounting.not_needed(active)
                self._forerunners.ended(active, answered=False)
                self._scheduler.deduplicated(active.request)
            else:
                self._durable.append(active)
        self._stop_if_enough()
        if self._ending:
            self._cancel_durable()
        released = self.release(now)
        self._prefetch.resize(
            spare=bool(self._durable), sent=self._sent, sent_during_commit=self._sent - sent_before
        )
        return released

    def release(self, now: float) -> list[ReleasedRequest]:
        """Returns the durable requests to send now, in their order."""
        released: list[ReleasedRequest] = []
        for _ in range(self.sendable):
            if self.hold(now) > 0:
                break
            active = self._durable.popleft()
            admission = self._control.admit(now, active.reservation.amount.tokens)
            self._released[active.attempt] = active
            released.append(ReleasedRequest(active, admission))
        if not self._durable:
            self._reports.held(None, now)
        return released

    @property
    def sendable(self) -> int:
        """Returns how many durable requests have a sender; only limiter or breaker can hold these back."""
        most = int(min(self._prefetch.concurrency, self._usefulness.most_in_flight))
        return max(0, min(len(self._durable), most - len(self._released) - len(self._on_wire)))

    def hold(self, now: float) -> float:
        """Returns the seconds that the first durable request still has to wait; 0 or less: none."""
        if not self._durable:
            return 0.0
        hold, by = self._control.delay(now, self._durable[0].reservation.amount.tokens)
        self._reports.held(by, now, hold)
        return hold

    def sent(self, released: ReleasedRequest) -> None:
        """Marks a released request as on the wire: its bytes may be sent from now on."""
        active = released.active
        self._on_wire[active.attempt] = self._released.pop(active.attempt)
        self._sent += 1
        self._reports.blocked(None)
        self._observer.request_sent(active.number)

    def begun(self, released: ReleasedRequest) -> None:
        """Notes that a response begins: the marked parts of its prompt are in the server's cache."""
        self._forerunners.cached(released.active)

    def change_concurrency(self, most: int) -> None:
        """Changes the bound on requests in flight. Requests above a lower bound end as they would have."""
        self._prefetch.change_concurrency(most)

    # Ends of attempts.

    def completed(
        self, released: ReleasedRequest, result: Response | Failure, now: float
    ) -> list[ReleasedRequest]:
        """Books the end of a request on the wire, and decides what happens to its row.

        Returns the requests to send now: there is a place for one more.
        """
        del self._on_wire[released.active.attempt]
        self._forerunners.ended(released.active, answered=isinstance(result, Response))
        if isinstance(result, Response):
            self._answered(released.active, released.admission, result, now)
        else:
            self._failed(released.active, released.admission, result, now)
        self._stop_if_enough()
        return self.release(now)

    def faulted(self, released: ReleasedRequest, error: Exception) -> None:
        """Ends the run after an internal fault at one request, which may have been billed."""
        del self._on_wire[released.active.attempt]
        self._accounting.failed(released.active, _FAULT, final=self._rules.leave_in_doubt)
        self.fail(error)

    def _answered(self, active: ActiveRequest, admission: Admission, response: Response, now: float) -> None:
        tokens = self._accounting.answered(active, response)
        self._control.answered(admission, now, tokens, response.limits)
        self._failures.answered(active)
        self._observer.response_received(response, tokens)
        completion = replace(response.completion, run=self._accounting.run, cap=active.request.output_bound)
        self._scheduler.ended(active.request, completion)

    def _failed(self, active: ActiveRequest, admission: Admission, failure: Failure, now: float) -> None:
        at_the_end, rows_left = self._scheduler.at_the_end, self._scheduler.rows_left
        judgement = self._failures.judge(
            active, admission, failure, now, at_the_end=at_the_end, rows_left=rows_left
        )
        failure, delay = judgement.failure, judgement.delay
        if judgement.outage > self._rules.outage_seconds:
            why = f"The endpoint has let nothing through for {judgement.outage:.0f} s. "
            self._stop_by_endpoint(active, failure, why)
        kept_in_doubt = self._rules.leave_in_doubt and failure.billing is BillingStatus.UNKNOWN
        final = delay is None and (kept_in_doubt or failure.action is not FailureAction.STOP_RUN)
        self._accounting.failed(active, failure, final)
        self._observer.attempt_failed(AttemptFailed(active.attempt, failure, final, delay))
        if failure.action is FailureAction.STOP_RUN:
            self._stop_by_endpoint(active, failure)
        if final:
            self._usefulness.row_failed(failure)
            self._scheduler.ended(active.request, Completion(None, run=self._accounting.run))
        elif delay is None:
            self._scheduler.drop(active.request)
        else:
            self._retry_after(active, failure, delay, now)

    def _retry_after(self, active: ActiveRequest, failure: Failure, delay: float, now: float) -> None:
        if delay > self._rules.retry.max_wait_seconds:
            asked = f"The endpoint demands a wait of {delay:.0f} s, longer than retry.max_wait_seconds. "
            self._stop_by_endpoint(active, failure, asked)
        # A refused request, too, waits as its own response says; the limiter decides whether all wait.
        self._scheduler.retry(active, now + delay)

    def _stop_by_endpoint(self, active: ActiveRequest, failure: Failure, why: str = "") -> None:
        """Stops the run for a failure: the reason names its status, the address and the row."""
        verb = "failed" if failure.status is None else f"answered {failure.status}"
        row = self._scheduler.row_index(active.request)
        named = "" if row is None else f" for row {row + 1}"
        self.stop(by_endpoint(f"{why}POST {self._rules.address} {verb}{named}: {failure.message}"))

    # The end.

    def stop(self, stop: Stop, drain_until: float | None = None) -> None:
        """Prepares nothing more and drains, until `drain_until` at most; the first reason counts."""
        if self._stop is None:
            self._stop = stop
            self._observer.stopping(stop.reason)
        if drain_until is not None:
            self._drain_until = drain_until
        self._cancel_durable()

    def fail(self, error: Exception) -> None:
        """Prepares nothing more and drains, for a fault that doesn't affect the requests in flight."""
        self._error = self._error or error
        self._cancel_durable()

    def abort(self, error: Exception | None = None, stop: Stop | None = None) -> None:
        """Releases nothing more, for a caller that ends the run without a drain; `abandon` has to follow."""
        self._error = self._error or error
        self._stop = stop or self._stop
        self._cancel_durable()  # else a response during the cancellation would release another request

    def abandon(self) -> None:
        """Drops all requests that are prepared or in flight, once no sender runs any more.

        Requests on the wire may have been billed; the others were not sent.
        """
        for active in self._on_wire.values():
            self._accounting.failed(active, _INTERRUPTED, final=self._rules.leave_in_doubt)
        self._on_wire.clear()
        self._durable.extend(self._released.values())
        self._durable.extend(active for active, _ in self._uncommitted)
        self._released.clear()
        self._uncommitted.clear()
        self._cancel_durable()

    @property
    def stopped_by(self) -> Stop | None:
        """Returns why the run ended before its last row. Raises the error that ended it, if one did."""
        if self._error is not None:
            raise self._error
        return self._stop or self._closed

    def _stop_if_enough(self) -> bool:
        if self._enough is not None and (stop := self._enough()) is not None:
            self.stop(stop)
        if self._usefulness.stop is not None:
            self.stop(self._usefulness.stop)
        return self._ending

    @property
    def _ending(self) -> bool:
        return self._stop is not None or self._error is not None

    def _cancel_durable(self) -> None:
        while self._durable:
            self._accounting.cancel_intent(self._durable.popleft())


_FAULT = fate_unknown("fault", "batchrun itself failed at this request.", 0.0)
_INTERRUPTED = fate_unknown("interrupted", "The run was stopped before the response came.", 0.0)
