"""Tells the observer what the next request waits for: when the cause changes, or the time."""

from batchrun.engine.failures import FailureJudge
from batchrun.exchange import Hold, Waiting
from batchrun.rows.observer import Observer

TOLD_AGAIN = 0.5
"""Seconds by which the end of the waiting has to change to be told again: a display shows whole seconds."""


class WaitingReports:
    """`outage_seconds`: an endpoint that fails everything for so long ends the run."""

    def __init__(self, observer: Observer, failures: FailureJudge, outage_seconds: float) -> None:
        self._observer = observer
        self._failures = failures
        self._outage_seconds = outage_seconds
        self._cap: str | None = None
        self._waiting: Waiting | None = None

    def blocked(self, cap: str | None) -> None:
        """Tells the cap that the next request waits for; None: none."""
        if cap != self._cap:
            self._cap = cap
            self._observer.blocked(cap)

    def held(self, by: Hold | None, now: float, seconds: float = 0.0) -> None:
        """Tells that the next request waits for `seconds` more; `by` None: it doesn't."""
        told, until = self._waiting, now + seconds
        if by is None:
            waiting = None
        elif told is not None and told.by == by and not abs(until - told.until) >= TOLD_AGAIN:
            return  # also if both are infinite
        else:
            waiting = Waiting(by, until, self._gives_up_at(now))
        if waiting != told:
            self._waiting = waiting
            self._observer.throttled(waiting)

    def _gives_up_at(self, now: float) -> float | None:
        outage = self._failures.outage(now)
        return now + self._outage_seconds - outage if outage else None
