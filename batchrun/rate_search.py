"""The search for a rate that nobody has named: a doubling start, then CUBIC on the rate.

CUBIC is W(t) = C (t - K)^3 + W_max of RFC 9438, put to requests per second as botocore's adaptive retry mode
does. Three things are different, since a simulation lost less with them: W_max is what the server was measured
to accept, not what was sent; C is chosen so that the plateau comes K seconds after a cut, whatever the rate; and a
cut that rests on a long measurement is small. No clock: times are seconds, given by the caller.
"""

from dataclasses import dataclass

from batchrun.gcra import Gcra

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
BETA_WHEN_MEASURED = 0.95
MEASURED_WELL = 10.0
"""Seconds of evidence from which the smaller cut is enough."""
PLATEAU = 20.0
"""Seconds from a cut until its ceiling is tried again, at most; the evidence's length, where that is shorter."""
PLATEAU_REQUESTS = 30
"""Requests that a cut must pay for at least, so that a low rate isn't probed at each second request."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the server accepted of late: `rate` in requests per second, measured over `seconds`."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """The way back to `ceiling` (requests per second) from a cut to `beta` times it, and beyond."""

    ceiling: float
    beta: float
    plateau: float
    begins: float

    def rate(self, now: float) -> float:
        """ceiling (1 + (1 - beta) ((t - K) / K)^3), t seconds after the beginning, K the plateau's time."""
        progress = max(0.0, now - self.begins) / self.plateau - 1
        return self.ceiling * (1 + (1 - self.beta) * progress**3)

    def postponed(self, seconds: float) -> "Recovery":
        return Recovery(self.ceiling, self.beta, self.plateau, self.begins + seconds)


def recovery_from(accepted: Accepted, begins: float) -> Recovery:
    """What a 429 leads to, given what was accepted before it. `begins`: when sending goes on."""
    ceiling = max(LEAST_RATE, accepted.rate)
    beta = BETA_WHEN_MEASURED if accepted.seconds >= MEASURED_WELL else BETA
    plateau = max(min(PLATEAU, accepted.seconds), PLATEAU_REQUESTS / ceiling)
    return Recovery(ceiling, beta, plateau, begins)


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

    def cut(self, accepted: Accepted, resumes: float) -> None:
        """Lowers the rate below what was accepted; sending goes on at `resumes`."""
        self.epoch += 1
        self._recovery = recovery_from(accepted, resumes)
        self._set(self._recovery.rate(resumes))

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
