"""Two evaluations of the same rows, compared row by row."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from batchrun.amounts import NANO
from batchrun.errors import UsageError
from batchrun.evaluation.paired import Comparison, compare
from batchrun.job import asks_in_random_order
from batchrun.sampling.frame import evaluation_of
from batchrun.sampling.report import score_name
from batchrun.sampling.sample import Sample, SampleTally
from batchrun.workload import Workload

if TYPE_CHECKING:
    from batchrun.evaluation.intervals import Codes

Evaluated = tuple[Workload, SampleTally]
Places = npt.NDArray[np.int64]


def comparison_of(a: Evaluated, b: Evaluated) -> dict[str, Any]:
    """The comparison as JSON-able values: differences are A's score less B's, amounts are USD.

    Raises UsageError where the two don't score the same rows.
    """
    _refuse_different(a, b)
    samples = a[1].sample(), b[1].sample()
    rows_a, rows_b, warnings = _common(a, b, samples)
    scores = samples[0].scores[rows_a], samples[1].scores[rows_b]
    metric = a[1].metric
    clustered = evaluation_of(a[0]).cluster is not None
    groups: Codes | None = samples[0].groups[rows_a] if clustered else None
    of_table = evaluation_of(a[0]).target == "table"
    population = a[1].frame.population if of_table else None
    found = compare(*scores, population, metric.binary, groups)
    return {
        "metric": metric.name,
        "score": score_name(metric),
        "rows": rows_a.size,
        "of": a[1].frame.population,
        "a": _side(samples[0], rows_a),
        "b": _side(samples[1], rows_b),
        **_difference(found),
        "warnings": [*warnings, *(found.difference.warnings if found else ())],
    }


def _refuse_different(a: Evaluated, b: Evaluated) -> None:
    if a[1].frame.order.size != b[1].frame.order.size:
        raise UsageError(
            f"The jobs have different inputs: {a[1].frame.order.size:,} and {b[1].frame.order.size:,} rows.\n"
            "Compare jobs over the same table."
        )
    metrics = a[1].metric.name, b[1].metric.name
    if metrics[0] != metrics[1]:
        raise UsageError(f"The jobs have different metrics: {metrics[0]} and {metrics[1]}.")
    if not np.array_equal(a[1].frame.scorable, b[1].frame.scorable):
        raise UsageError("The jobs don't expect something of the same rows: see [evaluation] expected.")


def _common(a: Evaluated, b: Evaluated, samples: tuple[Sample, Sample]) -> tuple[Places, Places, list[str]]:
    """Positions in both samples of the rows that both have asked, in the order of asking."""
    if np.array_equal(a[1].frame.order, b[1].frame.order):
        both = np.arange(min(samples[0].indexes.size, samples[1].indexes.size))
        in_random_order = asks_in_random_order(a[0].job)
        return both, both, [] if in_random_order else ["rows in the input's order are no random sample"]
    _, rows_a, rows_b = np.intersect1d(samples[0].indexes, samples[1].indexes, return_indices=True)
    return (
        rows_a,
        rows_b,
        ["the jobs ask in different orders (output.seed, cluster, stratify): fewer rows are common to both"],
    )


def _side(sample: Sample, rows: Places) -> dict[str, Any]:
    scores, cost = sample.scores[rows], float(sample.costs[rows].sum()) / NANO
    scored = scores[~np.isnan(scores)]
    correct = float(scored.sum())
    return {
        "estimate": float(scored.mean()) if scored.size else None,
        "missing": int(np.isnan(scores).sum()),
        "usd": cost,
        "usd_per_row": cost / rows.size if rows.size else None,
        "usd_per_correct": cost / correct if correct else None,
    }


def _difference(found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {"difference": None, "interval": None, "n": 0, "method": None, "p_value": None}
    difference = found.difference
    return {
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "n": difference.n,
        "bounds": list(difference.bounds),
        "method": difference.method,
        "p_value": found.p_value,
        "test": found.test,
        "a_higher": found.higher,
        "b_higher": found.lower,
    }
