"""Simulated servers that refuse requests: what each takes, and the most that it would have taken.

`arrive(now, tokens)` returns None for a request that is taken, else the `Refusal`; `ended(now)` is called
when a response leaves. `best(seconds)` is the number of requests that a sender who knows the server could
have had accepted, infinite where only the sender bounds it. Times are seconds of one virtual clock.
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from batchrun.exchange import RateLimits

Steps = Sequence[tuple[float, float]]
"""(since when, requests a second): a limit that changes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`wait`: seconds for `Retry-After`, None for none. `status` is 429, or 503 in an outage."""

    wait: float | None
    status: int = 429


class Server:
    """Takes everything."""

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        return None

    def ended(self, now: float) -> None:
        pass

    def limits(self, now: float) -> RateLimits | None:
        """What the headers of a response at `now` say."""
        return None

    def best(self, seconds: float) -> float:
        return math.inf


class Limited(Server):
    """A limit in units a second, requests or tokens. `waits`: whether refusals say how long to wait."""

    def __init__(
        self, rate: float | Steps, *, waits: bool = True, tokens: bool = False, headers: bool = False
    ) -> None:
        self.steps = rate if isinstance(rate, Sequence) else [(0.0, rate)]
        self._waits, self._counts_tokens, self._headers = waits, tokens, headers

    def rate(self, now: float) -> float:
        return [rate for since, rate in self.steps if since <= now][-1]

    def best(self, seconds: float) -> float:
        ends = [*(since for since, _ in self.steps[1:]), math.inf]
        return sum(
            rate * max(0.0, min(end, seconds) - since)
            for (since, rate), end in zip(self.steps, ends, strict=True)
        )

    def _refusal(self, wait: float) -> Refusal:
        # As `Retry-After` is written: in whole seconds.
        return Refusal(float(math.ceil(wait)) if self._waits else None)

    def _units(self, tokens: int) -> int:
        return tokens if self._counts_tokens else 1

    def limits(self, now: float) -> RateLimits | None:
        if not self._headers:
            return None
        left, reset = self.left(now)
        return RateLimits(round(self.rate(now) * 60), left, reset)

    def left(self, now: float) -> tuple[int, float]:
        """Units that there is room for, and the seconds until all of the limit is there again."""
        raise NotImplementedError


class Window(Limited):
    """At most rate x `seconds` units in any stretch of that length; `fixed`: in each by the clock."""

    def __init__(
        self,
        rate: float | Steps,
        seconds: float = 60.0,
        *,
        fixed: bool = False,
        waits: bool = True,
        tokens: bool = False,
        headers: bool = False,
    ) -> None:
        super().__init__(rate, waits=waits, tokens=tokens, headers=headers)
        self._seconds, self._fixed = seconds, fixed
        self._taken: deque[tuple[float, int]] = deque()
        self._used = 0

    def _expire(self, now: float) -> float:
        start = math.floor(now / self._seconds) * self._seconds if self._fixed else now - self._seconds
        while self._taken and (self._taken[0][0] < start or (not self._fixed and self._taken[0][0] <= start)):
            self._used -= self._taken.popleft()[1]
        return start

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        start, units = self._expire(now), self._units(tokens)
        excess = self._used + units - math.floor(self.rate(now) * self._seconds + 1e-9)
        if excess <= 0:
            self._taken.append((now, units))
            self._used += units
            return None
        if self._fixed:
            return self._refusal(start + self._seconds - now)
        for at, used in self._taken:
            excess -= used
            if excess <= 0:
                return self._refusal(at + self._seconds - now)
        return self._refusal(self._seconds)

    def left(self, now: float) -> tuple[int, float]:
        start = self._expire(now)
        newest = start if self._fixed else self._taken[-1][0] if self._taken else start
        left = math.floor(self.rate(now) * self._seconds + 1e-9) - self._used
        return max(0, left), newest + self._seconds - now


class Bucket(Limited):
    """Filled evenly, up to `burst` seconds of the rate."""

    def __init__(
        self, rate: float | Steps, burst: float, *, waits: bool = True, headers: bool = False
    ) -> None:
        super().__init__(rate, waits=waits, headers=headers)
        self._burst, self._at = burst, 0.0
        self._level = self.rate(0.0) * burst

    def _fill(self, now: float) -> float:
        rate = self.rate(now)
        self._level = min(max(1.0, rate * self._burst), self._level + (now - self._at) * rate)
        self._at = now
        return rate

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        rate = self._fill(now)
        if self._level < 1:
            return self._refusal((1 - self._level) / rate)
        self._level -= 1
        return None

    def left(self, now: float) -> tuple[int, float]:
        rate = self._fill(now)
        return int(self._level), self._burst - self._level / rate

    def best(self, seconds: float) -> float:
        # Who keeps to a stated limit leaves the burst alone.
        return super().best(seconds) + (0.0 if self._headers else self.rate(0.0) * self._burst)


class Slots(Server):
    """A bound on concurrent requests."""

    def __init__(self, slots: int, *, waits: bool = True) -> None:
        self.slots, self._waits = slots, waits
        self._open = 0

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        if self._open >= self.slots:
            return Refusal(1.0 if self._waits else None)
        self._open += 1
        return None

    def ended(self, now: float) -> None:
        self._open -= 1


class Around(Server):
    """Something in front of another server."""

    def __init__(self, inner: Server) -> None:
        self.inner = inner

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        return self.inner.arrive(now, tokens)

    def ended(self, now: float) -> None:
        self.inner.ended(now)

    def limits(self, now: float) -> RateLimits | None:
        return self.inner.limits(now)

    def best(self, seconds: float) -> float:
        return self.inner.best(seconds)


class Shared(Around):
    """Others use `share` of the limit `rate` (requests a second) in every other minute."""

    def __init__(self, inner: Server, rate: float, share: float = 0.5) -> None:
        super().__init__(inner)
        self._rate, self._share, self._others = rate, share, 0.0

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        step = 1 / (self._rate * self._share)
        while self._others + step <= now:
            self._others += step
            if int(self._others / 60) % 2:
                self.inner.arrive(self._others, tokens)
        return self.inner.arrive(now, tokens)

    def best(self, seconds: float) -> float:
        return sum(
            self._rate * ((1 - self._share) if second // 60 % 2 else 1) for second in range(int(seconds))
        )


class Random(Around):
    """Refuses a share of all requests, whatever their pace."""

    def __init__(self, share: float, wait: float | None, inner: Server, seed: int) -> None:
        super().__init__(inner)
        self.share, self._wait = share, wait
        self._random = random.Random(f"refusals {seed}")

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        if self._random.random() < self.share:
            return Refusal(self._wait)
        return self.inner.arrive(now, tokens)


class Outage(Around):
    """Fails everything for a time with 503."""

    def __init__(self, inner: Server, begins: float, seconds: float) -> None:
        super().__init__(inner)
        self._begins, self.seconds = begins, seconds

    def arrive(self, now: float, tokens: int) -> Refusal | None:
        if self._begins <= now < self._begins + self.seconds:
            return Refusal(None, 503)
        return self.inner.arrive(now, tokens)

    def best(self, seconds: float) -> float:
        return self.inner.best(seconds - self.seconds)
