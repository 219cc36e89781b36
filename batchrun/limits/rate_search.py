"""The search for a rate that nobody has named: a doubling start, then CUBIC on the rate.

CUBIC is W(t) = C (t - K)^3 + W_max of RFC 9438, put to requests per second as botocore's adaptive retry mode
does. Three things differ, since simulated servers were used better so: W_max is what the server was measured
to accept and not what was sent; C follows from K, so that a cut costs the same share of any rate; and a cut
that comes long after the one before is small. No clock: times are seconds, given by the caller.
"""

from dataclasses import dataclass, replace

from batchrun.limits.gcra import Gcra

FIRST_RATE = 100.0
"""Requests per second, before anything is known."""
LEAST_RATE = 0.1
TICK = 0.2
"""Seconds between two looks at the rate: the start doubles it this often, at most."""
GROWTH = 2.0
"""A rate grows to this multiple of the measured rate of sending, at most."""
MEASURED_OVER = 2.0
"""Seconds over which the rate of sending is averaged."""
CATCH_UP = 0.02
"""Seconds that a late wake-up may make good."""

BETA = 0.85
BETA_WHEN_STEADY = 0.95
STEADY = 10.0
"""Seconds since the last cut from which the smaller one is enough."""
STEP = 0.1
"""What is added to the ceiling when as much time has passed above it as below it."""
PLATEAU = 20.0
"""Seconds from a cut until its ceiling is reached again; less where the ceiling was measured over less."""
PLATEAU_REQUESTS = 30
"""Requests that a cut must pay for at least, so that a low rate isn't probed at each second request."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The way from a cut back to `ceiling` (requests per second) and beyond.

    `depth` is how much of the ceiling the cut took, `plateau` the time K in seconds to the ceiling.
    """

    ceiling: float
    depth: float
    plateau: float
    begins: float

    def rate(self, now: float) -> float:
        """Below the ceiling: ceiling (1 - depth (1 - t/K)^3). Above it: ceiling (1 + STEP (t/K - 1)^3)."""
        progress = max(0.0, now - self.begins) / self.plateau - 1
        return self.ceiling * (1 + (self.depth if progress < 0 else STEP) * progress**3)

    def postponed(self, seconds: float) -> "Recovery":
        return replace(self, begins=self.begins + seconds)


def recovery(
    rate: float | None, accepted: float, seconds: float, since_cut: float, begins: float
) -> Recovery:
    """What a 429 leads to.

    `rate` is the present one, None without a bound; `accepted` what the server took, measured over `seconds`;
    `since_cut` is the time since the rate was last lowered. Sending goes on at `begins`.
    """
    ceiling = max(LEAST_RATE, accepted)
    beta = BETA_WHEN_STEADY if since_cut >= STEADY else BETA
    start = beta * min(ceiling, rate or ceiling)
    plateau = max(min(PLATEAU, seconds), PLATEAU_REQUESTS / ceiling)
    return Recovery(ceiling, 1 - start / ceiling, plateau, begins)


class RateSearch:
    """`rate` is the present rate in requests per second, None without a bound.

    `epoch` counts its cuts: what a request of an earlier epoch meets says nothing about the present rate.
    """

    def __init__(self, rate: float | None = FIRST_RATE) -> None:
        self.rate = rate
        self.epoch = 0
        self._pace = Gcra(1 / rate if rate else 0.0, CATCH_UP)
        self._recovery: Recovery | None = None
        self._looked_at: float | None = None
        self._sent = 0
        self._send_rate = 0.0
        self._held = False

    @property
    def ceiling(self) -> float:
        """What the server took at the last cut, in requests per second; 0 before the first."""
        return 0.0 if self._recovery is None else self._recovery.ceiling

    def delay(self, now: float) -> float:
        """Seconds until the next request may go; 0 or less: now."""
        if self.rate is None:
            return 0.0
        self._look(now)
        return self._pace.delay(now)

    def admit(self, now: float) -> None:
        self._look(now)
        self._sent += 1
        if self.rate is not None:
            self._pace.admit(now, 1)

    def cut(self, accepted: float, seconds: float, since_cut: float, begins: float) -> None:
        """Lowers the rate below what was accepted. The arguments are those of `recovery`."""
        self.epoch += 1
        self._recovery = recovery(self.rate, accepted, seconds, since_cut, begins)
        self._set(self._recovery.rate(begins))

    def new_epoch(self) -> None:
        """Keeps the rate, and lets no request that is out already lower it."""
        self.epoch += 1

    def release(self) -> None:
        """Ends the search: the limit has become known otherwise."""
        self.epoch += 1
        self.rate = self._recovery = None

    def hold(self) -> None:
        """Stops growth until the next look: the server has trouble."""
        self._held = True

    def _set(self, rate: float) -> None:
        self.rate = rate
        self._pace.interval = 1 / rate

    def _look(self, now: float) -> None:
        if self._looked_at is None:
            self._looked_at = now
        elapsed = now - self._looked_at
        if elapsed < TICK:
            return
        sent, held = self._sent / elapsed, self._held
        self._send_rate += min(1.0, elapsed / MEASURED_OVER) * (sent - self._send_rate)
        self._looked_at, self._sent, self._held = now, 0, False
        if self.rate is None:
            return
        if self._recovery is None:
            grown = self.rate if held else GROWTH * sent
        elif held:
            self._recovery = self._recovery.postponed(elapsed)
            return
        else:
            # One request per second on top, since a slow rate is measured in whole requests.
            grown = min(self._recovery.rate(now), GROWTH * max(sent, self._send_rate) + 1)
        if grown > self.rate:
            self._set(grown)
