"""A limiter against a simulated server, in virtual time: thousands of seconds within one."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.send_order import Admission
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits


class Server(Protocol):
    per_minute: int

    def arrive(self, now: float, tokens: int) -> float | None:
        """None: accepted. Else the seconds after which the request would fit."""


class SlidingWindow:
    """At most so many requests, or tokens, in any 60 seconds; or their share of that in any `seconds`."""

    def __init__(self, per_minute: int, *, counts_tokens: bool = False, seconds: float = 60.0) -> None:
        self.per_minute = per_minute
        self._seconds = seconds
        self._counts_tokens = counts_tokens
        self._accepted: deque[tuple[float, int]] = deque()
        self._used = 0

    def arrive(self, now: float, tokens: int) -> float | None:
        units = tokens if self._counts_tokens else 1
        while self._accepted and self._accepted[0][0] <= now - self._seconds:
            self._used -= self._accepted.popleft()[1]
        excess = self._used + units - int(self.per_minute * self._seconds / 60)
        if excess <= 0:
            self._accepted.append((now, units))
            self._used += units
            return None
        for sent_at, used in self._accepted:
            excess -= used
            if excess <= 0:
                return sent_at + self._seconds - now
        return self._seconds


class TokenBucket:
    """Holds `burst` requests, and is filled evenly."""

    def __init__(self, per_minute: int, burst: float) -> None:
        self.per_minute = per_minute
        self._burst = self._level = burst
        self._at = 0.0

    def arrive(self, now: float, tokens: int) -> float | None:
        rate = self.per_minute / 60
        self._level = min(self._burst, self._level + (now - self._at) * rate)
        self._at = now
        if self._level < 1:
            return (1 - self._level) / rate
        self._level -= 1
        return None


@dataclass(frozen=True)
class World:
    """Everything around the limiter. Times are seconds; latencies are log-normal about their median.

    Requests use from `tokens[0]` to `tokens[1]` tokens; their worst case is `spare_tokens` more.
    """

    concurrency: int = 256
    latency: float = 1.0
    round_trip: float = 0.02
    tokens: tuple[int, int] = (100, 100)
    spare_tokens: int = 200
    states_wait: bool = True
    states_limit: bool = False
    changes: Sequence[tuple[float, int]] = ()
    seed: int = 0


@dataclass
class Log:
    """When requests were accepted, with their tokens, and refused; when all was paused."""

    accepted: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    pauses: set[float] = field(default_factory=set)

    def used(self, begin: float, end: float) -> int:
        return sum(begin < at <= end for at, _ in self.accepted)

    def used_tokens(self, begin: float, end: float) -> int:
        return sum(tokens for at, tokens in self.accepted if begin < at <= end)

    def refused_share(self, begin: float = 0.0, end: float = math.inf) -> float:
        refused = sum(begin < at <= end for at in self.refused)
        return refused / max(1, refused + self.used(begin, end))

    def fullest_minute(self, *, tokens: bool = False) -> int:
        """The most that any 60 seconds held."""
        window: deque[tuple[float, int]] = deque()
        most = total = 0
        for at, used in self.accepted:
            units = used if tokens else 1
            window.append((at, units))
            total += units
            while window[0][0] <= at - 60:
                total -= window.popleft()[1]
            most = max(most, total)
        return most


_Event = tuple[float, int, Callable[[float], None]]


class _Run:
    def __init__(self, limiter: Limiter, server: Server, world: World) -> None:
        self._limiter = limiter
        self._server = server
        self._world = world
        self._random = random.Random(world.seed)
        self._events: list[_Event] = []
        self._numbers = count()
        self._in_flight = 0
        self.log = Log()

    def until(self, end: float) -> Log:
        now = 0.0
        for at, per_minute in self._world.changes:
            self._at(at, partial(self._change, per_minute))
        used, worst = self._next_request()
        while now < end:
            while self._in_flight < self._world.concurrency and self._limiter.delay(now, worst) <= 0:
                self._send(now, used, worst)
                used, worst = self._next_request()
            now = self._next_instant(now, worst)
            while self._events and self._events[0][0] <= now:
                at, _, happens = heapq.heappop(self._events)
                happens(at)
        return self.log

    def _change(self, per_minute: int, now: float) -> None:
        self._server.per_minute = per_minute

    def _next_request(self) -> tuple[int, int]:
        used = self._random.randint(*self._world.tokens)
        return used, used + self._world.spare_tokens

    def _next_instant(self, now: float, worst: int) -> float:
        event = self._events[0][0] if self._events else math.inf
        if self._in_flight == self._world.concurrency:
            return event
        # A timer wakes a little late.
        wake = now + max(self._limiter.delay(now, worst), 1e-6) + self._random.expovariate(1000)
        return min(event, wake)

    def _at(self, instant: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (instant, next(self._numbers), happens))

    def _send(self, now: float, used: int, worst: int) -> None:
        admission = self._limiter.admit(now, worst)
        self._in_flight += 1
        there = now + self._world.round_trip / 2 * self._random.uniform(0.8, 1.5)
        self._at(there, lambda at: self._arrive(at, admission, used))

    def _arrive(self, now: float, admission: Admission, used: int) -> None:
        wait = self._server.arrive(now, used)
        back = now + self._world.round_trip / 2
        if wait is None:
            self.log.accepted.append((now, used))
            latency = self._world.latency * self._random.lognormvariate(0, 0.5)
            self._at(back + latency, lambda at: self._answer(at, admission, used))
        else:
            self.log.refused.append(now)
            # As `Retry-After` is written: in whole seconds.
            self._at(back, lambda at: self._refuse(at, admission, math.ceil(wait)))

    def _answer(self, now: float, admission: Admission, used: int) -> None:
        self._in_flight -= 1
        self._limiter.answered(admission, now, used, self._limits())

    def _refuse(self, now: float, admission: Admission, wait: int) -> None:
        self._in_flight -= 1
        before = self._limiter.paused_until
        asked = float(wait) if self._world.states_wait else None
        self._limiter.failed(admission, now, rate_limited(asked, self._limits()))
        if self._limiter.paused_until > before and before < now:
            self.log.pauses.add(now)

    def _limits(self) -> RateLimits | None:
        return RateLimits(limit_requests=self._server.per_minute) if self._world.states_limit else None


def rate_limited(retry_after: float | None = None, limits: RateLimits | None = None) -> Failure:
    return Failure(
        "rate_limit_error",
        "slow down",
        FailureAction.SLOW_DOWN,
        BillingStatus.NO,
        429,
        retry_after=retry_after,
        limits=limits,
    )


def simulate(limiter: Limiter, server: Server, end: float, world: World = World()) -> Log:
    """Sends as much as the limiter lets go, from second 0 to `end`."""
    return _Run(limiter, server, world).until(end)
