"""What the journal says of an evaluation, and of two of them on the same rows. Sends nothing."""

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.errors import UsageError
from batchrun.job import Job
from batchrun.output import RowWriter
from batchrun.run_folder import open_journal_of
from batchrun.tables.reader import Table
from batchrun.workload import Workload, open_workload

if TYPE_CHECKING:
    from batchrun.sampling.sample import SampleTally


@dataclass(frozen=True)
class Evaluated:
    workload: Workload
    tally: "SampleTally"


def evaluate_job(job: Job, *, sandbox: bool = False, table: Table | None = None) -> dict[str, Any]:
    """The report of an evaluation as the journal stands, as `evaluation` in a run's summary.

    A `table` takes the place of the job's input. Raises UsageError where the job has no evaluation or
    nothing has been run yet, JournalError.
    """
    from batchrun.sampling.report import report_of

    evaluated = _evaluated(job, sandbox, table)
    return report_of(evaluated.workload, evaluated.tally)


def compare_jobs(a: Job, b: Job, *, sandbox: bool = False, table: Table | None = None) -> dict[str, Any]:
    """Two evaluations of the same rows, compared on those that both have asked: A less B.

    Raises UsageError where they can't be compared, JournalError.
    """
    from batchrun.sampling.comparison import comparison_of

    both = (_evaluated(a, sandbox, table), _evaluated(b, sandbox, table))
    return comparison_of(*((each.workload, each.tally) for each in both))


def _evaluated(job: Job, sandbox: bool, table: Table | None) -> Evaluated:
    if job.evaluation is None:
        raise UsageError(
            f"The job for {job.output.path} has no [evaluation]. Say there which column is right and how "
            "answers are scored:\n"
            '[evaluation] expected = "gold", metric = "exact"'
        )
    with closing(open_journal_of(job)) as journal:
        workload = open_workload(job, sandbox=sandbox, table=table)
        rows = RowWriter(workload, journal)
        for chunk in workload.chunks(_columns(job)):
            rows.values(chunk)
    if rows.tally is None:
        raise UsageError("The job has no evaluation.")
    return Evaluated(workload, rows.tally)


def _columns(job: Job) -> list[str]:
    return [] if job.evaluation is None else [job.evaluation.expected]
