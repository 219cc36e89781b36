"""Reads all that a page says from the journal and the input. The parts of the page are made of it alone."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrun.client.templates import no_such_column
from batchrun.clock import milliseconds
from batchrun.errors import UsageError
from batchrun.job.spec import Job
from batchrun.journal import Journal
from batchrun.journal.samples import samples_of
from batchrun.journal.timeline import (
    FailureKind,
    RunRecord,
    begins_by_interval,
    ends_by_interval,
    failure_kinds,
    last_answer_at,
    runs_of,
)
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.runs.adjust.record import in_force, made_in
from batchrun.runs.caching import prices_of
from batchrun.runs.output import Findings, RowWriter
from batchrun.runs.reading import ReadableRow, made_attempts, seen_rows
from batchrun.runs.report.course import Course, course_of
from batchrun.runs.report.tally import Tally, rows_to_read
from batchrun.runs.report.timeline import Timeline, interval_width, timeline
from batchrun.runs.run_folder import open_journal_of
from batchrun.runs.status import status_of
from batchrun.tables.reader import Table

if TYPE_CHECKING:
    from batchrun.evaluation.sample import SampleTally


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the part "Run" says, which the journal alone knows. `findings` are those of a run's summary.

    `timeline`, `course` and `shown_run` are of the last run with a request; `shown_job` has the caps and
    limits it had in the end, `adjustments` what was set meanwhile, `rows_of_run` is how many rows it ended.
    `usd_at_worst` is the mean worst case of a row's first request, 0 where it isn't known.
    """

    job: Job
    sandbox: bool
    made_at: int
    status: dict[str, Any]
    rows: dict[str, int]
    findings: Findings
    runs: list[RunRecord]
    failures: list[FailureKind]
    next_step: str | None
    shown_run: RunRecord | None = None
    shown_job: Job | None = None
    adjustments: Sequence[dict[str, Any]] = ()
    timeline: Timeline | None = None
    course: Course | None = None
    rows_of_run: int | None = None
    usd_at_worst: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """All that a page says.

    `columns` are the input's. `read` has rows by kind. `groups` are the estimates by the column `by`,
    `narrowing` the estimate after more and more rows, `forecast` what a further dollar buys. `comparison` is
    with another job, by `names`.
    """

    tally: Tally
    columns: list[str]
    read: dict[str, list[ReadableRow]]
    by: str | None = None
    groups: dict[str, Any] | None = None
    narrowing: list[dict[str, float]] | None = None
    forecast: str | None = None
    comparison: dict[str, Any] | None = None
    names: tuple[str, str] = ("A", "B")


def facts_of(job: Job, *, sandbox: bool = False, table: Table | None = None, by: str | None = None) -> Facts:
    """Returns the facts, during a run too; a `table` replaces the job's input.

    Raises UsageError if no run of this kind has been made yet or the input has no column `by`; JournalError.
    """
    status = status_of(job, sandbox=sandbox)
    if status["last_run"] is None:
        kind = "real runs" if sandbox else "runs with the sandbox; --sandbox shows them"
        raise UsageError(f"There is nothing to report: the job has only had {kind}.")
    with closing(open_journal_of(job)) as journal:
        dataset = open_dataset(job, sandbox=sandbox, table=table)
        if by is not None and by not in dataset.table.schema.names:
            raise UsageError(no_such_column("--by", by, dataset.table.schema.names))
        writer = RowWriter(dataset, journal)
        tally = Tally(prices_of(dataset), _label_columns(dataset), job.output.seed, by)
        for row in seen_rows(dataset, journal, writer):
            tally.add(row)
        runs = runs_of(journal, sandbox)
        facts = Facts(
            job=job,
            sandbox=sandbox,
            made_at=milliseconds(),
            status=status,
            rows=dict(writer.counts),
            findings=writer.findings(),
            runs=runs,
            failures=failure_kinds(journal, sandbox),
            tally=tally,
            columns=dataset.table.schema.names,
            read=rows_to_read(tally, lambda digests: made_attempts(journal, digests)),
            next_step=status["last_run"]["next_step"],
            usd_at_worst=tally.usd_at_worst,
            by=by,
        )
        facts = _with_timeline(facts, journal)
    return facts if writer.tally is None else _with_evaluation(facts, dataset, writer.tally)


def _label_columns(dataset: Dataset) -> tuple[str, ...]:
    """Returns the columns whose values are counted: the labels', else the answer itself."""
    if not dataset.labelling.labelled:
        return ("output",)
    return tuple(column.name for column in dataset.labelling.parser.columns)


def _with_timeline(facts: Facts, journal: Journal) -> Facts:
    last = next((run for run in reversed(facts.runs) if run.requests), None)
    if last is None:
        return facts
    ended_at = last.finished_at or last_answer_at(journal, last.run) or facts.made_at
    length = max(1, (facts.made_at if facts.status["running"] else ended_at) - last.started_at)
    width = interval_width(length)
    before = [run for run in facts.runs if run.run < last.run]
    spent = sum(run.nano_usd for run in before), sum(run.uncertain_nano_usd for run in before)
    series = timeline(
        ends_by_interval(journal, last.run, last.started_at, width),
        begins_by_interval(journal, last.run, last.started_at, width),
        width,
        length,
        spent,
    )
    of_run = facts.tally.by_run.get(last.run)
    made = made_in(journal, last.run)
    return replace(
        facts,
        shown_run=last,
        shown_job=in_force(facts.job, made),
        timeline=series,
        course=course_of(samples_of(journal, last.run), series.ends),
        adjustments=made,
        rows_of_run=None if of_run is None else of_run.rows,
    )


def _with_evaluation(facts: Facts, dataset: Dataset, tally: "SampleTally") -> Facts:
    from batchrun.evaluation.groups import by_group
    from batchrun.evaluation.narrowing import further_dollar, narrowing

    return replace(
        facts,
        groups=None if facts.by is None else by_group(dataset, tally, facts.by),
        narrowing=narrowing(dataset, tally),
        forecast=further_dollar(dataset, tally),
    )
