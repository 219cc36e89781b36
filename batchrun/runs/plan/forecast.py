"""Forecasts an evaluation under the budget: by a pilot of scored rows, else at the widest interval."""

from typing import TYPE_CHECKING, Any

import numpy as np

from batchrun.amounts import usd_text
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.monitor import PILOT_ROWS
from batchrun.evaluation.report import score_name
from batchrun.evaluation.statistics.forecast import Forecast, forecast, forecast_text, widest_half_width
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset
from batchrun.rows.metrics import Metric

if TYPE_CHECKING:
    from batchrun.evaluation.sample import Sample, SampleTally


def outlook(
    dataset: Dataset, tally: "SampleTally", left: int | None, per_row: float | None, worst_per_row: float
) -> dict[str, Any]:
    """Returns the outlook of an evaluation as JSON-able values.

    `left` is what the caps in USD leave (None: there is none), `per_row` the expected cost of a row without
    a pilot (None: unknown), both in nano-USD.
    """
    frame, metric = tally.frame, tally.metric
    sample = tally.sample() if asks_in_random_order(dataset.job) else None
    scored = 0 if sample is None else int(np.isfinite(sample.scores).sum())
    values: dict[str, Any] = {
        "score": score_name(metric),
        "population": frame.population,
        "scored": scored,
        "pilot": False,
        "forecast": None,
    }
    if sample is None:
        return values | {"text": 'with output.order = "input" the rows sent so far are not a random sample'}
    if left is None:
        return values | {"text": f"no cap in USD: all {frame.population:,} rows with an expected answer"}
    # The others are paid from the same budget.
    left = left * frame.population // max(frame.order.size, 1)
    if scored >= PILOT_ROWS:
        bought = _by_pilot(sample, frame, metric, left, worst_per_row, dataset)
        return values | {"pilot": True, **_told(bought, dataset, score_name(metric))}
    if not per_row:
        return values | {"text": f"not known before {PILOT_ROWS} rows have a score: --sample {PILOT_ROWS}"}
    evaluation = dataset.job.evaluation
    clustered = evaluation is not None and evaluation.cluster is not None
    bought = at_the_widest(sample.scores.size, frame, left, per_row, clustered=clustered)
    told = _told(bought, dataset, score_name(metric))
    if bought.half_width is not None and bought.rows < bought.of:
        told["text"] += f" at the widest; {PILOT_ROWS} scored rows tell more: --sample {PILOT_ROWS}"
    return values | told


def _by_pilot(
    sample: "Sample",
    frame: SamplingFrame,
    metric: Metric,
    left: int,
    worst_per_row: float,
    dataset: Dataset,
) -> Forecast:
    evaluation = dataset.job.evaluation
    clusters = sample.groups if evaluation is not None and evaluation.cluster else None
    return forecast(
        sample.scores, sample.costs, left, frame.population, metric.binary, worst_per_row, clusters
    )


def at_the_widest(
    asked: int, frame: SamplingFrame, left: int, per_row: float, *, clustered: bool
) -> Forecast:
    """Forecasts as if half of all rows scored 1, and all rows of a cluster the same; strata only narrow that.

    `asked` rows were sent, and `left` buys more at `per_row`.
    """
    population = frame.population
    rows = int(min(asked + left / per_row, population))
    units = _clusters(frame) if clustered else population
    bought = rows * units // max(population, 1)
    return Forecast(rows, population, widest_half_width(bought, units) if bought else None)


def _clusters(frame: SamplingFrame) -> int:
    """Returns the number of clusters with rows that count; a row without a cluster is one of its own."""
    codes = frame.groups.codes[frame.scorable]
    return int(np.unique(codes[codes >= 0]).size + (codes < 0).sum())


def _told(bought: Forecast, dataset: Dataset, score: str) -> dict[str, Any]:
    budget = dataset.job.budget
    only_usd = budget.usd is not None and budget.usd_per_run is None and budget.usd_per_day is None
    name = usd_text(budget.nano_usd) if only_usd and budget.nano_usd is not None else "the budget"
    return {
        "forecast": {"rows": bought.rows, "of": bought.of, "half_width": bought.half_width},
        "text": forecast_text(bought, name, score),
    }
