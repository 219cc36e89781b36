"""One run, from a job to its output."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchrun.asking import Asking, ask, encoded_rows, endpoint_settings
from batchrun.books import MILLISECONDS_PER_DAY, milliseconds
from batchrun.engine import Rules
from batchrun.errors import EXIT_DONE, BatchrunError, InputError, StorageError, UsageError
from batchrun.interruption import EndedAtOnce, Interruption, heeding_signals
from batchrun.job import Job, asks_in_random_order, fingerprint, output_path, prices, public_job, run_folder
from batchrun.journal import Journal, Totals, create_or_open, open_for_reading
from batchrun.journal.storage import check_whole
from batchrun.ledger import Ledger
from batchrun.limits.limiter import Limiter
from batchrun.log import Listener, RunLog, tell_of_failure, telling
from batchrun.open_rows import Row
from batchrun.opening import open_ledger, opening_tariff
from batchrun.output import Findings, output_metadata, write_output
from batchrun.pending import in_given_order, in_random_order, pending_rows, random_order_of
from batchrun.progress import Progress
from batchrun.run_folder import RunFolder, locked, make_run_folder, refuse_half_salvaged, write_private
from batchrun.stops import Stop
from batchrun.summary import (
    Ending,
    Summary,
    counted_rows,
    ending_of,
    ending_of_fault,
    ending_of_part,
    summary_of,
    without_output,
)
from batchrun.tables.reader import Table
from batchrun.tables.writer import check_writable
from batchrun.target import Target
from batchrun.version import __version__
from batchrun.wire.retry import RetryPolicy
from batchrun.workload import Workload, endpoint_identity, open_workload

__all__ = ["Part", "Target", "View", "Watch", "run_job"]


@dataclass(frozen=True, slots=True)
class View:
    """What a display may look at while the run goes on. It changes nothing."""

    job: Job
    target: Target
    ledger: Ledger
    progress: Progress
    limiter: Limiter
    before: Totals


if TYPE_CHECKING:
    from batchrun.evaluation.metrics import Metric

Watch = Callable[[View], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a job's rows: their indexes in the order of asking, and how they were drawn, as JSON."""

    rows: Sequence[int]
    drawn: str


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that has begun. `number` is the journal's, `before` what it knew before."""

    workload: Workload
    target: Target
    folder: RunFolder
    scratch: Path | None
    journal: Journal
    number: int
    started_at: int
    before: Totals
    given_up: int
    topped_up: bool
    part: Part | None


def run_job(
    job: Job,
    target: Target,
    *,
    table: Table | None = None,
    scratch: Path | None = None,
    part: Part | None = None,
    retry_failed: bool = False,
    topped_up: bool = False,
    watch: Watch = lambda _: nullcontext(),
    listeners: Sequence[Listener] = (),
    interruption: Interruption | None = None,
) -> Summary:
    """Asks for every row that has no answer yet and writes the output; returns the summary.

    A `table` takes the place of the job's input. A file `scratch` is written in the place of its output,
    which the summary doesn't name then. With a `part`, only these rows are asked for, as far as they are
    pending, and no output is written. `topped_up` says that the account's balance last seen, to which
    `budget.keep_credits` is held, is no longer true. `listeners` are told what the log in the run's folder is
    told. `interruption` is how other threads stop the run; signals stop it in the main thread. Raises
    BatchrunError: UsageError before anything was sent, LockedError while another run goes on, JournalError
    and StorageError for faults. Every other end is in the summary's `exit_code`.
    """
    started_at = milliseconds()
    workload = open_workload(job, sandbox=target.sandbox, table=table)
    check_writable(scratch or output_path(job), workload.schema)
    folder = make_run_folder(run_folder(job))
    with locked(folder):
        refuse_half_salvaged(folder)
        journal = create_or_open(folder.journal)
        try:
            check_whole(journal)
            _refuse_made_up_answers(journal, target)
            run = _begin(workload, target, folder, scratch, journal, started_at, topped_up, part)
            with closing(RunLog(folder.log)) as log:
                return _watched(run, watch, telling(log.event, *listeners), retry_failed, interruption)
        finally:
            journal.close()


def _watched(
    run: _Run, watch: Watch, tell: Listener, retry_failed: bool, interruption: Interruption | None
) -> Summary:
    job, target, rows = run.workload.job, run.target, run.workload.table.row_count
    ledger = open_ledger(
        job, target.sandbox, run.journal, run.before, run.started_at, topped_up=run.topped_up
    )
    limiter = Limiter(job.limits.requests_per_minute, job.limits.tokens_per_minute)
    progress = Progress(rows=rows, on_failure=partial(tell_of_failure, tell))
    tell("run started", run=run.number, sandbox=target.sandbox, rows=rows)
    try:
        with watch(View(job, target, ledger, progress, limiter, run.before)):
            summary = _carry_out(run, ledger, limiter, progress, retry_failed, interruption)
    except BatchrunError as error:
        tell("run failed", run=run.number, exit_code=error.exit_code, reason=str(error))
        raise
    tell("run ended", run=run.number, **summary)
    return summary


def _carry_out(
    run: _Run,
    ledger: Ledger,
    limiter: Limiter,
    progress: Progress,
    retry_failed: bool,
    by_program: Interruption | None,
) -> Summary:
    """Asks and writes the output. What keeps it from that is in the summary, a fault too."""
    with heeding_signals(by_program) as interruption:
        try:
            stop = _ask(run, ledger, limiter, progress, retry_failed, interruption)
            progress.writing = True
            return _finish(run, stop, ledger, progress, interruption)
        except EndedAtOnce:
            return _end_without_output(run, without_output(interruption.stop), ledger, progress)
        except InputError as error:
            fault = StorageError(
                f"The input broke while the run was going on: {error}.\n"
                "Answers so far are safe in the journal; with the input mended, the same command goes on."
            )
            _tell_of_fault(run, fault, ledger, progress)
            raise fault from error
        except Exception as error:
            _tell_of_fault(run, error, ledger, progress)
            raise
        finally:
            progress.writing = False


def _refuse_made_up_answers(journal: Journal, target: Target) -> None:
    if target.sandbox and journal.totals(sandbox=False).answered:
        raise UsageError(
            "The output holds answers that were paid for; a sandbox run would replace them by made-up ones.\n"
            "Give the sandbox run an output of its own with --output."
        )


def _begin(
    workload: Workload,
    target: Target,
    folder: RunFolder,
    scratch: Path | None,
    journal: Journal,
    started_at: int,
    topped_up: bool,
    part: Part | None,
) -> _Run:
    job = workload.job
    given_up = journal.give_up_intents(started_at, final=job.retry.in_doubt == "leave")
    before = journal.totals(target.sandbox)
    number = journal.start_run(
        __version__,
        started_at,
        target.sandbox,
        endpoint_identity(job, sandbox=target.sandbox),
        fingerprint(job),
        _json(public_job(job)),
    )
    return _Run(
        workload, target, folder, scratch, journal, number, started_at, before, given_up, topped_up, part
    )


def _ask(
    run: _Run,
    ledger: Ledger,
    limiter: Limiter,
    progress: Progress,
    retry_failed: bool,
    interruption: Interruption,
) -> Stop | None:
    job = run.workload.job
    before = run.number if retry_failed else 0
    labelling = run.workload.labelling
    if labelling is not None:
        labelling = replace(labelling, asks_again_before=before)
    rules = Rules(
        concurrency=job.limits.concurrency,
        retry=RetryPolicy(1 if job.request.free_tier else job.retry.max_attempts, job.retry.max_wait_seconds),
        leave_in_doubt=job.retry.in_doubt == "leave",
        outage_seconds=job.retry.outage_seconds,
        labelling=labelling,
    )
    asking = Asking(
        run.number,
        rules,
        ledger,
        opening_tariff(job, run.target.sandbox, run.before),
        limiter,
        endpoint_settings(job, run.target),
        job.budget.seconds,
    )
    reader = open_for_reading(run.journal.path)
    try:
        if run.workload.metric is not None and run.part is None:
            return _ask_sample(run, asking, run.workload.metric, reader, progress, interruption, before)
        pending = pending_rows(run.workload, reader, progress, before, labelling)
        chunks = _chunks(run, pending)
        return ask(asking, run.journal, chunks, progress, interruption)
    finally:
        reader.close()


def _ask_sample(
    run: _Run,
    asking: Asking,
    metric: "Metric",
    reader: Journal,
    progress: Progress,
    interruption: Interruption,
    retry_failed_before: int,
) -> Stop | None:
    from batchrun.sampling.drawing import drawn_rows, mean_cost

    spending = mean_cost(asking.ledger, run.before.spend.committed.nano_usd, progress)
    rows, monitor = drawn_rows(
        run.workload,
        metric,
        run.journal,
        reader,
        run.number,
        progress,
        spending,
        retry_failed_before,
        asking.rules.labelling,
    )
    return ask(asking, run.journal, rows, progress, interruption, monitor)


def _chunks(run: _Run, chunks: Generator[list[Row], None, None]) -> Generator[list[Row], None, None]:
    """The rows in the order of asking; the one that the free tier allows."""
    job, at_once = run.workload.job, run.workload.rows_in_a_chunk
    if run.part is not None:
        run.journal.note_sampling(run.number, run.part.drawn)
        chunks = in_given_order(chunks, run.part.rows, at_once)
    elif asks_in_random_order(job):
        run.journal.note_sampling(run.number, _json(random_order_of(job)))
        chunks = in_random_order(chunks, job.output.seed, at_once)
    if job.request.free_tier:
        return _first_request(chunks)
    return chunks


def _first_request(chunks: Iterator[list[Row]]) -> Generator[list[Row], None, None]:
    for chunk in chunks:
        yield chunk[:1]
        if chunk:
            return


def _finish(
    run: _Run, stop: Stop | None, ledger: Ledger, progress: Progress, interruption: Interruption
) -> Summary:
    """Writes the output, the summary and the end of the run. Raises EndedAtOnce."""
    interruption.check()
    if run.part is not None:
        return _end_without_output(run, ending_of_part(stop), ledger, progress)
    job, journal = run.workload.job, run.journal
    journal.note_rows(run.number, encoded_rows(progress))
    summary_for = _summary_maker(run, ledger, progress)
    summary: Summary = {}

    def metadata(rows: Mapping[str, int], findings: Findings) -> dict[str, str]:
        summary.update(summary_for(ending_of(stop, rows, free_tier=job.request.free_tier), rows) | findings)
        return output_metadata(job, summary)

    write_output(run.workload, journal, run.scratch or output_path(job), metadata, interruption.check)
    write_private(run.folder.summary, _summary_file(summary))
    journal.finish_run(
        run.number, milliseconds(), _json(summary["rows"]), summary["exit_code"], summary["reason"]
    )
    return summary


def _end_without_output(run: _Run, ending: Ending, ledger: Ledger, progress: Progress) -> Summary:
    """Writes the summary of a run whose output was not written, and the end of the run."""
    rows = counted_rows(progress.rows_so_far())
    summary = _summary_maker(run, ledger, progress)(ending, rows) | {"output_written": False}
    write_private(run.folder.summary, _summary_file(summary))
    run.journal.finish_run(
        run.number, milliseconds(), encoded_rows(progress), ending.exit_code, ending.reason
    )
    return summary


def _tell_of_fault(run: _Run, error: Exception, ledger: Ledger, progress: Progress) -> None:
    """As far as the fault lets it: what an older run has said must not stand as if it were this one's."""
    with suppress(OSError):
        run.folder.summary.unlink(missing_ok=True)
    with suppress(BatchrunError):
        _end_without_output(run, ending_of_fault(error), ledger, progress)


def _summary_maker(
    run: _Run, ledger: Ledger, progress: Progress
) -> Callable[[Ending, Mapping[str, int | None]], Summary]:
    """Takes the amounts from the journal as it is now; what it returns makes the summary of them."""
    job, journal, sandbox = run.workload.job, run.journal, run.target.sandbox
    life, this_run = (journal.totals(sandbox, run=number).at_the_end for number in (None, run.number))
    by_balance = journal.uncertain_credits_by_balance(sandbox)

    def summary_for(ending: Ending, rows: Mapping[str, int | None]) -> Summary:
        return summary_of(
            ending,
            rows,
            life,
            this_run,
            budget_nano_usd=job.budget.nano_usd,
            started_at=run.started_at,
            finished_at=milliseconds(),
            output=None if run.scratch else str(output_path(job)),
            output_written=True,
            needs_person=_needs_person(ending, this_run, journal),
            sandbox=sandbox,
            given_up=run.given_up,
            last_error=progress.last_error,
            uncertain_credits_used=by_balance,
            # Without prices there is no worst case that an answer could pass.
            overruns=ledger.overruns if prices(job, sandbox) else 0,
        )

    return summary_for


def _needs_person(ending: Ending, this_run: Totals, journal: Journal) -> bool:
    """Not where the next run goes on by itself; but a cap that has let nothing through for a day won't do."""
    if ending.exit_code == EXIT_DONE or not ending.goes_on_by_itself:
        return ending.exit_code != EXIT_DONE
    return not this_run.requests and not journal.answers_since(milliseconds() - MILLISECONDS_PER_DAY)


def _summary_file(summary: Summary) -> str:
    return f"{msgspec.json.format(_json(summary), indent=2)}\n"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
