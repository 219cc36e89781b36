"""Compares two jobs on the rows that both have sent: the difference of their scores, row by row."""

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.statistics.intervals import (
    ClusterSpread,
    Codes,
    Estimate,
    Interval,
    Scores,
    Z,
    cluster_spread,
    few_clusters,
    t_quantile,
    unsampled,
    wilson,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`difference` is the mean of A's score less B's, from -1 to 1; missing: rows that lack one of them.

    `p_value` is the probability of such a difference or a larger one, if there were none among rows like
    these at large; `test` names the test. It has no finite-population correction: if most of a data set was
    sent, the interval may exclude 0 although the p-value is large.
    A scores higher in `higher` rows, B in `lower` ones.
    """

    difference: Estimate
    p_value: float
    test: str
    higher: int
    lower: int


def compare(
    a: Scores, b: Scores, population: int | None, binary: bool, clusters: Codes | None = None
) -> Comparison | None:
    """Compares the scores of rows that both jobs sent in the same random order; NaN: missing.

    `binary` says that the scores are 0 or 1. The p-value is then McNemar's exact one, else that of the paired
    t test; with `clusters` (codes of the rows) it is that of t over clusters. None where no row has
    both scores.
    """
    differences = a - b
    scored = ~np.isnan(differences)
    known = differences[scored]
    if not known.size:
        return None
    warnings: tuple[str, ...] = ()
    higher, lower = int((known > 0).sum()), int((known < 0).sum())
    if clusters is not None:
        spread = cluster_spread(known, clusters[scored])
        found = _by_clusters(known, spread, population)
        warnings = few_clusters(spread.number)
    else:
        found = _by_signs(higher, lower, known.size, population) if binary else _by_t(known, population)
    difference = Estimate(
        value=float(known.mean()),
        low=max(found.interval[0], -1.0),
        high=min(found.interval[1], 1.0),
        n=known.size,
        of=population,
        missing=a.size - known.size,
        method=f"{found.method}, paired differences",
        bounds=_bounds(a, b),
        warnings=warnings,
    )
    return Comparison(difference, found.p_value, found.test, higher, lower)


class MeanDifference(NamedTuple):
    """The mean of A's quantity less B's, with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_difference(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    population: int | None,
    clusters: Codes | None = None,
) -> MeanDifference | None:
    """Compares a quantity, such as cost or latency, on the rows that both jobs sent; NaN: missing.

    Student's t over the differences, or over clusters. None for fewer than two rows, or two clusters.
    """
    differences = a - b
    with_both = ~np.isnan(differences)
    known = differences[with_both]
    if known.size < 2:
        return None
    freedom, variance = float(known.size - 1), float(known.var(ddof=1)) / known.size
    if clusters is not None:
        spread = cluster_spread(known, clusters[with_both])
        if spread.number < 2:
            return None
        freedom, variance = max(spread.effective - 1, 1), spread.variance
    half = t_quantile(freedom) * sqrt(unsampled(known.size, population) * variance)
    value = float(known.mean())
    return MeanDifference(value, value - half, value + half)


def mcnemar(higher: int, lower: int) -> float:
    """McNemar's exact p-value (1947), two-sided: the sign test of the rows in which the two differ."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(higher, lower), higher + lower, 0.5)))


def agresti_min(higher: int, lower: int, n: int, population: int | None = None) -> Interval:
    """95 % interval for a difference of two shares among the same `n` rows.

    Wald's, with 1/2 added to each of the four cells (Agresti and Min 2005, "Simple improved confidence
    intervals for comparing matched proportions"). As in `wilson`, a finite population counts as more rows.
    """
    if population is not None and n >= population:
        return (higher - lower) / n, (higher - lower) / n
    growth = 1.0 if population is None else (population - 1) / (population - n)
    rows = n * growth + 2
    up, down = (higher * growth + 0.5) / rows, (lower * growth + 0.5) / rows
    half = Z * sqrt((up + down - (up - down) ** 2) / rows)
    return up - down - half, up - down + half


class _Found(NamedTuple):
    interval: Interval
    p_value: float
    method: str
    test: str


def _by_signs(higher: int, lower: int, n: int, population: int | None) -> _Found:
    interval = agresti_min(higher, lower, n, population)
    return _Found(interval, mcnemar(higher, lower), "Agresti and Min", "McNemar's exact test")


def _by_t(known: Scores, population: int | None) -> _Found:
    if known.size < 2 or np.ptp(known) == 0:
        interval = _wilson_of_differences(float(known[0]), known.size, population)
        sign = mcnemar(0, known.size if known[0] else 0)
        return _Found(interval, sign, "Wilson", "sign test")
    error = sqrt(float(known.var(ddof=1)) / known.size)
    interval, p_value = _t(float(known.mean()), error, known.size - 1, unsampled(known.size, population))
    return _Found(interval, p_value, "Student's t", "paired t test")


def _by_clusters(known: Scores, spread: ClusterSpread, population: int | None) -> _Found:
    value = float(known.mean())
    if spread.number < 2:
        return _Found((-1.0, 1.0), 1.0, "none: one cluster", "none: one cluster")
    if spread.variance == 0:
        in_all = None if population is None else spread.effective * population / known.size
        interval = _wilson_of_differences(value, spread.effective, in_all)
        return _Found(
            interval, mcnemar(0, spread.number if value else 0), "Wilson over clusters", "sign test"
        )
    freedom = max(spread.effective - 1, 1)
    interval, p_value = _t(value, sqrt(spread.variance), freedom, unsampled(known.size, population))
    return _Found(interval, p_value, "Student's t over clusters", "t test over clusters")


def _t(value: float, error: float, freedom: float, correction: float) -> tuple[Interval, float]:
    """The interval with, and the two-sided p-value without the finite-population correction."""
    from scipy.special import stdtr

    half = t_quantile(freedom) * error * sqrt(correction)
    return (value - half, value + half), 2 * float(stdtr(freedom, -abs(value) / error))


def _wilson_of_differences(value: float, n: float, population: float | None) -> Interval:
    """Returns an interval for differences from -1 to 1 with this mean, if all observed ones are equal."""
    low, high = wilson((value + 1) / 2, n, population)
    return 2 * low - 1, 2 * high - 1


def _bounds(a: Scores, b: Scores) -> Interval:
    """Returns the mean differences if every missing score favoured B, and if every one favoured A."""
    least = np.nan_to_num(a, nan=0.0) - np.nan_to_num(b, nan=1.0)
    most = np.nan_to_num(a, nan=1.0) - np.nan_to_num(b, nan=0.0)
    return float(least.mean()), float(most.mean())
