"""Draws which arriving requests fail, and how."""

import random
from collections.abc import Mapping

from batchrun.sandbox.errors import SettingsError

RATE_LIMITED = "429"
RATE_LIMITED_AT_RANDOM = "429-random"
SERVER_ERROR = "500"
OVERLOADED = "529"
FORBIDDEN = "403"
NO_CREDIT = "400-credit"
NO_RETRY = "503-no-retry"
ERROR_IN_ANSWER = "200-error"
RESET_BEFORE = "reset-before"
RESET_AFTER = "reset-after"
TRUNCATED = "truncated"
HTML = "html"
SLOW_HEADERS = "slow-headers"
HANG = "hang"
STREAM_ERROR = "stream-error"

UNBILLED_KINDS = (
    RATE_LIMITED,
    RATE_LIMITED_AT_RANDOM,
    SERVER_ERROR,
    OVERLOADED,
    FORBIDDEN,
    NO_CREDIT,
    NO_RETRY,
    ERROR_IN_ANSWER,
    RESET_BEFORE,
    HTML,
)
"""These strike before the body is looked at: nothing is generated, nothing is charged."""

BILLED_KINDS = (RESET_AFTER, TRUNCATED, SLOW_HEADERS, HANG, STREAM_ERROR)
"""These strike on the way back: the answer was generated and charged."""

KINDS = UNBILLED_KINDS + BILLED_KINDS


def checked_shares(shares: Mapping[str, object]) -> dict[str, float]:
    """The shares by kind, as they came; SettingsError unless all kinds are known and the sum is at most 1."""
    checked: dict[str, float] = {}
    for kind, share in shares.items():
        if kind not in KINDS:
            raise SettingsError(f"unknown fault kind {kind!r}; the kinds are {', '.join(KINDS)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise SettingsError(f"the share of fault {kind} must be a number from 0 to 1, not {share!r}")
        checked[kind] = float(share)
    if sum(checked.values()) > 1 + 1e-9:
        raise SettingsError(
            f"the shares of all faults together must be at most 1, not {sum(checked.values()):g}"
        )
    return checked


class FaultDraw:
    """One draw for each arrival, from a seeded generator: the same arrivals meet the same faults."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        self._random = random.Random(f"faults {seed}")  # noqa: S311 - repeatable on purpose
        self.shares = dict(shares)

    def draw(self) -> str | None:
        """The kind of fault that the next arrival meets, None for most."""
        if not self.shares:
            return None
        point = self._random.random()
        for kind, share in self.shares.items():
            point -= share
            if point < 0:
                return kind
        return None
