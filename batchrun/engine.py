"""The fan-out: requests in, journaled outcomes out, with a bounded number in flight.

A request goes through: reserved (ledger) -> intended (journal) -> durable -> let go (limiter, brake) ->
sent -> booked (journal, ledger) -> closed, or waiting for another attempt. `Engine` alone decides; its
workers only exchange a body for a reply.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.abc

from batchrun.books import Books, Lease
from batchrun.exchange import Answer, Billed, Failure, Remedy
from batchrun.labelling import Labelling, Reply
from batchrun.limits.brake import Brake
from batchrun.limits.limiter import Admission, Limiter
from batchrun.open_rows import Row
from batchrun.progress import Progress
from batchrun.replies import read_reply
from batchrun.row_queue import RowQueue, RowWatch
from batchrun.stops import Stop, at_cap_of, by_endpoint
from batchrun.wakeup import Wakeup
from batchrun.wire.retry import RetryPolicy, fate_unknown

DRAIN_SECONDS = 30.0
"""How long an interrupted run waits for what is in flight."""
LEAST_PREPARED = 2


class Endpoint(Protocol):
    async def send(self, body: bytes) -> Answer | Failure: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """`leave_in_doubt`: a row whose request may have been billed is not asked again.

    `outage_seconds`: an endpoint that fails everything for longer ends the run. `labelling` says which
    requests follow a row's first one.
    """

    concurrency: int
    retry: RetryPolicy
    leave_in_doubt: bool = False
    outage_seconds: float = 900.0
    labelling: Labelling | None = None


Going = tuple[Lease, Admission]
"""A request that is let go, as the books and as the limiter count it."""


class Engine:
    """One run's fan-out. Faults are raised; other ends are a `Stop` or None. `watch` hears of rows' ends."""

    def __init__(
        self,
        rules: Rules,
        books: Books,
        limiter: Limiter,
        endpoint: Endpoint,
        progress: Progress,
        watch: RowWatch | None = None,
    ) -> None:
        self._rules = rules
        self._books = books
        self._limiter = limiter
        self._brake = Brake(rules.outage_seconds)
        self._endpoint = endpoint
        self._progress = progress
        self._queue = RowQueue(rules.labelling, progress, watch)
        if watch is not None:
            watch.stop = self.stop
        self._reads_answers = rules.labelling is not None or watch is not None
        self._uncommitted: deque[tuple[Lease, int]] = deque()
        self._durable: deque[Lease] = deque()
        self._idle: list[asyncio.Future[Going]] = []
        self._workers = 0
        self._let_go_unsent: dict[int, Lease] = {}
        self._on_wire = 0
        self._sent = 0
        self._most_prepared: float = LEAST_PREPARED
        self._sent_at_resize = 0
        self._refused_since: float | None = None
        self._stop: Stop | None = None
        self._closed: Stop | None = None
        self._error: Exception | None = None
        self._drain_until: float | None = None
        self._admission = Wakeup()
        self._pacing = Wakeup()
        self._commit = Wakeup()
        self._commits: deque[tuple[int, frozenset[int]]] = deque()
        self._tasks: anyio.abc.TaskGroup

    async def run(self, source: AsyncIterator[Sequence[Row]]) -> Stop | None:
        """Asks for every row of the source, until it ends or the run is stopped; then drains.

        Raises what the source raised, after the drain, and what `fail` and `abort` were given.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._pace)
                self._tasks.start_soon(self._follow_commits)
                while (lease := await self._next_lease(source)) is not None:
                    await self._prepare(lease)
                await self._drain()
                self._tasks.cancel_scope.cancel()
        finally:
            # After an abort: a task that is cancelled before its first step never runs.
            self._durable.extend(self._let_go_unsent.values())
            self._durable.extend(lease for lease, _ in self._uncommitted)
            self._withdraw_prepared()
        if self._error is not None:
            raise self._error
        return self._stop or self._closed

    def stop(self, stop: Stop, drain_seconds: float | None = None) -> None:
        """Starts nothing more and drains, for `drain_seconds` at most; the first reason counts."""
        self._stop = self._stop or stop
        self._progress.stopping = self._stop.reason
        if drain_seconds is not None:
            self._drain_until = time.monotonic() + drain_seconds
        self._withdraw_prepared()
        self._admission.call()

    def fail(self, error: Exception) -> None:
        """Starts nothing more and drains, for a fault that lets what is in flight come to its end."""
        self._error = self._error or error
        self._withdraw_prepared()
        self._admission.call()

    def abort(self, error: Exception | None = None, stop: Stop | None = None) -> None:
        """Ends at once, for the reason `stop` if one is given. What is in flight is booked as uncertain."""
        self._error = self._error or error
        self._stop = stop or self._stop
        self._tasks.cancel_scope.cancel()

    def intents_committed(self, intents: int, not_needed: frozenset[int]) -> None:
        """Takes the journal's word that so many more intents are durable."""
        self._commits.append((intents, not_needed))
        self._commit.call()

    async def _follow_commits(self) -> None:
        """In a task of its own, so that an error here ends the run."""
        while True:
            await self._commit.wait()
            while self._commits:
                self._take_commit(*self._commits.popleft())

    def _take_commit(self, intents: int, not_needed: frozenset[int]) -> None:
        # The first of them has waited longest: for the commit before, too.
        sent_before = self._uncommitted[0][1]
        for _ in range(intents):
            lease, _ = self._uncommitted.popleft()
            if lease.attempt in not_needed:
                self._books.not_needed(lease)
                self._queue.answered_elsewhere(lease.request)
            else:
                self._durable.append(lease)
        if self._ending:
            self._withdraw_prepared()
        self._let_go()
        self._resize_preparation(sent_during_commit=self._sent - sent_before)
        self._admission.call()

    def _resize_preparation(self, sent_during_commit: int) -> None:
        """As few prepared requests as keep the workers busy: they would be uncertain after a crash.

        Doubles while there were too few of them. Else twice what was sent while one commit took place is
        enough for the next. Answers come in bursts, as their requests went: the burst that is largest comes
        again when every worker has had its turn, so what was enough for it fades by turns and not by time.
        """
        bound = max(LEAST_PREPARED, self._rules.concurrency)
        if self._durable:
            turns = (self._sent - self._sent_at_resize) / bound
            enough = max(2 * sent_during_commit, self._most_prepared * (1 - min(1.0, turns / 2)))
        else:
            enough = 2 * self._most_prepared
        self._most_prepared = max(LEAST_PREPARED, min(enough, bound))
        self._sent_at_resize = self._sent

    # Admission: one task, so that rows are taken, retried and reserved for in a definite order.

    async def _next_lease(self, source: AsyncIterator[Sequence[Row]]) -> Lease | None:
        """The next request to make, None when there is nothing left.

        While everything fails, new rows go first: they tell a bad endpoint from bad rows, and no row has to
        spend its attempts on an outage.
        """
        while not self._ending:
            now = time.monotonic()
            lease = self._queue.next(now, new_rows_first=self._brake.is_failing)
            if lease is not None:
                return lease
            if self._queue.wants_rows:
                await self._fetch(source)
            elif self._queue.finished:
                return None
            else:
                await self._admission.wait(self._queue.seconds_to_retry(now))
        return None

    async def _fetch(self, source: AsyncIterator[Sequence[Row]]) -> None:
        try:
            self._queue.feed(await anext(source, None))
        except Exception as error:  # of whatever kind: the answers in flight are paid for
            self.fail(error)

    async def _prepare(self, lease: Lease) -> None:
        """Reserves and intends, once there is room among the prepared requests and in the budget."""
        while not self._ending:
            if len(self._uncommitted) + len(self._durable) >= self._most_prepared:
                await self._admission.wait()
                continue
            shortfall = self._books.reserve(lease)
            if shortfall is None:
                self._uncommitted.append((lease, self._sent))
                return
            if not shortfall.may_pass:
                self._end_at(shortfall.cap, lease)
                return
            if self._queue.gives_way(lease):
                return
            self._progress.held_by = shortfall.cap
            await self._admission.wait()

    def _end_at(self, cap: str, lease: Lease) -> None:
        """No row is begun any more. Rows of several requests that are in progress go on, if they fit."""
        stop = self._closed or at_cap_of(cap)
        if self._queue.close(lease):
            self._closed, self._progress.stopping = stop, stop.reason
        else:
            self.stop(stop)

    # Dispatch: whoever has just become free takes the next durable request, if limiter and brake let it go.

    def _hold(self, now: float) -> float:
        """Seconds for which the first in line, which must exist, has to wait yet; 0 or less: none."""
        tokens = self._durable[0].reservation.amount.tokens
        limiter, brake = self._limiter.delay(now, tokens), self._brake.delay(now)
        hold = max(limiter, brake)
        self._progress.slowed_by = None if hold <= 0 else "rate limit" if limiter >= brake else "endpoint"
        return hold

    def _take(self) -> Going | None:
        """The one place where a request is let go."""
        if not self._durable:
            self._progress.slowed_by = None
            return None
        now = time.monotonic()
        if self._hold(now) > 0:
            self._pacing.call()
            return None
        lease = self._durable.popleft()
        admission = self._limiter.admit(now, lease.reservation.amount.tokens)
        self._brake.sent(now)
        self._let_go_unsent[lease.attempt] = lease
        self._admission.call()
        return lease, admission

    def _let_go(self) -> None:
        """Gives durable requests to idle workers, or to new ones up to the bound."""
        while self._idle or self._workers < self._rules.concurrency:
            going = self._take()
            if going is None:
                return
            if self._idle:
                worker = self._idle.pop()
                if not worker.cancelled():  # else the run is being aborted, which withdraws what was let go
                    worker.set_result(going)
            else:
                self._workers += 1
                self._tasks.start_soon(self._work, going)

    async def _pace(self) -> None:
        """Waits for limiter and brake in everybody's place."""
        while True:
            await self._pacing.wait()
            while self._durable and (hold := self._hold(time.monotonic())) > 0:
                await self._pacing.wait(hold)
            self._let_go()

    async def _work(self, going: Going | None) -> None:
        while going is not None:
            lease, admission = going
            del self._let_go_unsent[lease.attempt]
            self._on_wire += 1
            self._sent += 1
            self._progress.sent(lease.number)
            try:
                reply = await self._endpoint.send(lease.request.body)
            except anyio.get_cancelled_exc_class():
                self._books.failed(lease, _INTERRUPTED, final=self._rules.leave_in_doubt)
                raise
            except Exception as error:  # a fault of batchrun's own: the other answers in flight are paid for
                self._on_wire -= 1
                self._books.failed(lease, _FAULT, final=self._rules.leave_in_doubt)
                self.fail(error)
                return
            self._on_wire -= 1
            if isinstance(reply, Answer):
                self._take_answer(lease, admission, reply)
            else:
                self._take_failure(lease, admission, reply)
            self._admission.call()
            going = self._take()
            if going is None:
                work = asyncio.get_running_loop().create_future()
                self._idle.append(work)
                going = await work

    # Ends of attempts.

    def _take_answer(self, lease: Lease, admission: Admission, answer: Answer) -> None:
        tokens = self._books.answered(lease, answer)
        self._limiter.answered(admission, time.monotonic(), tokens, answer.limits)
        self._brake.succeeded(admission.sent_at)
        self._refused_since = None
        self._progress.answered(tokens)
        reply = read_reply(answer.body, self._books.run) if self._reads_answers else Reply("")
        self._queue.ended(lease.request, reply)

    def _take_failure(self, lease: Lease, admission: Admission, failure: Failure) -> None:
        self._heed(lease, admission, failure)
        leave = failure.billed is Billed.UNKNOWN and self._rules.leave_in_doubt
        delay = None if leave else self._rules.retry.delay(failure, lease.used_attempts)
        final = delay is None and failure.remedy is not Remedy.STOP_RUN
        self._books.failed(lease, failure, final)
        self._progress.attempt_failed(failure, lease.attempt, final=final)
        if failure.remedy is Remedy.STOP_RUN:
            self.stop(by_endpoint(failure.message))
        if final:
            self._queue.ended(lease.request, Reply(None, run=self._books.run))
        elif delay is None:
            self._queue.drop(lease.request)
        else:
            self._retry_after(lease, failure, delay)

    def _heed(self, lease: Lease, admission: Admission, failure: Failure) -> None:
        """Tells limiter and brake, which says whether the attempt counts and how long nothing has worked."""
        now = time.monotonic()
        self._limiter.failed(admission, now, failure)
        lease.used_attempts += self._brake.failed(
            now,
            admission.sent_at,
            failure,
            first_failed=lease.first_failed,
            is_last=lease.used_attempts + 1 >= self._rules.retry.max_attempts,
            at_the_end=self._queue.at_the_end,
        )
        if lease.first_failed is None and failure.remedy is Remedy.RETRY:
            lease.first_failed = admission.sent_at
        if failure.remedy is Remedy.SLOW_DOWN:
            # These use up no attempts, so patience must end what nothing else would.
            self._refused_since = self._refused_since or now
            outage = now - self._refused_since
        else:
            outage = self._brake.outage(now)
        if outage > self._rules.outage_seconds:
            self.stop(
                by_endpoint(f"The endpoint has let nothing through for {outage:.0f} s: {failure.message}")
            )

    def _retry_after(self, lease: Lease, failure: Failure, delay: float) -> None:
        if delay > self._rules.retry.max_wait_seconds:
            asked = f"The endpoint asks for a wait of {delay:.0f} s ({failure.message})"
            self.stop(by_endpoint(f"{asked}, longer than retry.max_wait_seconds."))
        # Whoever was refused goes first when sending goes on; the limiter sees to the pace.
        rate_limited = failure.remedy is Remedy.SLOW_DOWN
        due = self._limiter.paused_until if rate_limited else time.monotonic() + delay
        self._queue.retry(lease, due)

    # The end.

    @property
    def _ending(self) -> bool:
        return self._stop is not None or self._error is not None

    def _withdraw_prepared(self) -> None:
        while self._durable:
            self._books.withdraw(self._durable.popleft())

    async def _drain(self) -> None:
        while self._on_wire or self._let_go_unsent or self._uncommitted:
            left = None if self._drain_until is None else self._drain_until - time.monotonic()
            if left is not None and left <= 0:
                break
            await self._admission.wait(left)


_FAULT = fate_unknown("fault", "batchrun itself failed at this request.", 0.0)
_INTERRUPTED = fate_unknown("interrupted", "The run was stopped before the answer came.", 0.0)
