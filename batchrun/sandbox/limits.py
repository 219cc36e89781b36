"""Requests and tokens per minute, counted over a sliding window that is exact, of any length."""

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

MINUTE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """One key's limits per minute; None where there is no limit."""

    rpm: int | None = None
    tpm: int | None = None

    @property
    def are_set(self) -> bool:
        return self.rpm is not None or self.tpm is not None

    def share_of(self, seconds: float) -> "Limits":
        """Returns the limits' share for that part of a minute, rounded down, at least 1."""
        return Limits(_share(self.rpm, seconds), _share(self.tpm, seconds))


def _share(per_minute: int | None, seconds: float) -> int | None:
    return None if per_minute is None else max(1, int(per_minute * seconds / MINUTE))


class UsageWindow:
    """The requests that one key was granted in the last `seconds`. Times: seconds of one steady clock.

    `limits` are those per minute; what is granted stays within their share of the window.
    """

    __slots__ = ("_granted", "_seconds", "_tokens")

    def __init__(self, seconds: float = MINUTE) -> None:
        self._seconds = seconds
        self._granted: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def grant(self, now: float, tokens: int) -> None:
        """Counts a request of `tokens` tokens from `now` on."""
        self._granted.append((now, tokens))
        self._tokens += tokens

    def used(self, now: float) -> tuple[int, int]:
        """(requests, tokens) granted in the window up to `now`."""
        while self._granted and self._granted[0][0] <= now - self._seconds:
            self._tokens -= self._granted.popleft()[1]
        return len(self._granted), self._tokens

    def wait(self, limits: Limits, now: float, tokens: int) -> float:
        """Seconds until a request of `tokens` tokens fits into both limits; 0 if it does now.

        Only for `tokens` that fit into an empty window.
        """
        limits = limits.share_of(self._seconds)
        requests_used, tokens_used = self.used(now)
        excess_requests = 0 if limits.rpm is None else requests_used + 1 - limits.rpm
        excess_tokens = 0 if limits.tpm is None else tokens_used + tokens - limits.tpm
        if excess_requests <= 0 and excess_tokens <= 0:
            return 0.0
        for granted_at, granted_tokens in self._granted:
            excess_requests -= 1
            excess_tokens -= granted_tokens
            if excess_requests <= 0 and excess_tokens <= 0:
                return min(self._seconds, granted_at + self._seconds - now)
        return self._seconds

    def most_tokens(self, limits: Limits) -> int | None:
        """The tokens that an empty window has room for; None where there is no limit."""
        return limits.share_of(self._seconds).tpm

    def left(self, limits: Limits, now: float) -> Limits:
        """Returns what remains within the limits in the window up to `now`."""
        share = limits.share_of(self._seconds)
        requests_used, tokens_used = self.used(now)
        return Limits(
            None if share.rpm is None else max(0, share.rpm - requests_used),
            None if share.tpm is None else max(0, share.tpm - tokens_used),
        )

    def seconds_to_empty(self, now: float) -> float:
        """Seconds until nothing in the window counts any more."""
        return max(0.0, self._granted[-1][0] + self._seconds - now) if self._granted else 0.0


def limit_headers(
    window: UsageWindow, limits: Limits, now: float, wall_time: float
) -> list[tuple[bytes, bytes]]:
    """The x-ratelimit headers for the limits that are set. `wall_time`: the instant `now` in Unix seconds."""
    left = window.left(limits, now)
    headers = []
    if limits.rpm is not None and left.rpm is not None:
        reset = datetime.fromtimestamp(math.ceil(wall_time + window.seconds_to_empty(now)), UTC)
        headers += [
            _header("limit-requests", limits.rpm),
            _header("remaining-requests", left.rpm),
            (b"x-ratelimit-reset-requests", reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
        ]
    if limits.tpm is not None and left.tpm is not None:
        headers += [
            _header("limit-tokens", limits.tpm),
            _header("remaining-tokens", left.tpm),
        ]
    return headers


def _header(name: str, value: int) -> tuple[bytes, bytes]:
    return f"x-ratelimit-{name}".encode(), b"%d" % value
