"""One run, from a job to its output."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from batchrun.amounts import usd
from batchrun.client.descriptors import possible_concurrency
from batchrun.client.server import Server
from batchrun.clock import MILLISECONDS_PER_DAY, milliseconds
from batchrun.engine.shutdown import ImmediateShutdown, ShutdownRequest, handling_signals
from batchrun.errors import (
    EXIT_DONE,
    EXIT_FAULT,
    BatchrunError,
    InputError,
    MovedError,
    StorageError,
    UsageError,
)
from batchrun.job.prices import prices
from batchrun.job.spec import (
    Job,
    output_path,
    run_folder,
)
from batchrun.journal import Journal, Totals, create_or_open
from batchrun.journal.checking import check_answers_of_small, check_at_start
from batchrun.journal.upgrade import remove_copies
from batchrun.rows.dataset import Dataset, keeping_digests, open_dataset
from batchrun.rows.observer import Observer, RunStarted, combined
from batchrun.rows.scratch import check_scratch
from batchrun.rows.unsendable import unsendable_rows
from batchrun.runs.adjust.record import made_in
from batchrun.runs.adjust.request import remove_requests
from batchrun.runs.begin import RowSubset, Run, begin
from batchrun.runs.changes import accept_change, change_since_last_run
from batchrun.runs.observers.event_log import EventLog
from batchrun.runs.observers.telemetry import check_telemetry, telemetry_observers
from batchrun.runs.observers.view import MakeObserver
from batchrun.runs.output import Findings, Metadata, check_output, output_metadata, write_output
from batchrun.runs.output_record import OutputRecord, keep_record, made_of, unchanged_output
from batchrun.runs.paths import check_paths
from batchrun.runs.pool import give_back, in_sandbox, pool_of, pool_part
from batchrun.runs.rest import rest_text
from batchrun.runs.run_folder import (
    make_run_folder,
    refuse_half_salvaged,
    refuse_rescued,
    write_private,
)
from batchrun.runs.run_lock import locked
from batchrun.runs.sending import send_rows
from batchrun.runs.summary import (
    Ending,
    Summary,
    counted_rows,
    ending_of,
    ending_of_changed_input,
    ending_of_fault,
    ending_of_part,
    summary_of,
    without_output,
)
from batchrun.runs.workers import commits_of, files_of_a_request, senders
from batchrun.stops import Stop
from batchrun.tables.locations import input_state
from batchrun.tables.reader import Table
from batchrun.tables.trial import check_values


def run_job(
    job: Job,
    server: Server,
    *,
    table: Table | None = None,
    temporary_output: Path | None = None,
    part: RowSubset | None = None,
    retry_failed: bool = False,
    topped_up: bool = False,
    observers: Sequence[MakeObserver] = (),
    shutdown: ShutdownRequest | None = None,
    warn: Callable[[str], object] = lambda _: None,
    confirm: Callable[[str], bool] | None = None,
    quiet: bool = False,
) -> Summary:
    """Sends every row that has no answer yet and writes the output; returns the summary.

    A `table` replaces the job's input. A file `temporary_output` is written instead of the job's output; the
    summary doesn't name it. With a `part`, this process sends its pending rows, and writes no output.
    `topped_up` says that the account's last known balance, which `budget.keep_credits` uses, is no longer
    true. `observers` make the observers of the run, besides the log in its folder. `shutdown` lets other
    threads stop the run; signals stop it in the main thread. `warn` gets lines for the user; a `quiet` run
    has none about its input: the rows that can't be sent are in the summary. `confirm` decides whether to
    continue if most answers of the last run no longer apply; without it output.on_change does. Raises
    BatchrunError: UsageError before anything was sent, LockedError while another run is active, JournalError
    and StorageError for faults. Every other end is in the summary's `exit_code`.
    """
    started_at = milliseconds()
    if part is not None:  # a few rows aren't worth the start of workers
        job = msgspec.structs.replace(job, workers=None)
    dataset = _checked_input(job, server, table, temporary_output or output_path(job))
    concurrency = possible_concurrency(job.limits.concurrency, warn, each=files_of_a_request(job, server))
    folder = make_run_folder(run_folder(job))
    with locked(folder, warn=warn) as locks, pool_of(job, sandbox=server.sandbox) as pool:
        remove_requests(folder)  # what is asked for from now on waits until this run sends
        refuse_half_salvaged(folder)
        refuse_rescued(folder)
        dataset = keeping_digests(dataset)
        if part is None and not quiet:
            for note in (*dataset.notes, *unsendable_rows(dataset).lines()):
                warn(note)
        journal = create_or_open(folder.journal)
        try:
            check_at_start(journal, started_at)
            _refuse_made_up_answers(journal, server)
            if part is None:
                _announce_change(dataset, journal, server, warn, confirm)
            with senders(job, server, folder, warn) as open_sender:
                run = begin(
                    dataset,
                    server,
                    folder,
                    journal=journal,
                    started_at=started_at,
                    temporary_output=temporary_output,
                    topped_up=topped_up,
                    part=part,
                    retry_failed=retry_failed,
                    concurrency=concurrency,
                    open_sender=open_sender,
                    open_commits=commits_of(job, server, locks),
                    pool=pool,
                )
                summary = _observed(run, observers, shutdown)
            if summary["exit_code"] != EXIT_FAULT:
                journal.check_place()
                with suppress(OSError):
                    remove_copies(folder.journal)
            return summary
        finally:
            _keep_if_moved(journal)
            journal.close()


def _checked_input(job: Job, server: Server, table: Table | None, output: Path) -> Dataset:
    """Opens the input after all that can be known to fail later has been tried."""
    check_paths(job)
    check_telemetry(job)
    dataset = open_dataset(job, sandbox=server.sandbox, table=table)
    check_output(job, output)
    check_values(output, dataset.table)
    check_scratch(job, dataset.table.row_count)
    return dataset


def _announce_change(
    dataset: Dataset,
    journal: Journal,
    server: Server,
    warn: Callable[[str], object],
    confirm: Callable[[str], bool] | None,
) -> None:
    change = change_since_last_run(dataset, journal, sandbox=server.sandbox)
    if change is not None:
        accept_change(change, dataset.job, confirm)
        if confirm is None:
            warn(str(change))


def _keep_if_moved(journal: Journal) -> None:
    try:
        journal.check_place()
    except MovedError:
        journal.keep()


def _observed(run: Run, make: Sequence[MakeObserver], shutdown: ShutdownRequest | None) -> Summary:
    with ExitStack() as observers:
        heard_by = [
            run.progress,
            EventLog(run.folder.log),
            *(each(run.view) for each in [*make, *telemetry_observers(run.dataset.job)]),
        ]
        for each in heard_by:
            observers.callback(each.close)
        observer = combined(heard_by)
        observer.run_started(RunStarted(run.number, run.server.sandbox, run.dataset.table.row_count))
        try:
            summary = _carry_out(run, observer, shutdown)
        except BatchrunError as error:
            observer.run_failed(run.number, error)
            raise
        observer.run_ended(run.number, summary)
        return summary


def _carry_out(run: Run, observer: Observer, by_program: ShutdownRequest | None) -> Summary:
    """Sends the rows and writes the output. The summary has the reason if that fails, also for a fault."""
    with handling_signals(by_program) as shutdown:
        try:
            stop = send_rows(run, observer, shutdown)
            if run.server.sandbox:
                stop = in_sandbox(stop)
            observer.output_begun()
            return _finish(run, stop, shutdown)
        except ImmediateShutdown:
            return _end_without_output(run, without_output(shutdown.stop))
        except InputError as error:
            fault = StorageError(
                f"The input broke while the run was going on: {error}.\n"
                "Answers so far are safe in the journal; with the input fixed, the same command continues."
            )
            _tell_of_fault(run, fault)
            raise fault from error
        except Exception as error:
            _tell_of_fault(run, error)
            raise


def _refuse_made_up_answers(journal: Journal, server: Server) -> None:
    if server.sandbox and journal.totals(sandbox=False).answered:
        raise UsageError(
            "The output holds answers that were paid for; a sandbox run would replace them by made-up ones.\n"
            "Give the sandbox run an output of its own with --output."
        )


def _finish(run: Run, stop: Stop | None, shutdown: ShutdownRequest) -> Summary:
    """Writes the output, the summary and the end of the run. Raises ImmediateShutdown."""
    shutdown.check()
    if run.part is not None:
        return _end_without_output(run, ending_of_part(stop))
    job, journal = run.dataset.job, run.journal
    journal.note_rows(run.number, msgspec.json.encode(run.progress.rows_so_far()).decode())
    summary_for = _summary_maker(run)
    summary: Summary = {}
    life = journal.totals(run.server.sandbox).at_the_end

    def metadata(rows: Mapping[str, int], findings: Findings) -> dict[str, str]:
        ending = ending_of(
            stop,
            rows,
            findings["reasons"],
            free_tier=job.request.free_tier,
            retry_failed=run.retry_failed_before > 0,
            rest=rest_text(stop, rows, life),
        )
        if input_state(run.dataset.table.files) != run.input_state:
            ending = ending_of_changed_input(ending, rows, run.progress.answered, run.progress.rows)
        summary.update(summary_for(ending, rows) | findings)
        return output_metadata(job, summary)

    _write_unless_unchanged(run, summary, metadata, shutdown.check)
    write_private(run.folder.summary, _summary_file(summary))
    journal.finish_run(
        run.number,
        milliseconds(),
        msgspec.json.encode(_noted_rows(summary)).decode(),
        summary["exit_code"],
        summary["reason"],
    )
    return summary


def _write_unless_unchanged(
    run: Run, summary: Summary, metadata: Metadata, check: Callable[[], object]
) -> None:
    """Writes the output, unless it is on disk as it would be written.

    Either way `metadata` is called, which fills in the `summary`.
    """
    path, record = run.temporary_output or output_path(run.dataset.job), run.folder.output_record
    made = None if run.temporary_output else made_of(run.dataset, run.journal, check)
    known = None if made is None else unchanged_output(record, made.content, path, check)
    if known is not None:
        metadata(known.rows, known.findings)
        if known.states(summary):
            check_answers_of_small(run.journal)  # else nobody would read them
            summary["output_unchanged"] = True
            return
    with suppress(OSError):
        record.unlink(missing_ok=True)
    written = write_output(run.dataset, run.journal, path, metadata, check)
    if made is not None and input_state(run.dataset.table.files) == made.input_state:
        ending = summary["exit_code"], summary["reason"]
        keep_record(
            record, OutputRecord(made.content, written.content, *ending, written.rows, written.findings)
        )


def _noted_rows(summary: Summary) -> Summary:
    """Returns what the journal keeps of the rows, for the status."""
    counts = summary.get("labels", {}).get("counts", {})
    return {**summary["rows"], "reasons": summary["reasons"], **({"labels": counts} if counts else {})}


def _end_without_output(run: Run, ending: Ending) -> Summary:
    """Writes the summary of a run whose output was not written, and the end of the run."""
    so_far = run.progress.rows_so_far()
    summary = _summary_maker(run)(ending, counted_rows(so_far)) | {"output_written": False}
    write_private(run.folder.summary, _summary_file(summary))
    run.journal.finish_run(
        run.number, milliseconds(), msgspec.json.encode(so_far).decode(), ending.exit_code, ending.reason
    )
    return summary


def _tell_of_fault(run: Run, error: Exception) -> None:
    """Records a fault as far as possible: an older run's summary must not stand as this run's."""
    with suppress(OSError):
        run.folder.summary.unlink(missing_ok=True)
    with suppress(BatchrunError):
        _end_without_output(run, ending_of_fault(error))


def _summary_maker(run: Run) -> Callable[[Ending, Mapping[str, int | None]], Summary]:
    """Reads the amounts from the journal now; returns a function that makes a summary from them.

    What the account's balance has proved not to be billed is free from now on.
    """
    job, journal, sandbox = run.view.job, run.journal, run.server.sandbox
    freed = journal.free_unbilled(sandbox)
    give_back(run.share, journal)
    life, this_run = (journal.totals(sandbox, run=number).at_the_end for number in (None, run.number))
    adjustments = made_in(journal, run.number)
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
            output=None if run.temporary_output else str(output_path(job)),
            output_written=True,
            output_unchanged=False,
            needs_attention=_needs_attention(ending, this_run, journal, sandbox),
            sandbox=sandbox,
            adjustments=adjustments,
            abandoned_requests=run.abandoned_requests,
            last_error=run.progress.last_error,
            uncertain_credits_used=by_balance,
            uncertain_freed_usd=usd(freed),
            # Without prices there is no worst case that a response could exceed.
            overruns=run.ledger.overruns if prices(job, sandbox) else 0,
            **pool_part(run.share),
        )

    return summary_for


def _needs_attention(ending: Ending, this_run: Totals, journal: Journal, sandbox: bool) -> bool:
    """Returns False if the next run continues by itself, unless a cap has blocked everything for a day."""
    if ending.exit_code == EXIT_DONE or not ending.goes_on_by_itself:
        return ending.exit_code != EXIT_DONE
    return not this_run.requests and not journal.answers_since(milliseconds() - MILLISECONDS_PER_DAY, sandbox)


def _summary_file(summary: Summary) -> str:
    return f"{msgspec.json.format(msgspec.json.encode(summary).decode(), indent=2)}\n"
