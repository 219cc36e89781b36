"""Evaluates a job from its journal, and compares two evaluations of the same rows. Sends nothing."""

from array import array
from contextlib import closing
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from batchrun.errors import UsageError
from batchrun.job.spec import Job
from batchrun.rows.columns import LATENCY
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.runs.output import RowWriter
from batchrun.runs.reading import read_rows
from batchrun.runs.run_folder import open_journal_of
from batchrun.tables.reader import Table

if TYPE_CHECKING:
    from batchrun.evaluation.sample import SampleTally


@dataclass(frozen=True)
class Evaluated:
    """`latencies` are milliseconds by the row's index, NaN where no answer has one."""

    dataset: Dataset
    tally: "SampleTally"
    latencies: "array[float]"


def evaluate_job(
    job: Job, *, sandbox: bool = False, table: Table | None = None, by: str | None = None
) -> dict[str, Any]:
    """Returns the report of an evaluation from the journal, as `evaluation` in a run's summary.

    With a column `by`, its key `by` has the estimates of the column's groups. A `table` takes the place of
    the job's input. Raises UsageError where the job has no evaluation or nothing has been run yet, or the
    input has no such column; JournalError.
    """
    from batchrun.evaluation.groups import by_group
    from batchrun.evaluation.report import report_of

    evaluated = _evaluated(job, sandbox, table)
    report = report_of(evaluated.dataset, evaluated.tally)
    return report if by is None else report | {"by": by_group(evaluated.dataset, evaluated.tally, by)}


def compare_jobs(
    a: Job, b: Job, *, sandbox: bool = False, table: Table | None = None, rows: int = 0
) -> dict[str, Any]:
    """Compares two evaluations of the same rows on the rows that both have sent: A less B.

    Its keys `usd_difference` and `seconds_difference` are the mean differences of a row's cost and latency,
    each with its 95 % interval. With `rows`, its key `rows_that_differ` has so many rows at most, each as a
    pair to read. Raises UsageError if they can't be compared, JournalError.
    """
    import numpy as np

    from batchrun.evaluation.comparison import comparison_of, difference_per_row, differing_rows

    both = (_evaluated(a, sandbox, table), _evaluated(b, sandbox, table))
    pairs = [(each.dataset, each.tally) for each in both]
    comparison = comparison_of(pairs[0], pairs[1])
    seconds = [np.array(each.latencies) / 1000 for each in both]
    comparison["usd_difference"] = difference_per_row(pairs[0], pairs[1])
    comparison["seconds_difference"] = difference_per_row(pairs[0], pairs[1], (seconds[0], seconds[1]))
    if not rows:
        return comparison
    indexes = differing_rows(pairs[0], pairs[1], rows)
    sides = [read_rows(each.dataset, indexes) for each in both]
    return comparison | {"rows_that_differ": [list(pair) for pair in zip(*sides, strict=True)]}


def _evaluated(job: Job, sandbox: bool, table: Table | None) -> Evaluated:
    if job.evaluation is None:
        raise UsageError(
            f"The job for {job.output.path} has no [evaluation]. Name there the column of "
            "right answers, and how answers are scored:\n"
            '[evaluation] expected = "gold", metric = "exact"'
        )
    with closing(open_journal_of(job)) as journal:
        dataset = open_dataset(job, sandbox=sandbox, table=table)
        rows = RowWriter(dataset, journal)
        latencies = array("d")
        for chunk in dataset.chunks(_columns(job), journal):
            found = (values[LATENCY] for values in rows.values(chunk))
            latencies.extend(nan if latency is None else latency for latency in found)
    if rows.tally is None:
        raise UsageError("The job has no evaluation.")
    return Evaluated(dataset, rows.tally, latencies)


def _columns(job: Job) -> list[str]:
    return [] if job.evaluation is None else [job.evaluation.expected]
