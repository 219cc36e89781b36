"""The sampling frame of an evaluation: all rows in sending order, and their clusters or strata."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.statistics.sampling_order import (
    Groups,
    Positions,
    cluster_order,
    groups_of,
    random_order,
    stratified_order,
)
from batchrun.job.evaluation import Evaluation
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset
from batchrun.tables.reader import python_rows

NO_GROUPS = Groups(np.empty(0, np.int32), [])


@dataclass(frozen=True)
class SamplingFrame:
    """`order` has the indexes of all rows in sending order. `scorable` says for each row, by its index, if
    it has an expected value: only such rows are the population. `groups` are its clusters or strata. 13 bytes
    a row; up to 45 while sorting.
    """

    order: Positions
    scorable: npt.NDArray[np.bool_]
    groups: Groups

    @property
    def population(self) -> int:
        return int(self.scorable.sum())

    @property
    def scorable_order(self) -> Positions:
        """The population in sending order."""
        return self.order[self.scorable[self.order]]


NO_FRAME = SamplingFrame(np.empty(0, np.int64), np.empty(0, np.bool_), NO_GROUPS)
"""Of rows that are no sample."""


def evaluation_of(dataset: Dataset) -> Evaluation:
    """Returns the job's evaluation, for callers that know that it has one."""
    if dataset.job.evaluation is None:
        raise ValueError("the job has no evaluation")
    return dataset.job.evaluation


def sampling_frame(dataset: Dataset) -> SamplingFrame:
    """Reads the columns by which the sample is drawn. Raises InputError."""
    evaluation = evaluation_of(dataset)
    by = evaluation.cluster or evaluation.stratify
    scorable: list[npt.NDArray[np.bool_]] = []
    cells: list[Any] = []
    columns = dict.fromkeys([evaluation.expected, *([by] if by else [])])  # it may be one column
    for batch in dataset.table.batches(list(columns)):
        scorable.append(np.asarray(batch.column(0).is_valid()))
        if by:
            cells.extend(cell for (cell,) in python_rows(batch.select([by])))
    rows = np.concatenate(scorable) if scorable else np.empty(0, np.bool_)
    groups = groups_of(cells) if by else NO_GROUPS
    return SamplingFrame(_order(dataset, rows.size, groups), rows, groups)


def sampling_plan(dataset: Dataset, frame: SamplingFrame) -> dict[str, Any]:
    """Returns the journal's record of the frame before the first request: its drawing and its digest."""
    evaluation = evaluation_of(dataset)
    return {
        "order": "random" if asks_in_random_order(dataset.job) else "input",
        "seed": dataset.job.output.seed,
        "cluster": evaluation.cluster,
        "stratify": evaluation.stratify,
        "rows": frame.order.size,
        "population": frame.population,
        "permutation": blake2b(frame.order.tobytes(), digest_size=16).hexdigest(),
    }


def _order(dataset: Dataset, rows: int, groups: Groups) -> Positions:
    evaluation, seed = evaluation_of(dataset), dataset.job.output.seed
    if not asks_in_random_order(dataset.job):
        return np.arange(rows, dtype=np.int64)
    if evaluation.cluster:
        return cluster_order(range(rows), groups, seed)
    if evaluation.stratify:
        return stratified_order(range(rows), groups, seed)
    return random_order(range(rows), seed)
