"""Estimates the tokens that requests in flight will use: learned from responses and worst cases."""

from math import sqrt

MEMORY = 1_000
"""Responses that the estimate is based on; older ones fade."""
ENOUGH = 20
"""Responses before the estimate may bound anything."""
DEVIATIONS = 4.0
"""Standard deviations above the expectation that a bound allows for."""


class TokenEstimate:
    """used = share * worst case + residual: the ratio estimator, with exponentially fading weights."""

    def __init__(self) -> None:
        self._answers = 0
        self._used = 0.0
        self._worst = 0.0
        self._variance = 0.0

    @property
    def share(self) -> float:
        """Returns the share of their worst case that requests use; 1 before the first response."""
        return self._used / self._worst if self._used and self._worst else 1.0

    def learn(self, worst_tokens: int, used_tokens: int) -> None:
        """Takes one response into account."""
        residual = used_tokens - self.share * worst_tokens if self._answers else 0.0
        if self._answers < MEMORY:
            self._answers += 1
        weight = 1 / self._answers
        self._used += weight * (used_tokens - self._used)
        self._worst += weight * (worst_tokens - self._worst)
        self._variance += weight * (residual * residual - self._variance)

    def bound(self, requests: int, worst_tokens: int) -> float:
        """Returns a bound that open requests will hardly exceed, from their number and summed worst cases.

        share * worst + 4 sd sqrt(requests + requests^2 / n): their own spread, and the uncertainty that n
        responses leave about the share. The worst case, if that is less or the responses are few.
        """
        if self._answers < ENOUGH:
            return worst_tokens
        unknown = requests * requests / self._answers
        likely = self.share * worst_tokens + DEVIATIONS * sqrt(self._variance * (requests + unknown))
        return min(likely, max(1.0, self.share) * worst_tokens)
