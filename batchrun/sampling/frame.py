"""The sampling frame of an evaluation: all rows in the order of asking, and their clusters or strata."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.permutation import (
    Groups,
    Positions,
    cluster_order,
    groups_of,
    random_order,
    stratified_order,
)
from batchrun.job import asks_in_random_order
from batchrun.job.evaluation import Evaluation
from batchrun.tables.reader import python_rows
from batchrun.workload import Workload

NO_GROUPS = Groups(np.empty(0, np.int32), [])


@dataclass(frozen=True)
class SamplingFrame:
    """`order` has the indexes of all rows in the order of asking. `scorable` says of each row, by its index,
    whether something is expected of it: such rows alone are the population. `groups` are its clusters or
    strata. 13 bytes a row; with what sorting takes, up to 45 for a moment.
    """

    order: Positions
    scorable: npt.NDArray[np.bool_]
    groups: Groups

    @property
    def population(self) -> int:
        return int(self.scorable.sum())


def evaluation_of(workload: Workload) -> Evaluation:
    """The job's evaluation, where the caller knows that it has one."""
    if workload.job.evaluation is None:
        raise ValueError("the job has no evaluation")
    return workload.job.evaluation


def sampling_frame(workload: Workload) -> SamplingFrame:
    """Reads the columns that the sample is drawn by. Raises InputError."""
    evaluation = evaluation_of(workload)
    by = evaluation.cluster or evaluation.stratify
    scorable: list[npt.NDArray[np.bool_]] = []
    cells: list[Any] = []
    for batch in workload.table.batches([evaluation.expected, *([by] if by else [])]):
        scorable.append(np.asarray(batch.column(0).is_valid()))
        if by:
            cells.extend(cell for (cell,) in python_rows(batch.select([by])))
    rows = np.concatenate(scorable) if scorable else np.empty(0, np.bool_)
    groups = groups_of(cells) if by else NO_GROUPS
    return SamplingFrame(_order(workload, rows.size, groups), rows, groups)


def sampling_plan(workload: Workload, frame: SamplingFrame) -> dict[str, Any]:
    """What the journal keeps of the frame before the first row is asked for: how it was drawn, its digest."""
    evaluation = evaluation_of(workload)
    return {
        "order": "random" if asks_in_random_order(workload.job) else "input",
        "seed": workload.job.output.seed,
        "cluster": evaluation.cluster,
        "stratify": evaluation.stratify,
        "rows": frame.order.size,
        "population": frame.population,
        "permutation": blake2b(frame.order.tobytes(), digest_size=16).hexdigest(),
    }


def _order(workload: Workload, rows: int, groups: Groups) -> Positions:
    evaluation, seed = evaluation_of(workload), workload.job.output.seed
    if not asks_in_random_order(workload.job):
        return np.arange(rows, dtype=np.int64)
    if evaluation.cluster:
        return cluster_order(range(rows), groups, seed)
    if evaluation.stratify:
        return stratified_order(range(rows), groups, seed)
    return random_order(range(rows), seed)
