"""Compares two evaluations of the same rows, row by row."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from batchrun.amounts import NANO
from batchrun.errors import UsageError
from batchrun.evaluation.frame import evaluation_of
from batchrun.evaluation.report import score_name
from batchrun.evaluation.sample import Sample, SampleTally
from batchrun.evaluation.statistics.paired import Comparison, compare, mean_difference
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset

if TYPE_CHECKING:
    from batchrun.evaluation.statistics.intervals import Codes

Evaluated = tuple[Dataset, SampleTally]
Places = npt.NDArray[np.int64]
Quantity = npt.NDArray[np.float64]


def comparison_of(a: Evaluated, b: Evaluated) -> dict[str, Any]:
    """Returns the comparison as JSON-able values: differences are A's score less B's, amounts are USD.

    Raises UsageError if the two don't score the same rows.
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
    comparison = {
        "metric": metric.name,
        "score": score_name(metric),
        "rows": rows_a.size,
        "of": a[1].frame.population,
        "a": _side(samples[0], rows_a),
        "b": _side(samples[1], rows_b),
        **_difference(found),
        "warnings": [*warnings, *(found.difference.warnings if found else ())],
    }
    return comparison | {"verdict": verdict(comparison)}


def verdict(comparison: dict[str, Any]) -> str:
    """Returns a sentence which of A and B is better, by how much, and what that costs."""
    if comparison["difference"] is None:
        return "Nothing can be compared yet: no row has a score from both."
    score, (low, high) = comparison["score"], comparison["interval"]
    if low == high == 0:
        return f"A and B have the same {score}: all rows are known, from both."
    if low <= 0 <= high:
        return (
            f"These rows don't show which one is better: with 95 % confidence, B's {score} is between "
            f"{high:z.3f} lower and {-low:z.3f} higher."
        )
    a_is_better = comparison["difference"] > 0
    ends = " to ".join(f"{end:.3f}" for end in sorted((abs(low), abs(high))))
    return (
        f"{'A' if a_is_better else 'B'} is better: its {score} is {abs(comparison['difference']):.3f} higher "
        f"(95 %: {ends}){_at_cost(comparison, a_is_better)}."
    )


def _at_cost(comparison: dict[str, Any], a_is_better: bool) -> str:
    better, other = (comparison[side]["usd_per_row"] for side in ("ab" if a_is_better else "ba"))
    return f", and a row costs {better / other:.2g} times as much" if better and other else ""


def difference_per_row(
    a: Evaluated, b: Evaluated, quantities: tuple[Quantity, Quantity] | None = None
) -> list[float] | None:
    """Returns the mean of A's quantity less B's over the rows that both have sent, with its 95 % interval.

    `quantities` have an item for each row of the input; None: the rows' costs, in USD. Returns None for fewer
    than two rows.
    """
    samples = a[1].sample(), b[1].sample()
    rows_a, rows_b, _ = _common(a, b, samples)
    evaluation, indexes = evaluation_of(a[0]), samples[0].indexes[rows_a]
    if quantities is None:
        values = samples[0].costs[rows_a] / NANO, samples[1].costs[rows_b] / NANO
    else:
        values = quantities[0][indexes], quantities[1][indexes]
    population = a[1].frame.population if evaluation.target == "table" else None
    groups = samples[0].groups[rows_a] if evaluation.cluster is not None else None
    found = mean_difference(*values, population, groups)
    return None if found is None else list(found)


def differing_rows(a: Evaluated, b: Evaluated, most: int) -> list[int]:
    """Returns the indexes of the first `most` rows that both have scored differently, in sending order."""
    samples = a[1].sample(), b[1].sample()
    rows_a, rows_b, _ = _common(a, b, samples)
    differ = np.abs(samples[0].scores[rows_a] - samples[1].scores[rows_b]) > 0  # false for a missing score
    return [int(index) for index in samples[0].indexes[rows_a][differ][:most]]


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
        raise UsageError("The jobs have expected values for different rows: see [evaluation] expected.")


def _common(a: Evaluated, b: Evaluated, samples: tuple[Sample, Sample]) -> tuple[Places, Places, list[str]]:
    """Returns the positions in both samples of the rows that both have sent, in sending order."""
    if np.array_equal(a[1].frame.order, b[1].frame.order):
        both = np.arange(min(samples[0].indexes.size, samples[1].indexes.size))
        in_random_order = asks_in_random_order(a[0].job)
        return both, both, [] if in_random_order else ["rows in the input's order are not a random sample"]
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
