"""How an evaluation's estimate has narrowed, and what more money would buy."""

import numpy as np

from batchrun.amounts import NANO
from batchrun.evaluation.early_stopping import StoppingRule
from batchrun.evaluation.frame import evaluation_of
from batchrun.evaluation.report import fixed_estimate, score_name
from batchrun.evaluation.sample import Sample, SampleTally
from batchrun.evaluation.statistics.forecast import forecast
from batchrun.evaluation.statistics.intervals import Estimate
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset

MOST_POINTS = 60
LEAST_ROWS = 5
USD = 1


def narrowing(dataset: Dataset, tally: SampleTally) -> list[dict[str, float]] | None:
    """Returns the estimate and its 95 % interval after more and more rows, in sending order.

    With early stopping they are those of the confidence sequence. None for rows in the input's order, which
    are no sample.
    """
    sample, evaluation = tally.sample(), evaluation_of(dataset)
    if not asks_in_random_order(dataset.job) or sample.scores.size < LEAST_ROWS:
        return None
    counts = np.unique(np.geomspace(LEAST_ROWS, sample.scores.size, MOST_POINTS).astype(int)).tolist()
    if evaluation.stop is None:
        found = [
            (n, fixed_estimate(evaluation, tally.frame, _first(sample, n), tally.metric)) for n in counts
        ]
    else:
        found = _of_sequence(dataset, tally, sample, set(counts))
    return [_point(n, estimate) for n, estimate in found if estimate is not None]


def further_dollar(dataset: Dataset, tally: SampleTally) -> str | None:
    """Returns what a further dollar buys, in a sentence; None if nothing is left to send or to learn from."""
    sample, population = tally.sample(), tally.frame.population
    sent = sample.scores.size
    if not asks_in_random_order(dataset.job) or not 0 < sent < population or not sample.costs.sum():
        return None
    clusters = sample.groups if evaluation_of(dataset).cluster else None
    bought = forecast(
        sample.scores, sample.costs, USD * NANO, population, tally.metric.binary, clusters=clusters
    )
    score, half = score_name(tally.metric), bought.half_width
    rows = f"{bought.rows - sent:,} rows more, {bought.rows:,} of {bought.of:,} in all"
    return f"A further {USD} USD buys about {rows}" + ("" if half is None else f": {score} ± {half:.3f}")


def _first(sample: Sample, n: int) -> Sample:
    return Sample(
        sample.indexes[:n], sample.scores[:n], sample.costs[:n], sample.groups[:n], sample.pairs[:n], {}
    )


def _of_sequence(
    dataset: Dataset, tally: SampleTally, sample: Sample, counts: set[int]
) -> list[tuple[int, Estimate | None]]:
    rule = StoppingRule(tally.frame, evaluation_of(dataset), tally.metric.binary)
    found = []
    for number, score in enumerate(sample.scores.tolist(), start=1):
        rule.add(None if np.isnan(score) else score)
        if number in counts:
            found.append((number, rule.sequence.estimate()))
    return found


def _point(rows: int, estimate: Estimate) -> dict[str, float]:
    return {"rows": rows, "estimate": estimate.value, "low": estimate.low, "high": estimate.high}
