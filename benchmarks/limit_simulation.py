"""One run under virtual time: the real limiter, circuit breaker and retry policy before a simulated server.

The engine is modelled: at most `in_flight` requests are out, rows that wait for another attempt hold none of
them and go first when they are due, and there is no end of new rows. A refusal takes a round trip, a response
the latency more.
"""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from batchrun.client.retry import RetryPolicy
from batchrun.engine.limits.circuit_breaker import CircuitBreaker
from batchrun.engine.limits.limiter import Limiter
from batchrun.exchange import BillingStatus, Failure, FailureAction
from benchmarks.limit_servers import Outage, Random, Refusal, Server, Slots

ROUND_TRIP = 0.02
SPREAD = 0.3
"""Sigma of the log-normal latencies."""
SPARE_TOKENS = 200
"""By which a request's worst case exceeds what it uses."""


@dataclass(frozen=True, slots=True)
class Case:
    """One server and the job that meets it. `make` builds the server from a seed; `tokens` says what a
    request that is sent at an instant uses; times are in seconds."""

    name: str
    make: Callable[[int], Server]
    seconds: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens: Callable[[float], int] = lambda _: 100
    worst_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`goodput` is a share of the best, `refused` a share of what was sent, `stall` the longest time without
    an accepted request in seconds. `passed`: by how much the fullest minute exceeded a given limit on tokens.
    `failed`: rows that failed. `flight`: mean number of accepted requests in flight over the second half.
    """

    goodput: float
    refused: float
    stall: float
    per_second: float
    passed: float = 0.0
    failed: int = 0
    flight: float = 0.0


@dataclass(slots=True)
class SimRow:
    used_attempts: int = 0
    refusals: int = 0
    first_failed: float | None = None


Out = tuple[Any, SimRow, int]


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
        self.breaker = CircuitBreaker(900.0)
        self.server = case.make(self.seed)
        self.random = random.Random(self.seed)
        self.retry = RetryPolicy()
        self.events: list[tuple[float, int, Callable[[float, Out], None], Out]] = []
        self.waiting: list[tuple[float, int, SimRow]] = []
        self.numbers = count()
        self.out = self.sent = self.refused = self.failed = self.accepted_out = 0
        self.accepted: list[tuple[float, int]] = []
        self.area, self.area_at = 0.0, case.seconds / 2

    def run(self) -> Result:
        random.seed(self.seed)  # the retry policy draws from it
        now, end = 0.0, self.case.seconds
        while now < end:
            self._send_all(now)
            now = self._next_instant(now)
            if self.trace is not None:
                self.trace(self, now)
            while self.events and self.events[0][0] <= now:
                at, _, happens, out = heapq.heappop(self.events)
                happens(at, out)
        return self._result()

    def _hold(self, now: float) -> float:
        return max(self.limiter.delay(now, self._worst(now)), self.breaker.delay(now))

    def _worst(self, now: float) -> int:
        return self.case.worst_tokens or self.case.tokens(now) + SPARE_TOKENS

    def _send_all(self, now: float) -> None:
        while self.out < self.in_flight and self._hold(now) <= 0:
            due = self.waiting and self.waiting[0][0] <= now and not self.breaker.is_failing
            row = heapq.heappop(self.waiting)[2] if due else SimRow()
            admission = self.limiter.admit(now, self._worst(now))
            self.breaker.sent(now)
            self.out += 1
            self.sent += 1
            way = ROUND_TRIP / 2 * self.random.uniform(0.8, 1.5)
            self._at(now + way, self._arrive, (admission, row, self.case.tokens(now)))

    def _next_instant(self, now: float) -> float:
        event = self.events[0][0] if self.events else math.inf
        if self.out >= self.in_flight:
            return event
        # A timer wakes a little late.
        return min(event, now + max(self._hold(now), 1e-6) + self.random.expovariate(1000))

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
        self.out -= 1
        self.limiter.answered(out[0], now, out[2], self.server.limits(now))
        self.breaker.succeeded(out[0].sent_at)

    def _refuse(self, now: float, out: Out, failure: Failure) -> None:
        admission, row, _ = out
        self.out -= 1
        self.refused += failure.status == 429
        self.limiter.failed(admission, now, failure)
        row.used_attempts += self.breaker.failed(
            now,
            admission.sent_at,
            failure,
            first_failed=row.first_failed,
            is_last=row.used_attempts + 1 >= self.retry.max_attempts,
            at_the_end=False,
        )
        if failure.action is FailureAction.RETRY and row.first_failed is None:
            row.first_failed = admission.sent_at
        delay = self.retry.delay(failure, row.used_attempts)
        if delay is None:
            self.failed += 1
            return
        heapq.heappush(self.waiting, (now + delay, next(self.numbers), row))

    def _result(self) -> Result:
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
