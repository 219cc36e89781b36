"""Forecasts from a pilot what a budget buys: a number of rows, and the interval's width then.

Amounts are in one unit throughout, such as nano-USD.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.statistics.intervals import (
    Codes,
    Scores,
    Z,
    cluster_spread,
    t_quantile,
    unsampled,
    wilson,
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The budget buys about `rows` of `of` rows, the pilot's included.

    The 95 % interval will then reach `half_width` to either side; None where the pilot can't tell.
    """

    rows: int
    of: int
    half_width: float | None


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over all rows, estimated from some, with its 95 % interval."""

    value: float
    low: float
    high: float


def forecast(
    scores: Scores,
    costs: npt.NDArray[np.float64],
    left: float,
    population: int,
    binary: bool,
    worst_case: float = 0.0,
    clusters: Codes | None = None,
) -> Forecast:
    """Forecasts from the scores (NaN: missing) and costs of a pilot's rows, and the budget left after it.

    `worst_case` is what a row has to reserve before it starts, since a run stops with that much left.
    `clusters` are the codes of the rows' clusters, of which the pilot needs two for a half-width. A
    stratified sample is taken for a plain one, which promises rather too little. Raises ValueError
    for an empty pilot.
    """
    if not costs.size:
        raise ValueError("a forecast needs the cost of one row at least")
    cost = float(costs.mean())
    spendable = max(left - max(worst_case - cost, 0.0), 0.0)
    more = population if cost == 0 else spendable / cost
    rows = int(min(costs.size + more, population))
    scored = int(rows * (1 - np.isnan(scores).mean())) if scores.size else 0
    return Forecast(rows, population, _half_width(scores, scored, population, binary, clusters))


def forecast_text(forecast: Forecast, budget: str, score: str) -> str:
    """One line, such as `2.00 USD buys about 1,900 of 10,000 rows: accuracy +- 1.6 points`."""
    if forecast.rows >= forecast.of:
        return f"{budget} buys all {forecast.of:,} rows"
    digits = len(str(forecast.rows))
    rows = round(forecast.rows, 2 - digits) if digits > 2 else forecast.rows
    bought = f"{budget} buys about {rows:,} of {forecast.of:,} rows"
    if forecast.half_width is None:
        return bought
    return f"{bought}: {score} +- {100 * forecast.half_width:.1f} points"


def total_of(values: npt.NDArray[np.float64], population: int, clusters: Codes | None = None) -> Total | None:
    """Estimates the sum of a quantity (cost, tokens, seconds) over all rows, from a random sample of them.

    Student's t with finite-population correction. The sum is at least the sample's own. `clusters`: the codes
    of the rows' clusters, where clusters were drawn and not rows. None for fewer than two values, or two
    clusters: they say nothing about the spread.
    """
    n = values.size
    if n < 2:
        return None
    freedom, variance = float(n - 1), float(values.var(ddof=1)) / n
    if clusters is not None:
        spread = cluster_spread(values, clusters)
        if spread.number < 2:
            return None
        freedom, variance = max(spread.effective - 1, 1), spread.variance
    value = population * float(values.mean())
    half = population * t_quantile(freedom) * sqrt(unsampled(n, population) * variance)
    return Total(value, max(value - half, float(values.sum())), value + half)


def widest_half_width(rows: int, population: int) -> float:
    """Returns the largest half-width of the 95 % interval of a mean score from 0 to 1, from `rows` rows."""
    low, high = wilson(0.5, rows, population)
    return (high - low) / 2


def _half_width(
    scores: Scores, rows: int, population: int, binary: bool, clusters: Codes | None
) -> float | None:
    known = scores[~np.isnan(scores)]
    if not known.size or rows < 2:
        return None
    if clusters is not None:
        return _half_width_of_clusters(scores, rows, population, clusters)
    if binary or known.size < 2 or np.ptp(known) == 0:
        # Wilson's centre: a pilot of fifty right answers doesn't promise a thousand of them.
        share = (float(known.sum()) + Z**2 / 2) / (known.size + Z**2)
        low, high = wilson(share, rows, population)
        return (high - low) / 2
    return t_quantile(rows - 1) * sqrt(unsampled(rows, population) * float(known.var(ddof=1)) / rows)


def _half_width_of_clusters(scores: Scores, rows: int, population: int, clusters: Codes) -> float | None:
    """The pilot's standard error, for more clusters like these."""
    scored = ~np.isnan(scores)
    pilot = cluster_spread(scores[scored], clusters[scored])
    if pilot.number < 2:
        return None
    growth = rows / int(scored.sum())
    freedom = max(pilot.effective * growth - 1, 1)
    return t_quantile(freedom) * sqrt(unsampled(rows, population) * pilot.variance / growth)
