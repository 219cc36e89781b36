"""One run under virtual time: the real admission control and failure judge before a simulated server.

The dispatcher is modelled: at most `in_flight` requests are out, rows that wait for another attempt hold none
of them and go first when they are due. A refusal takes a round trip, a response the latency more.
"""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from batchrun.client.request import Request
from batchrun.client.retry import RetryPolicy
from batchrun.engine.accounting import ActiveRequest
from batchrun.engine.failures import FailureJudge
from batchrun.engine.limits.admission import AdmissionControl
from batchrun.engine.limits.limiter import Limiter
from batchrun.exchange import BillingStatus, Failure, FailureAction
from benchmarks.limit_servers import Outage, Random, Refusal, Server, Slots

ROUND_TRIP = 0.02
SPREAD = 0.3
"""Sigma of the log-normal latencies."""
MOST_OUTAGE = 900.0
SPARE_TOKENS = 200
"""By which a request's worst case exceeds what it uses."""


@dataclass(frozen=True, slots=True)
class Case:
    """One server and the job that meets it. `make` builds the server from a seed; `tokens` says what a
    request that is sent at an instant uses; times are in seconds. The run ends with its last row, or after
    `seconds`; `rows` None: there is no end of them."""

    name: str
    make: Callable[[int], Server]
    seconds: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens: Callable[[float], int] = lambda _: 100
    worst_tokens: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`goodput` is a share of the best, `refused` a share of what was sent, `stall` the longest time without
    an accepted request in seconds. `passed`: by how much the fullest minute exceeded a given limit on tokens.
    `failed`: rows that failed. `flight`: mean number of accepted requests in flight over the second half.
    `took`: seconds until the last row had ended.
    """

    goodput: float
    refused: float
    stall: float
    per_second: float
    passed: float = 0.0
    failed: int = 0
    flight: float = 0.0
    took: float = 0.0


Out = tuple[Any, ActiveRequest, int]


@dataclass
class Simulation:
    case: Case
    in_flight: int
    latency: float
    seed: int
    limiter: Limiter = field(init=False)
    trace: Callable[["Simulation", float], None] | None = None

    def __post_init__(self) -> None:
        case = self.case
        self.limiter = Limiter(case.requests_per_minute, case.tokens_per_minute)
        self.control = AdmissionControl(self.limiter, MOST_OUTAGE, may_repeat=True)
        self.failures = FailureJudge(RetryPolicy(), self.control, leave_in_doubt=False)
        self.server = case.make(self.seed)
        self.random = random.Random(self.seed)
        self.rows_left = math.inf if case.rows is None else case.rows
        self.events: list[tuple[float, int, Callable[[float, Out], None], Out]] = []
        self.waiting: list[tuple[float, int, ActiveRequest]] = []
        self.numbers = count()
        self.begun = self.out = self.sent = self.refused = self.failed = self.accepted_out = 0
        self.accepted: list[tuple[float, int]] = []
        self.area, self.area_at = 0.0, case.seconds / 2

    def run(self) -> Result:
        random.seed(self.seed)  # the retry policy draws from it
        now, end = 0.0, self.case.seconds
        while now < end and self.rows_left:
            self._send_all(now)
            now = self._next_instant(now)
            if self.trace is not None:
                self.trace(self, now)
            while self.events and self.events[0][0] <= now:
                at, _, happens, out = heapq.heappop(self.events)
                happens(at, out)
        return self._result(now)

    def _hold(self, now: float) -> float:
        return self.control.delay(now, self._worst(now))[0]

    def _worst(self, now: float) -> int:
        return self.case.worst_tokens or self.case.tokens(now) + SPARE_TOKENS

    @property
    def _has_new_rows(self) -> bool:
        return self.case.rows is None or self.begun < self.case.rows

    def _seconds_to_row(self, now: float) -> float:
        """Seconds until a row may be sent; infinite if none is left."""
        if self._has_new_rows:
            return 0.0
        return self.waiting[0][0] - now if self.waiting else math.inf

    def _next_row(self, now: float) -> ActiveRequest:
        due = self.waiting and self.waiting[0][0] <= now
        if due and not (self._has_new_rows and self.control.in_doubt()):
            return heapq.heappop(self.waiting)[2]
        self.begun += 1
        return ActiveRequest(Request(b"", self.begun.to_bytes(8), 0, None))

    def _send_all(self, now: float) -> None:
        while self.out < self.in_flight and self._seconds_to_row(now) <= 0 and self._hold(now) <= 0:
            row = self._next_row(now)
            row.number += 1
            admission = self.control.admit(now, self._worst(now))
            self.out += 1
            self.sent += 1
            way = ROUND_TRIP / 2 * self.random.uniform(0.8, 1.5)
            self._at(now + way, self._arrive, (admission, row, self.case.tokens(now)))

    def _next_instant(self, now: float) -> float:
        event = self.events[0][0] if self.events else math.inf
        if self.out >= self.in_flight:
            return event
        # A timer wakes a little late.
        wait = max(self._hold(now), self._seconds_to_row(now), 1e-6)
        return min(event, now + wait + self.random.expovariate(1000))

    def _at(self, instant: float, happens: Callable[[float, Out], None], out: Out) -> None:
        heapq.heappush(self.events, (instant, next(self.numbers), happens, out))

    def _arrive(self, now: float, out: Out) -> None:
        refusal = self.server.arrive(now, out[2])
        back = now + ROUND_TRIP / 2
        if refusal is not None:
            failure = _failure(refusal, self.server, now)
            self._at(back, lambda at, out: self._refuse(at, out, failure), out)
            return
        self.accepted.append((now, out[2]))
        self._count_flight(now, 1)
        self._at(now + self.latency * self.random.lognormvariate(0, SPREAD), self._leave, out)

    def _count_flight(self, now: float, change: int) -> None:
        if now > self.area_at:
            self.area += self.accepted_out * (now - self.area_at)
            self.area_at = now
        self.accepted_out += change

    def _leave(self, now: float, out: Out) -> None:
        self.server.ended(now)
        self._count_flight(now, -1)
        self._at(now + ROUND_TRIP / 2, self._answer, out)

    def _answer(self, now: float, out: Out) -> None:
        admission, row, tokens = out
        self.out -= 1
        self.rows_left -= 1
        self.control.answered(admission, now, tokens, self.server.limits(now))
        self.failures.answered(row)

    def _refuse(self, now: float, out: Out, failure: Failure) -> None:
        admission, row, _ = out
        self.out -= 1
        self.refused += failure.status == 429
        at_the_end = not self._has_new_rows
        judgement = self.failures.judge(
            row,
            admission,
            failure,
            now,
            at_the_end=at_the_end,
            rows_left=self.rows_left if at_the_end else math.inf,
        )
        if judgement.delay is None:
            self.failed += 1
            self.rows_left -= 1
            return
        heapq.heappush(self.waiting, (now + judgement.delay, next(self.numbers), row))

    def _result(self, took: float) -> Result:
        case, seconds = self.case, self.case.seconds
        best = min(self._most_sent(), self.server.best(seconds))
        good = sum(tokens for _, tokens in self.accepted) if case.tokens_per_minute else len(self.accepted)
        if case.tokens_per_minute:
            best = case.tokens_per_minute / 60 * seconds
        instants = [0.0, *(at for at, _ in self.accepted), seconds]
        stall = max(after - before for before, after in pairwise(instants))
        self._count_flight(seconds, 0)
        return Result(
            goodput=good / best,
            refused=self.refused / max(1, self.sent),
            stall=stall,
            per_second=len(self.accepted) / seconds,
            passed=self._passed(),
            failed=self.failed,
            flight=self.area / (seconds / 2),
            took=took,
        )

    def _most_sent(self) -> float:
        """Requests that so many in flight can have answered in the time, and a bound on concurrency lets in.

        A slot of the server is busy for the latency; one of the sender a round trip longer, and a round trip
        for each refusal.
        """
        case, server, seconds = self.case, self.server, self.case.seconds
        share = 0.0
        while not isinstance(server, Slots) and hasattr(server, "inner"):
            share = server.share if isinstance(server, Random) else share
            seconds -= server.seconds if isinstance(server, Outage) else 0.0
            server = server.inner
        mean = self.latency * math.exp(SPREAD**2 / 2)
        trip = 1.075 * ROUND_TRIP
        most = self.in_flight / (mean + trip + share / (1 - share) * trip)
        if isinstance(server, Slots):
            most = min(most, server.slots / mean)
        if case.requests_per_minute is not None:
            most = min(most, case.requests_per_minute / 60 * (1 - share))
        return most * seconds

    def _passed(self) -> float:
        given = self.case.tokens_per_minute
        if given is None:
            return 0.0
        most = used = first = 0
        for at, tokens in self.accepted:
            used += tokens
            while self.accepted[first][0] <= at - 60:
                used -= self.accepted[first][1]
                first += 1
            most = max(most, used)
        return most / given - 1


def _failure(refusal: Refusal, server: Server, now: float) -> Failure:
    if refusal.status == 503:
        return Failure("http_503", "overloaded", FailureAction.RETRY, BillingStatus.NO, 503)
    return Failure(
        "rate_limit_error",
        "slow down",
        FailureAction.SLOW_DOWN,
        BillingStatus.NO,
        429,
        retry_after=refusal.wait,
        limits=server.limits(now),
    )
