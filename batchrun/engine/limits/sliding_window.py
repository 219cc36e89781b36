"""The requests of the last minute: a sliding window in constant memory. Callers give times, in seconds."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MINUTE = 60.0
WINDOW = MINUTE + 0.1
"""Requests sent in 60 seconds can arrive within fewer: the margin covers such shifts."""
BUCKET = 0.1
"""Requests sent within this time leave the window together, when the last of them does."""


@dataclass(slots=True)
class Bucket:
    """Requests sent within `BUCKET` seconds of `opened`, the latest at `last`.

    `tokens` were used by ended requests, `open_tokens` is the worst case of the `open_requests` others.
    """

    opened: float
    last: float
    requests: int = 0
    tokens: int = 0
    open_tokens: int = 0
    open_requests: int = 0
    in_window: bool = True


class SendLog:
    """Sums over the requests of the last `WINDOW` seconds, without refused ones."""

    def __init__(self) -> None:
        self._buckets: deque[Bucket] = deque()
        self._begins_anew = False
        self.requests = 0
        self.tokens = 0
        self.open_tokens = 0
        self.open_requests = 0

    def expire(self, now: float) -> None:
        """Removes requests that have left the window. The sums are as of the latest call."""
        while self._buckets and self._buckets[0].last <= now - WINDOW:
            gone = self._buckets.popleft()
            gone.in_window = False
            self.requests -= gone.requests
            self.tokens -= gone.tokens
            self.open_tokens -= gone.open_tokens
            self.open_requests -= gone.open_requests

    def add(self, now: float, worst_tokens: int) -> Bucket:
        """Counts a request that is sent now; the bucket is needed to count its end."""
        if self._begins_anew or not self._buckets or now - self._buckets[-1].opened >= BUCKET:
            self.expire(now)
            self._buckets.append(Bucket(now, now))
            self._begins_anew = False
        bucket = self._buckets[-1]
        bucket.last = now
        self._count(bucket, 1, 0, worst_tokens, 1)
        return bucket

    def begin_period(self) -> None:
        """Separates requests sent so far from later ones, so that `sent_since` can tell them apart."""
        self._begins_anew = True

    def settle(self, bucket: Bucket, worst_tokens: int, used_tokens: int) -> None:
        """Replaces a request's worst case by its use."""
        self._count(bucket, 0, used_tokens, -worst_tokens, -1)

    def remove(self, bucket: Bucket, worst_tokens: int) -> None:
        """Removes a refused request: servers don't count it."""
        self._count(bucket, -1, 0, -worst_tokens, -1)

    def _count(
        self, bucket: Bucket, requests: int, tokens: int, open_tokens: int, open_requests: int
    ) -> None:
        bucket.requests += requests
        bucket.tokens += tokens
        bucket.open_tokens += open_tokens
        bucket.open_requests += open_requests
        if bucket.in_window:
            self.requests += requests
            self.tokens += tokens
            self.open_tokens += open_tokens
            self.open_requests += open_requests

    def sent_since(self, instant: float) -> int:
        """Counts requests sent after `instant` and not refused, as far back as the window reaches."""
        count = 0
        for bucket in reversed(self._buckets):
            if bucket.last <= instant:
                break
            count += bucket.requests
        return count

    def delay(self, now: float, excess: float, units: Callable[[Bucket], float]) -> float:
        """Returns the seconds until the window has lost `excess` units, or all of them; 0 without excess."""
        if excess <= 0 or not self._buckets:
            return 0.0
        for bucket in self._buckets:
            excess -= units(bucket)
            if excess <= 0:
                break
        return bucket.last + WINDOW - now
