"""The search for an unknown rate limit: a doubling start, then CUBIC on the rate.

CUBIC is W(t) = C (t - K)^3 + W_max of RFC 9438, applied to requests per second as in botocore's adaptive
retry mode. Three things differ, since that used simulated servers better: W_max is the measured accepted rate
and not the sent one; C follows from K, so that a cut costs the same share of any rate; and a cut that comes
long after the previous one is small. Reads no clock: times are seconds, given by the caller.
"""

from dataclasses import dataclass, replace

from batchrun.engine.limits.gcra import Gcra

FIRST_RATE = 100.0
"""Requests per second, before anything is known."""
LEAST_RATE = 0.1
LEAST_MEASURED_BY, SLOW_START = 3, 1.0
"""If fewer requests came before the first 429, they measure nothing: the rate doubles from this one on."""
TICK = 0.2
"""Seconds between two looks at the rate: the start doubles it this often, at most."""
GROWTH = 2.0
"""A rate grows to this multiple of the measured rate of sending, at most."""
MEASURED_OVER = 2.0
"""Seconds over which the rate of sending is averaged."""
CATCH_UP = 0.02
"""Seconds that may be caught up after a late wake-up."""

BETA = 0.85
BETA_WHEN_STEADY = 0.95
STEADY = 10.0
"""Seconds since the last cut after which the smaller cut is enough."""
STEP = 0.1
"""Share added to the ceiling when as much time has passed above it as below it."""
PLATEAU = 20.0
"""Seconds from a cut until its ceiling is reached again; less where the ceiling was measured over less."""
PLATEAU_REQUESTS = 30
"""Minimum requests from a cut to its ceiling, so that a low rate isn't probed at every second request."""

REQUESTS_AFTER_NOISE = 500
"""Requests of the plateau for a rate that was found not to be the cause of refusals and grows again."""
SHORTEST_AFTER_NOISE = 5.0
"""Seconds."""


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
    """Returns the recovery that follows a 429.

    `rate` is the current one, None without a bound; `accepted` the rate that the server accepted, measured
    over `seconds`; `since_cut` is the time since the rate was last lowered. Sending resumes at `begins`.
    """
    ceiling = max(LEAST_RATE, accepted)
    beta = BETA_WHEN_STEADY if since_cut >= STEADY else BETA
    start = beta * min(ceiling, rate or ceiling)
    plateau = max(min(PLATEAU, seconds), PLATEAU_REQUESTS / ceiling)
    return Recovery(ceiling, 1 - start / ceiling, plateau, begins)


class RateSearch:
    """`rate` is the current rate in requests per second, None without a bound.

    `epoch` counts its cuts: a refusal from an earlier epoch says nothing about the current rate.
    Without a `_recovery` the rate doubles; with one it follows it; `_fixed`, for a trial, it stays.
    """

    def __init__(self, rate: float | None = FIRST_RATE) -> None:
        self.rate = rate
        self.epoch = 0
        self._pace = Gcra(1 / rate if rate else 0.0, CATCH_UP)
        self._recovery: Recovery | None = None
        self._aside: Recovery | None = None
        self._looked_at: float | None = None
        self._sent = 0
        self._send_rate = 0.0
        self._held = False
        self._fixed = False

    @property
    def is_below_ceiling(self) -> bool:
        """Returns whether the rate is still below the rate accepted at the last cut."""
        return self._recovery is not None and self.rate is not None and self.rate < self._recovery.ceiling

    @property
    def ceiling(self) -> float:
        """Returns the rate accepted at the last cut, in requests per second; 0 before the first."""
        return 0.0 if self._recovery is None else self._recovery.ceiling

    def delay(self, now: float) -> float:
        """Returns the seconds until the next request may go; 0 or less: now."""
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
        """Lowers the rate below the accepted rate. Takes the arguments of `recovery`."""
        self.epoch += 1
        self._fixed = False
        self._recovery = recovery(self.rate, accepted, seconds, since_cut, begins)
        self._set(self._recovery.rate(begins))

    def cut_less(
        self, rate: float | None, accepted: float, seconds: float, since_cut: float, now: float
    ) -> None:
        """Replaces the last cut by another one, of `rate`."""
        self._recovery = recovery(rate, accepted, seconds, since_cut, now)
        self._set(self._recovery.rate(now))

    def fix(self, rate: float) -> None:
        """Sends at `rate`, which doesn't grow until `restore` or a cut."""
        self.epoch += 1
        self._fixed = True
        self._set(max(LEAST_RATE, rate))

    def restore(self, rate: float | None, ceiling: float | None, now: float) -> None:
        """Continues at `rate`: in recovery from `ceiling` if there is one, else as at the start."""
        self.epoch += 1
        self._fixed = False
        if ceiling is None:
            self._recovery = None
        else:
            plateau = max(SHORTEST_AFTER_NOISE, min(PLATEAU, REQUESTS_AFTER_NOISE / max(LEAST_RATE, ceiling)))
            self._recovery = Recovery(ceiling, 0.0, plateau, now - plateau)
        if rate is None:
            self.rate = None
            return
        if rate > (self.rate or 0.0):
            # Else the next request waits a low rate's time, and the rate accepted meanwhile looks low.
            self._pace = self._pace.at_interval(1 / rate, now)
        self._set(rate)

    def start_slowly(self, now: float) -> bool:
        """Doubles from a low rate: nothing was measured that it could recover to. False without a rate."""
        if self.rate is not None:
            self.restore(SLOW_START, None, now)
        return self.rate is not None

    def set_aside(self, rate: float | None, now: float) -> None:
        """Begins again at `rate`, or the present one, until `resume`: something else may be the limit."""
        self._aside = self._recovery
        self.restore(rate or self.rate, None, now)

    def resume(self, begins: float) -> bool:
        """Continues the recovery that was set aside, from its start; False if there was none."""
        if self._aside is None:
            return False
        self.epoch += 1
        self._fixed = False
        self._recovery = replace(self._aside, begins=begins)
        self._set(self._recovery.rate(begins))
        return True

    def new_epoch(self) -> None:
        """Keeps the rate; requests already in flight can't lower it any more."""
        self.epoch += 1

    def release(self) -> None:
        """Ends the search: the limit is known from another source."""
        self.epoch += 1
        self.rate = self._recovery = None
        self._fixed = False

    def hold(self) -> None:
        """Stops growth until the next adjustment: the server has trouble."""
        self._held = True

    def _set(self, rate: float) -> None:
        self.rate = max(LEAST_RATE, rate)
        self._pace.interval = 1 / self.rate

    def _look(self, now: float) -> None:
        if self._looked_at is None:
            self._looked_at = now
        elapsed = now - self._looked_at
        if elapsed < TICK:
            return
        sent, held = self._sent / elapsed, self._held
        self._send_rate += min(1.0, elapsed / MEASURED_OVER) * (sent - self._send_rate)
        self._looked_at, self._sent, self._held = now, 0, False
        if self.rate is None or self._fixed:
            return
        if self._recovery is None:
            grown = self.rate if held else GROWTH * sent
        elif held:
            self._recovery = self._recovery.postponed(elapsed)
            return
        else:
            # Plus one request per second, since a slow rate is measured in whole requests.
            grown = min(self._recovery.rate(now), GROWTH * max(sent, self._send_rate) + 1)
        if grown > self.rate:
            self._set(grown)
