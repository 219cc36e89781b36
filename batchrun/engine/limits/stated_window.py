"""The window of a limit that headers state without one.

`x-ratelimit-limit-requests: 10` is 10 a minute, as such headers are documented, but some servers mean 10 a
second. A minute is contradicted plainly if both hold for a response and one that comes after its `reset`:

- What was used is all there again, in less than half the time that a limit per minute takes to refill it. A
  bucket or a sliding minute can't do that.
- The next reset is less than half a minute after the former. A fixed minute can't do that.

Then the longest reset that was seen is the window. If that is too short, longer resets follow, and it grows.
Reads no clock: times are seconds, given by the caller.
"""

import math
from dataclasses import dataclass

from batchrun.engine.limits.sliding_window import MINUTE
from batchrun.exchange import RateLimits

PLAINLY = 0.5
"""Share of the time that a limit per minute would need, below which it isn't one."""
ROUNDING = 1.0
"""Seconds by which a reset may be rounded; also the shortest window."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A response: what was `used` of the limit, when that is there again, and our requests sent before it."""

    at: float
    used: int
    reset: float
    sent: int

    @property
    def ends(self) -> float:
        return self.at + self.reset


class StatedWindow:
    """`seconds` is the window of the stated limit. `sent` counts our requests.

    `_seen` is the response that the next ones are compared with. `_probes` is False once nothing was left
    after a reset: the server means something else by it.
    """

    def __init__(self) -> None:
        self.seconds = MINUTE
        self.sent = 0
        self._limit = 0
        self._seen: _Seen | None = None
        self._probes = True

    def see(self, limits: RateLimits, now: float) -> None:
        """Takes the headers of a response."""
        limit, left, reset = limits.limit_requests, limits.remaining_requests, limits.reset_requests
        if not limit or left is None or reset is None:
            return
        if not reset and left < limit:
            return  # the reset is an instant by a clock that is behind
        if limit != self._limit:
            self._limit, self._seen, self.seconds = limit, None, MINUTE
        now_seen = _Seen(now, limit - left, reset, self.sent)
        if self.seconds < MINUTE:
            self.seconds = self._window(max(self.seconds, reset))
        elif self._seen is None or now >= self._seen.ends or now_seen.used >= self._seen.used:
            before, self._seen = self._seen, now_seen
            if before is not None and self._contradicts_a_minute(before, now_seen):
                self.seconds = self._window(max(before.reset, reset))
            elif before is not None and now >= before.ends and not left and self.sent > before.sent:
                self._probes = False

    def _contradicts_a_minute(self, before: _Seen, after: _Seen) -> bool:
        is_all_there = after.used <= after.sent - before.sent
        # One less than used, since servers count in whole requests.
        refill = MINUTE * (before.used - 1) / self._limit
        is_plain = before.reset + ROUNDING < PLAINLY * refill
        was_soon = before.ends <= after.at < before.at + PLAINLY * refill
        return is_all_there and is_plain and was_soon and after.ends - before.ends < PLAINLY * MINUTE

    @staticmethod
    def _window(reset: float) -> float:
        return min(MINUTE, max(ROUNDING, math.ceil(reset)))

    def probe_in(self, now: float, delay: float) -> float:
        """Returns `delay`, or the seconds until a request may go that finds out whether a minute is meant.

        It goes when the server says that all is there again, if our own count of the minute says far later.
        """
        if self._seen is None or not self._probes or self.seconds < MINUTE or self.sent > self._seen.sent:
            return delay
        probe = self._seen.ends - now
        plain = PLAINLY * (delay + now - self._seen.at) > self._seen.reset + ROUNDING
        return max(0.0, probe) if plain and probe < delay else delay
