"""What share of their worst case requests use: learned from the answers, to estimate those that are out."""

from math import sqrt

MEMORY = 100
"""Answers that the estimate rests on; older ones fade."""
ENOUGH = 20
"""Answers before the estimate is trusted to bound anything."""
DEVIATIONS = 4.0
"""Standard deviations above the mean that a bound allows for."""


class TokenShare:
    """Mean and variance of used / worst case, exponentially weighted over the latest answers."""

    def __init__(self) -> None:
        self._answers = 0
        self.mean = 1.0
        self._variance = 0.0

    def learn(self, worst_tokens: int, used_tokens: int) -> None:
        share = used_tokens / worst_tokens if worst_tokens else 1.0
        self._answers += 1
        weight = 1 / min(self._answers, MEMORY)
        deviation = share - self.mean
        self.mean += weight * deviation
        self._variance = (1 - weight) * (self._variance + weight * deviation * deviation)

    def bound(self, worst_tokens: int, squares: int) -> float:
        """Tokens that open requests will hardly pass, given the sum of their worst cases and of its squares.

        mean * sum + 4 * sqrt(variance * (squares + sum^2 / n)): the spread of the requests, and what n
        answers leave unknown about the mean. The worst case, where that is less or the answers are few.
        """
        if self._answers < ENOUGH:
            return worst_tokens
        unknown = worst_tokens * worst_tokens / min(self._answers, MEMORY)
        likely = self.mean * worst_tokens + DEVIATIONS * sqrt(self._variance * (squares + unknown))
        return min(likely, worst_tokens)
