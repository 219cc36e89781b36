"""Estimates the mean score of all rows from the sent rows, with its 95 % interval.

Scores are arrays of float64 from 0 to 1, in any order; NaN means that a row was sent and has no score
(failed, uncertain). Such rows are left out of estimate and interval, and counted: `bounds` says
what the estimate would be if all of them scored 0, and if all scored 1.

`population` is the number of rows that the estimate covers, including the sent ones; with None it is about
rows like these at large, without finite-population correction.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Interval = tuple[float, float]

FEW_CLUSTERS = 20
Z = 1.959963984540054
"""The standard normal's 97.5 % point."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean score from 0 to 1 with its 95 % interval from `low` to `high`, made by `method`.

    `n` rows have a score, `of` is the size of the population, `missing` rows were sent but have no score.
    `bounds` are the estimates if all missing rows scored 0, and if all scored 1.
    """

    value: float
    low: float
    high: float
    n: int
    of: int | None
    missing: int
    method: str
    bounds: Interval
    warnings: tuple[str, ...] = ()

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def estimate_rows(scores: Scores, population: int | None, binary: bool) -> Estimate | None:
    """Estimates from rows sent in random order: Wilson for scores of 0 or 1, else Student's t.

    None where no row has a score.
    """
    known = scores[~np.isnan(scores)]
    if not known.size:
        return None
    value = float(known.mean())
    if binary or known.size < 2 or np.ptp(known) == 0:
        low, high = wilson(value, known.size, population)
        return _estimate(scores, value, low, high, population, "Wilson")
    half = t_quantile(known.size - 1) * sqrt(
        unsampled(known.size, population) * known.var(ddof=1) / known.size
    )
    return _estimate(scores, value, value - half, value + half, population, "Student's t")


def estimate_clusters(scores: Scores, clusters: Codes, population: int | None) -> Estimate | None:
    """Estimates from clusters sent in random order: ratio of sums, and its jackknife standard error.

    Where the cut has left a cluster in part, its rows count as a smaller cluster: leaving them out
    would favour clusters that cost little, since those fit in under the cap. `clusters` are codes; a
    row with -1 is a cluster of its own. None where no row has a score.

    """
    scored = ~np.isnan(scores)
    known = scores[scored]
    if not known.size:
        return None
    value = float(known.mean())
    spread = cluster_spread(known, clusters[scored])
    warnings = few_clusters(spread.number)
    if spread.number < 2:
        return _estimate(scores, value, 0.0, 1.0, population, "none: one cluster", warnings)
    if spread.variance == 0:
        clusters_in_all = None if population is None else spread.effective * population / known.size
        low, high = wilson(value, spread.effective, clusters_in_all)
        return _estimate(scores, value, low, high, population, "Wilson over clusters", warnings)
    error = sqrt(unsampled(known.size, population) * spread.variance)
    half = t_quantile(max(spread.effective - 1, 1)) * error
    return _estimate(
        scores, value, value - half, value + half, population, "Student's t over clusters", warnings
    )


class ClusterSpread(NamedTuple):
    """`number` clusters, which are worth `effective` ones of one size; the variance of the mean score."""

    number: int
    effective: float
    variance: float


def cluster_spread(known: Scores, clusters: Codes) -> ClusterSpread:
    """How the mean score of these rows varies from sample to sample of clusters. `known` has no NaN.

    For C clusters of one size this is the usual variance, C / (C - 1) times the sum of squares over
    clusters, with C - 1 degrees of freedom. For unequal sizes the jackknife takes its place (CV3 in
    MacKinnon, Nielsen and Webb 2023, "Cluster-robust inference: a guide to empirical practice"),
    with the effective number of clusters for C: that of Carter, Schnepel and Steigerwald 2017
    for rows that are alike within clusters, (sum of m^2)^2 / sum of m^4 for sizes m.
    """
    sizes, sums = _cluster_sums(known, clusters)
    count = sizes.size
    if count < 2:
        return ClusterSpread(count, 1.0, 0.0)
    residuals = (sums - known.mean() * sizes) / (1 - sizes / known.size)
    variance = (count - 1) / count * float((residuals**2).sum()) / known.size**2
    return ClusterSpread(count, float((sizes**2).sum() ** 2 / (sizes**4).sum()), variance)


def estimate_strata(scores: Scores, strata: Codes, sizes: npt.NDArray[np.int64]) -> Estimate | None:
    """Estimates from rows sent at random within strata: the strata's means, weighted by their sizes.

    `strata` are codes from 0 on, `sizes` the number of rows of each stratum in the population. The
    degrees of freedom are Satterthwaite's (Cochran 1977, "Sampling Techniques", 5.16). Strata with
    fewer than two scored rows are taken together as one (collapsed strata, Cochran 5A.12). None where
    no row has a score.
    """
    scored = ~np.isnan(scores)
    known = scores[scored]
    if not known.size:
        return None
    population = int(sizes.sum())
    merged, merged_sizes, warnings = _collapsed(strata[scored], sizes)
    counts = np.bincount(merged)
    means = np.bincount(merged, known) / counts
    squares = np.bincount(merged, (known - means[merged]) ** 2)
    value = float(merged_sizes @ means / population)
    if squares.any():
        scaled = merged_sizes * (merged_sizes - counts) / counts * squares / (counts - 1)
        freedom = scaled.sum() ** 2 / max((scaled**2 / (counts - 1)).sum(), 1e-300)
        half = t_quantile(max(float(freedom), 1)) * sqrt(scaled.sum()) / population
        low, high, method = value - half, value + half, "Student's t over strata"
    else:
        (low, high), method = wilson(value, known.size, population), "Wilson"
    estimate = _estimate(scores, value, low, high, population, method, warnings)
    return (
        replace(estimate, bounds=_stratified_bounds(scores, strata, sizes)) if estimate.missing else estimate
    )


def wilson(share: float, n: float, population: float | None = None) -> Interval:
    """Wilson's 95 % score interval (1927) for a share seen among n rows.

    Among the rows of a finite population a share varies as among n (N - 1) / (N - n) rows of an
    infinite one. For the mean of scores between 0 and 1 the interval is too wide rather than too narrow.
    """
    if population is not None:
        if n >= population:
            return share, share
        n = n * (population - 1) / (population - n)
    shrink = 1 / (1 + Z**2 / n)
    middle = shrink * (share + Z**2 / (2 * n))
    half = shrink * Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # The ends 0 and 1 are exact for shares of 0 and 1; the square root misses them by a rounding error.
    low = 0.0 if share == 0 else max(middle - half, 0.0)
    high = 1.0 if share == 1 else min(middle + half, 1.0)
    return low, high


def unsampled(n: float, population: int | None) -> float:
    """Returns the share of the population that was not sent, which corrects a variance."""
    return 1.0 if population is None else max(1 - n / population, 0.0)


def t_quantile(freedom: float) -> float:
    """Returns the 97.5 % point of Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _estimate(
    scores: Scores,
    value: float,
    low: float,
    high: float,
    population: int | None,
    method: str,
    warnings: tuple[str, ...] = (),
) -> Estimate:
    missing = int(np.isnan(scores).sum())
    n = scores.size - missing
    answered = n / scores.size
    return Estimate(
        value=value,
        low=max(low, 0.0),
        high=min(high, 1.0),
        n=n,
        of=population,
        missing=missing,
        method=method,
        bounds=(value * answered, value * answered + 1 - answered),
        warnings=warnings,
    )


def _cluster_sums(known: Scores, clusters: Codes) -> tuple[Scores, Scores]:
    """The number of rows and the sum of scores of each cluster."""
    alone = clusters < 0
    _, codes = np.unique(clusters[~alone], return_inverse=True)
    single = known[alone]
    sizes = np.bincount(codes).astype(np.float64)
    return (
        np.concatenate([sizes, np.ones(single.size)]),
        np.concatenate([np.bincount(codes, known[~alone], sizes.size), single]),
    )


def _stratified_bounds(scores: Scores, strata: Codes, sizes: npt.NDArray[np.int64]) -> Interval:
    low, high = (estimate_strata(np.nan_to_num(scores, nan=filled), strata, sizes) for filled in (0.0, 1.0))
    return (low.value, high.value) if low and high else (0.0, 1.0)


def few_clusters(count: int) -> tuple[str, ...]:
    """Returns the warning for few clusters, if there are few."""
    if count >= FEW_CLUSTERS:
        return ()
    return (
        f"only {count} cluster{'s' if count > 1 else ''}: under {FEW_CLUSTERS}, the interval is a rough one",
    )


def _collapsed(strata: Codes, sizes: npt.NDArray[np.int64]) -> tuple[Codes, Scores, tuple[str, ...]]:
    """Merges strata with fewer than two rows into one, and with another stratum if necessary."""
    counts = np.bincount(strata, minlength=sizes.size)
    thin = (counts < 2) & (sizes > 0)
    number = int(thin.sum())
    if number and counts[thin].sum() < 2 and not thin.all():
        thin[np.where(thin, np.iinfo(np.int64).max, sizes).argmin()] = True
    label = np.where(thin, sizes.size, np.arange(sizes.size))
    kept, codes = np.unique(label[strata], return_inverse=True)
    merged_sizes = np.bincount(label, sizes, sizes.size + 1)[kept]
    strata_are = "a stratum" if number == 1 else f"{number} strata"
    warning = f"{strata_are} with fewer than two scored rows: taken together with others"
    return codes.astype(np.int32), merged_sizes, (warning,) if number else ()
