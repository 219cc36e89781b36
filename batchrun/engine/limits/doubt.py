"""The limiter's state while it is in doubt whether a limit caused a refusal. Times are in seconds."""

from dataclasses import dataclass

from batchrun.engine.limits.refusals import Count
from batchrun.engine.limits.send_order import Sent
from batchrun.exchange import RateLimits

FIRST_OWN_WAIT = 1.0
"""Seconds between two tries if all of a trial is refused and no wait is named."""
RECHECKED = 0.05
"""The least share of noise that may hide a limit worth the trial."""
SHARE_OF_ROOM = 0.05
"""Share of a limit that must remain to rule it out as a refusal's cause: requests in flight count too."""


@dataclass(slots=True)
class DoubtfulPause:
    """All wait since `sent` was refused. The other fields are the arguments of the cut that replaces the
    pause's cut if a later request gets through, and the judge's suspicion until then. In a young run
    one request may go from `probe_at` on, in spite of the pause: there may be no later one in flight."""

    sent: Sent
    rate: float | None
    accepted: float
    seconds: float
    since_cut: float
    suspicion: Count | None
    probe_at: float


@dataclass(frozen=True, slots=True)
class BeforeTrial:
    """The state before less was tried: the rate, and the rates accepted over some seconds and over a minute,
    in requests sent per second."""

    rate: float | None
    accepted: float
    seconds: float
    in_a_minute: float


def shows_room(limits: RateLimits | None) -> bool:
    """Returns whether a refusal's headers rule the limits out as its cause."""
    if limits is None or limits.remaining_requests is None:
        return False
    few = SHARE_OF_ROOM * (limits.limit_requests or 0)
    return limits.remaining_requests > few and limits.remaining_tokens != 0
