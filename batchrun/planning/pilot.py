"""What the budget buys of an evaluation: by a pilot of scored rows, else at the widest interval."""

from typing import TYPE_CHECKING, Any

import numpy as np

from batchrun.evaluation.forecast import Forecast, forecast, forecast_text, widest_half_width
from batchrun.evaluation.metrics import Metric
from batchrun.job import asks_in_random_order
from batchrun.sampling.frame import SamplingFrame
from batchrun.sampling.monitor import PILOT_ROWS
from batchrun.sampling.report import score_name
from batchrun.workload import Workload

if TYPE_CHECKING:
    from batchrun.sampling.sample import Sample, SampleTally


def outlook(
    workload: Workload, tally: "SampleTally", left: int | None, per_row: float | None, worst_per_row: float
) -> dict[str, Any]:
    """The outlook of an evaluation as JSON-able values.

    `left` is what the caps in USD leave (None: there is none), `per_row` the expected cost of a row without
    a pilot (None: unknown), both in nano-USD.
    """
    frame, metric = tally.frame, tally.metric
    sample = tally.sample() if asks_in_random_order(workload.job) else None
    scored = 0 if sample is None else int(np.isfinite(sample.scores).sum())
    values: dict[str, Any] = {
        "score": score_name(metric),
        "population": frame.population,
        "scored": scored,
        "pilot": False,
        "forecast": None,
    }
    if sample is None:
        return values | {"text": 'with output.order = "input" the rows asked so far are no random sample'}
    if left is None:
        return values | {"text": f"no cap in USD: all {frame.population:,} rows with an expected answer"}
    # The others are paid from the same budget.
    left = left * frame.population // max(frame.order.size, 1)
    if scored >= PILOT_ROWS:
        bought = _by_pilot(sample, frame, metric, left, worst_per_row, workload)
        return values | {"pilot": True, **_told(bought, workload, score_name(metric))}
    if not per_row:
        return values | {"text": f"not known before {PILOT_ROWS} rows have a score: --sample {PILOT_ROWS}"}
    bought = _at_the_widest(sample.scores.size, frame, left, per_row)
    told = _told(bought, workload, score_name(metric))
    if bought.half_width is not None and bought.rows < bought.of:
        told["text"] += f" at the widest; {PILOT_ROWS} scored rows tell more: --sample {PILOT_ROWS}"
    return values | told


def _by_pilot(
    sample: "Sample",
    frame: SamplingFrame,
    metric: Metric,
    left: int,
    worst_per_row: float,
    workload: Workload,
) -> Forecast:
    evaluation = workload.job.evaluation
    clusters = sample.groups if evaluation is not None and evaluation.cluster else None
    return forecast(
        sample.scores, sample.costs, left, frame.population, metric.binary, worst_per_row, clusters
    )


def _at_the_widest(asked: int, frame: SamplingFrame, left: int, per_row: float) -> Forecast:
    """As if half of all rows scored 1, and all rows of a cluster the same."""
    population = frame.population
    rows = int(min(asked + left / per_row, population))
    units = _clusters(frame) if frame.groups.codes.size else population
    bought = rows * units // max(population, 1)
    return Forecast(rows, population, widest_half_width(bought, units) if bought else None)


def _clusters(frame: SamplingFrame) -> int:
    """The number of clusters with rows that count; a row without a cluster is one of its own."""
    codes = frame.groups.codes[frame.scorable]
    return int(np.unique(codes[codes >= 0]).size + (codes < 0).sum())


def _told(bought: Forecast, workload: Workload, score: str) -> dict[str, Any]:
    budget = workload.job.budget
    only_usd = budget.usd is not None and budget.usd_per_run is None and budget.usd_per_day is None
    name = f"{budget.usd:.2f} USD" if only_usd and budget.usd is not None else "the budget"
    return {
        "forecast": {"rows": bought.rows, "of": bought.of, "half_width": bought.half_width},
        "text": forecast_text(bought, name, score),
    }
