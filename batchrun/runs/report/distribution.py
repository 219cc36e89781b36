"""The distribution of a quantity over any number of rows, in bounded memory."""

import math
from bisect import bisect_right
from collections import Counter

_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5)
EDGES = (0.0, *(step * 10**power for power in range(-3, 9) for step in _STEPS))
"""The bounds of the bars: seven in a power of ten."""
_PRECISION = 1.01
"""Quantiles are exact to one per cent."""


class Distribution:
    """Counts values from 0 on: exactly between `EDGES`, and to one per cent for quantiles."""

    def __init__(self) -> None:
        self.number = 0
        self.total = 0.0
        self._by_edge: Counter[int] = Counter()
        self._fine: Counter[int] = Counter()

    def add(self, value: float) -> None:
        self.number += 1
        self.total += value
        self._by_edge[bisect_right(EDGES, value) - 1] += 1
        self._fine[_place(value)] += 1

    def bars(self) -> list[tuple[float, float, int]]:
        """Returns (from, below, number of values), from the first interval with a value to the last."""
        places = range(min(self._by_edge, default=0), max(self._by_edge, default=-1) + 1)
        ends = (*EDGES[1:], math.inf)
        return [(EDGES[place], ends[place], self._by_edge[place]) for place in places]

    def quantile(self, share: float) -> float | None:
        """Returns the value that `share` of the values don't exceed; None without values."""
        left = math.ceil(share * self.number)
        for place in sorted(self._fine):
            left -= self._fine[place]
            if left <= 0:
                return 0.0 if place == _ZERO else _PRECISION ** (place + 0.5)
        return None


_ZERO = -10_000


def _place(value: float) -> int:
    return _ZERO if value <= 0 else math.floor(math.log(value) / math.log(_PRECISION))
