"""The pace of sending: a generic cell rate algorithm (GCRA) for requests and one for tokens.

Times are seconds on any one monotonic clock, given by the caller: nothing here sleeps or reads one.
GCRA in its virtual-scheduling form (ITU-T I.371): a request is let go when the theoretical arrival
time isn't more than the burst tolerance ahead of now, and moves that time on by its own share.
"""

from dataclasses import dataclass

SECONDS_PER_MINUTE = 60.0
USABLE_SHARE = 0.995
"""Of a given limit: the rest covers what clocks and networks shift from one minute to the next."""
BURST_SHARE = 0.004
"""Of a minute's limit: what may be caught up at once after a late wake-up. With USABLE_SHARE, any
60 seconds hold at most the limit."""


@dataclass(slots=True)
class Gcra:
    """One limit. `interval` is seconds per unit, `tolerance` seconds that may be caught up."""

    interval: float
    tolerance: float
    arrival: float = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until the next unit may go; 0 or less: now."""
        return self.arrival - self.tolerance - now

    def admit(self, now: float, units: int) -> None:
        self.arrival = max(self.arrival, now) + units * self.interval

    def correct(self, units: int) -> None:
        """Gives back (or, negative, takes) units that the estimate had wrong."""
        self.arrival -= units * self.interval


def per_minute(limit: float) -> Gcra:
    usable = limit * USABLE_SHARE
    interval = SECONDS_PER_MINUTE / usable
    return Gcra(interval, int(limit * BURST_SHARE) * interval)


class Limiter:
    """Decides when the next request may go. The caller asks for its first in line."""

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self._requests = per_minute(requests_per_minute) if requests_per_minute else None
        self._tokens = per_minute(tokens_per_minute) if tokens_per_minute else None
        self._paused_until = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until the next request may go; 0 or less: now."""
        delay = self._paused_until - now
        if self._requests is not None:
            delay = max(delay, self._requests.delay(now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(now))
        return delay

    def admit(self, now: float, tokens: int) -> None:
        """Counts a request that goes now, with an estimate of its tokens."""
        if self._requests is not None:
            self._requests.admit(now, 1)
        if self._tokens is not None:
            self._tokens.admit(now, tokens)

    def correct(self, estimated_tokens: int, used_tokens: int) -> None:
        """Puts an estimate right, once the answer says what was used."""
        if self._tokens is not None:
            self._tokens.correct(estimated_tokens - used_tokens)

    def pause(self, until: float) -> None:
        """Holds everything back, as a 429 asked for. A burst of them makes one pause."""
        self._paused_until = max(self._paused_until, until)
