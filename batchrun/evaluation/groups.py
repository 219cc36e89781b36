"""Estimates the score of each group of rows: of each language, say."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from batchrun.amounts import NANO
from batchrun.client.templates import no_such_column
from batchrun.errors import UsageError
from batchrun.evaluation.frame import evaluation_of
from batchrun.evaluation.report import certain_bounds
from batchrun.evaluation.sample import Sample, SampleTally
from batchrun.evaluation.statistics.intervals import Estimate, estimate_clusters, estimate_rows
from batchrun.evaluation.statistics.sampling_order import Groups, groups_of
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset
from batchrun.tables.python_rows import python_rows

MOST_GROUPS = 1_000
"""A column with more values names rows, not groups."""

Places = npt.NDArray[np.int64]


def by_group(dataset: Dataset, tally: SampleTally, column: str) -> dict[str, Any]:
    """Returns the estimate of each group, as JSON-able values, the largest group first; amounts in USD.

    Rows of one group in random order are a random sample of the group, so each interval holds by itself.
    Raises UsageError if the input has no such column, or if it has too many values.
    """
    groups, sample = _groups(dataset, column), tally.sample()
    population = np.bincount(groups.codes[tally.frame.scorable] + 1, minlength=len(groups.names) + 1)
    rows = [
        _group(dataset, tally, sample, places, name, int(population[code + 1]))
        for code, name, places in _by_code(groups, sample)
        if population[code + 1]
    ]
    stops = evaluation_of(dataset).stop is not None
    return {
        "column": column,
        "groups": sorted(rows, key=lambda row: -row["of"]),
        "warnings": [_EARLY] if stops else [],
    }


_EARLY = (
    "evaluation.stop may have ended the run at a lucky moment: the intervals by group don't allow for that"
)


def _groups(dataset: Dataset, column: str) -> Groups:
    if column not in dataset.table.schema.names:
        raise UsageError(no_such_column("--by", column, dataset.table.schema.names))
    groups = groups_of(
        cell for batch in dataset.table.batches([column]) for (cell,) in python_rows(batch.select([column]))
    )
    if len(groups.names) > MOST_GROUPS:
        raise UsageError(
            f"--by {column}: the column has {len(groups.names):,} different values.\n"
            f"Name one with at most {MOST_GROUPS:,}."
        )
    return groups


def _by_code(groups: Groups, sample: Sample) -> Iterator[tuple[int, str | None, Places]]:
    """Yields each group, None for null cells, with the positions of its rows in the sample."""
    codes = groups.codes[sample.indexes]
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(-1, len(groups.names) + 1))
    for code, name in enumerate([None, *groups.names], start=-1):
        yield code, name, order[bounds[code + 1] : bounds[code + 2]]


def _group(
    dataset: Dataset, tally: SampleTally, sample: Sample, places: Places, name: str | None, population: int
) -> dict[str, Any]:
    estimate = _estimate(dataset, tally, sample, places, population)
    spent = float(sample.costs[places].sum()) / NANO
    return {
        "group": name,
        "estimate": None if estimate is None else estimate.value,
        "interval": None if estimate is None else [estimate.low, estimate.high],
        "n": 0 if estimate is None else estimate.n,
        "of": population,
        "missing": int(np.isnan(sample.scores[places]).sum()),
        "usd": spent,
        "usd_per_row": spent / places.size if places.size else None,
    }


def _estimate(
    dataset: Dataset, tally: SampleTally, sample: Sample, places: Places, population: int
) -> Estimate | None:
    evaluation, scores, binary = evaluation_of(dataset), sample.scores[places], tally.metric.binary
    of = population if evaluation.target == "table" else None
    if scores.size == population and of is not None:
        return estimate_rows(scores, of, binary)
    if not asks_in_random_order(dataset.job) and scores.size < population:
        return certain_bounds(scores, population, binary)
    if evaluation.cluster is not None:
        return estimate_clusters(scores, sample.groups[places], of)
    return estimate_rows(scores, of, binary)
