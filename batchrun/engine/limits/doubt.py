"""The limiter's state while it is in doubt whether a limit caused a refusal. Times are in seconds."""

import math
from dataclasses import dataclass

from batchrun.engine.limits.rate_search import BETA
from batchrun.engine.limits.refusals import Count
from batchrun.engine.limits.send_order import Sent
from batchrun.exchange import RateLimits

RECHECKED = 0.05
"""The least share of noise that may hide a limit worth the trial."""
FIRST_TRIAL = 30.0
"""Seconds until noise is tested again; twice as many after each test."""
LEAST_MEASURED, LEAST_MEASURED_BESIDE_NOISE = 5.0, 10.0
"""Minimum seconds of the recovery to a ceiling that a trial has found."""
SHARE_OF_ROOM = 0.05
"""Share of a limit that must remain to rule it out as a refusal's cause: requests in flight count too."""


MOST_IN_VAIN = 1
"""Pauses in vain at the start beyond which a refusal holds nobody back: with none, a bucket costs more."""
PROBED = 2.0
"""Seconds of a pause in which requests try whether others get through: each after twice the time."""


@dataclass(slots=True)
class DoubtfulPause:
    """All wait since `sent` was refused. The other fields are the arguments of the cut that replaces the
    pause's cut if a later request gets through, and the judge's suspicion until then.

    While no limit is known (`probes`) one request may go from `probe_at` on in spite of the pause, and if it
    is refused another one after twice the time: there may be no later one in flight.
    """

    sent: Sent
    rate: float | None
    accepted: float
    seconds: float
    since_cut: float
    suspicion: Count | None
    began: float
    probe_at: float
    probes: bool

    def is_refuted_by(self, taken: Sent) -> bool:
        """Returns whether a request that got through was sent so much later that it can't have come first."""
        return taken.at > (self.sent.at + self.began) / 2

    def is_in_vain(self, now: float, until: float) -> bool:
        """Returns whether others got through by `now`, long before the pause's end `until`."""
        return now - self.began < (until - self.began) / 2

    def refused(self, sent: Sent, now: float, *, repeats: bool) -> bool:
        """Takes a further refusal; returns whether it is that of a probe. `repeats`: another one follows."""
        if sent.at < self.began:
            return False
        waited = now - self.began
        self.probe_at = now + waited if repeats and waited < PROBED else math.inf
        sent.counts = False
        return True


@dataclass(slots=True)
class Start:
    """The start of a run. It `lasts` until a pause was as long as the server said, or a limit was found.

    `in_vain` counts the pauses that others did not need.
    """

    lasts: bool = True
    limit_found: bool = False
    in_vain: int = 0

    def find_limit(self) -> None:
        """Notes that a run of refusals or a trial pointed to a limit."""
        self.lasts, self.limit_found = False, True

    @property
    def pauses_are_in_vain(self) -> bool:
        """Returns whether a refusal holds nobody else back any more, until a limit is found."""
        return self.lasts and self.in_vain > MOST_IN_VAIN

    def goes_on(self, *, in_vain: bool, cut: bool) -> bool:
        """Takes the end of a pause; returns whether the rate grows again as if it had not been.

        `cut`: it was measured, and cut. It is not if nothing had got through before the pause.
        """
        goes_on = self.lasts and (in_vain or not cut)
        self.in_vain += in_vain
        self.lasts &= in_vain or goes_on
        return goes_on


@dataclass(frozen=True, slots=True)
class BeforeTrial:
    """The state before less was tried: the rate, the rates accepted over some seconds and over a minute, in
    requests sent per second, and the noise."""

    rate: float | None
    accepted: float
    seconds: float
    in_a_minute: float
    noise: float

    @property
    def ceiling(self) -> float:
        """Returns the rate to recover to if a limit was found.

        A rate over a few tenths of a second is sometimes far off; a minute's count is at most too old.
        """
        return max(self.accepted, BETA * min(self.in_a_minute, self.rate or math.inf))

    @property
    def measured_over(self) -> float:
        """Returns the seconds of the recovery to the ceiling."""
        return max(LEAST_MEASURED_BESIDE_NOISE if self.noise else LEAST_MEASURED, self.seconds)


@dataclass(slots=True)
class Rechecks:
    """When noise is tested again: more and more rarely. The latest trial began at `tried_at`."""

    tried_at: float = -math.inf
    wait: float = FIRST_TRIAL

    def is_due(self, now: float, noise: float) -> bool:
        """Returns whether noise of that share is to be tested now, and waits longer for the next time."""
        if noise < RECHECKED or now - self.tried_at < self.wait:
            return False
        self.wait *= 2
        return True


def shows_room(limits: RateLimits | None) -> bool:
    """Returns whether a refusal's headers rule the limits out as its cause."""
    if limits is None or limits.remaining_requests is None:
        return False
    few = SHARE_OF_ROOM * (limits.limit_requests or 0)
    return limits.remaining_requests > few and limits.remaining_tokens != 0
