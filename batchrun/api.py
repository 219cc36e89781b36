"""batchrun from Python: what `import batchrun` offers, over the code that the command line runs.

Exceptions are subclasses of `batchrun.BatchrunError` (batchrun/errors.py): UsageError for a wrong job, input
or output (nothing was sent), LockedError while another run has the same output, StorageError and JournalError
for faults of this machine. A run that a cap or the endpoint stopped is a result, not an error.
"""

import os
import signal
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from batchrun.client.server import Server, endpoint_of, local_model, sandbox_for
from batchrun.engine.shutdown import ShutdownRequest
from batchrun.errors import UsageError
from batchrun.job.sources import JobSource
from batchrun.job.spec import Job, output_path
from batchrun.runs.call import Call, Input, kept_if_it_fails, open_call
from batchrun.runs.evaluate import compare_jobs, evaluate_job
from batchrun.runs.notify import run_and_notify
from batchrun.runs.observers.view import MakeObserver
from batchrun.runs.output import export_job
from batchrun.runs.plan.plan import plan_by_sample, plan_job
from batchrun.runs.result import Result, Source, read_table
from batchrun.runs.status import status_of
from batchrun.runs.summary import Summary
from batchrun.stops import AT_ONCE, DRAINING, EXIT_BY_SIGNAL, cancelled

if TYPE_CHECKING:
    from batchrun.sandbox import Settings


def run(
    job: JobSource,
    *,
    input: Input | None = None,  # noqa: A002  # the job file's word
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: "bool | Settings" = False,
    local: bool = False,
    api_key: str | None = None,
    retry_failed: bool = False,
    topped_up: bool = False,
    progress: bool = False,
) -> Result:
    """Sends every row that has no answer yet, and returns the output.

    >>> import batchrun, polars
    >>> reviews = polars.DataFrame({"id": [1, 2], "text": ["Broke at once.", "Lovely."]})
    >>> job = {
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 256},
    ...     "budget": {"usd": 2.5},
    ... }
    >>> result = batchrun.run(job, input=reviews, sandbox=True)
    >>> result.exit_code, result.reason
    (0, 'Every row has an answer (2 rows).')
    >>> result.to_polars().select("id", "status", "output_tokens").height
    2

    `job` is the path of a job file, a dict of its tables (docs/job-file.md; paths relative to the current
    folder) or a `batchrun.Job`. `settings` override it: `{"budget.usd": 2.5, "limits.concurrency": 64}`;
    amounts are in USD, times in seconds.

    `input` replaces `input.path`: a path, or a table of polars, pandas, pyarrow or another library that
    speaks Arrow. A table's rows are sent like a file's: rows with the same request share one response.

    Where the output goes:

    - the job has an `output.path`: there, with the journal beside it, as on the command line;
    - else `journal="labels.run"`, a folder: no file is written, `Result.table` holds the output, and the next
      call with the same journal sends only the rows that have no answer in it;
    - else the output is in memory and the journal in a temporary folder, which is removed when the call
      returns. Nothing can be resumed then: the next call pays for every row again. If the call raises, the
      folder is kept, and a note on the exception says where.

    `sandbox` runs against a sandbox in this process: True, or `batchrun.SandboxSettings` with scripted
    replies, limits, faults. `local` runs a small model on this machine. `api_key` replaces the key that the
    job names. `retry_failed` sends rows again that failed permanently. `topped_up` says that the account has
    more credits than when last seen (budget.keep_credits). `progress` shows the command line's display on
    stderr.

    A RuntimeWarning says so if the job's `on_finish` fails.

    In the main thread the first SIGINT (Ctrl-C) or SIGTERM drains the requests in flight, the second ends the
    run at once. Once journal and output are written, the signal is passed to the previous handler, which
    raises KeyboardInterrupt for Ctrl-C. Calls in other threads handle no signals.

    Raises UsageError if job, input or output are wrong, or if an event loop already runs in this thread
    (use `await batchrun.arun(...)` there); LockedError while another run of this output is active;
    StorageError and JournalError for faults. Whatever is raised, the responses received are in the journal.
    """
    _refuse_running_loop("await batchrun.arun(...)")
    call = open_call(job, input, settings, journal, sandbox=bool(sandbox), local=local)
    with kept_if_it_fails(call.temporary):
        shutdown = ShutdownRequest()
        result = _run(call, sandbox, local, api_key, retry_failed, topped_up, progress, shutdown)
        _hand_on_signal(shutdown)
    return result


async def arun(
    job: JobSource,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: "bool | Settings" = False,
    local: bool = False,
    api_key: str | None = None,
    retry_failed: bool = False,
    topped_up: bool = False,
    progress: bool = False,
) -> Result:
    """The asynchronous form of `run`, for asyncio (uvloop too) and trio.

    >>> import asyncio, batchrun
    >>> job = {
    ...     "input": {"path": "reviews.csv"},
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 256},
    ...     "output": {"path": "labels.parquet"},
    ... }
    >>> result = asyncio.run(batchrun.arun(job, sandbox=True))
    >>> result.output.name, result.table.num_rows, result.summary["requests"]["sent"]
    ('labels.parquet', 3, 3)

    Has the parameters, result and exceptions of `run`. The run has its own event loop in its own thread, so
    that neither loop waits for the other, and handles no signals.

    Cancelling it drains the requests in flight, for 30 seconds at most, and writes the output before the
    cancellation continues: no response is lost. An asyncio task that is cancelled a second time ends the run
    at once; the requests in flight count as spent.
    """
    arguments = (job, input, settings, journal)
    opening = partial(open_call, *arguments, sandbox=bool(sandbox), local=local)
    call = await anyio.to_thread.run_sync(opening)
    with kept_if_it_fails(call.temporary):
        shutdown = ShutdownRequest()
        running = partial(_run, call, sandbox, local, api_key, retry_failed, topped_up, progress, shutdown)
        return await _drained_when_cancelled(running, shutdown)


def plan(
    job: JobSource,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sample: int = 0,
    show: int = 0,
    sandbox: "bool | Settings" = False,
    local: bool = False,
    api_key: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Returns what a run with the same parameters would send and cost, as `batchrun plan --json` prints it.

    >>> import batchrun
    >>> job = {
    ...     "input": {"path": "reviews.csv"},
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 256},
    ... }
    >>> plan = batchrun.plan(job, settings={"budget.usd": 1.0})
    >>> plan["rows"]["to_send"], plan["budget"]["rows_at_worst"]
    (3, 3)

    `sample` is a number of random rows to send first, under the budget and as `run` sends them: `expected`
    then has 95 % intervals. Their responses are in the journal, so that neither the next plan nor a run sends
    them again; the job has to name an output, or the call a journal. `stopped` says why the sampling ended
    early, in a run's words, and is None if it didn't. `show` is a number of random rows whose requests are in
    `shown`, with the longest. `sandbox`, `local`, `api_key`, `progress` and signals work as in `run`.

    Raises UsageError for whatever a run would refuse; with a sample, what `run` raises.
    """
    if sample < 0 or show < 0:
        raise UsageError(f"sample and show are numbers of rows, got {min(sample, show)}")
    call = open_call(job, input, settings, journal, sandbox=bool(sandbox), local=local)
    with kept_if_it_fails(call.temporary):
        if not sample:
            return plan_job(call.job, sandbox=bool(sandbox), table=call.table, show=show)
        _refuse_running_loop("await asyncio.to_thread(batchrun.plan, ...)")
        if call.temporary is not None:
            raise UsageError(
                "a sample is paid for, and this call would discard it: name an output.path or a journal"
            )
        shutdown = ShutdownRequest()
        with _target(call.job, sandbox, local, api_key) as server:
            plan, _ = plan_by_sample(
                call.job,
                server,
                sample,
                table=call.table,
                temporary_output=call.temporary_output,
                observers=_observers(progress),
                shutdown=shutdown,
                show=show,
            )
        _hand_on_signal(shutdown)
        return plan or {}


def status(
    job: JobSource,
    *,
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
) -> dict[str, Any]:
    """Returns the state of a job from its journal, as `batchrun status --json` prints it, also during a run.

    Raises UsageError if the job is wrong, or nothing has been run yet.
    """
    call = open_call(job, None, settings, journal, sandbox=sandbox, local=False, needs_input=False)
    return status_of(call.job, sandbox=sandbox)


def export(
    job: JobSource,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
    to: str | PathLike[str] | None = None,
) -> Result:
    """Returns the output from the journal as it stands, also during a run. Sends nothing.

    Writes it to `to`, else to the job's output; with neither, it is in `Result.table` alone. Raises
    UsageError if the job is wrong, or nothing has been run yet.
    """
    call = open_call(job, input, settings, journal, sandbox=sandbox, local=False)
    summary, written = export_job(
        call.job,
        sandbox=sandbox,
        table=call.table,
        to=None if to is None else Path(to),
        temporary_output=call.temporary_output if to is None else None,
    )
    return _result(summary, written, call, sandbox)


def evaluate(
    job: JobSource,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
    by: str | None = None,
) -> dict[str, Any]:
    """Estimates all rows' score from the answers so far, as `evaluation` in a run's summary. Sends nothing.

    `estimate`, `interval` (95 %) and `bounds` are mean scores from 0 to 1, `n`, `of` and `missing` count
    rows, amounts are USD; docs/output.md names the rest. `by`, a column of the input, adds the
    estimates of its groups. Raises UsageError if the job is wrong or has no evaluation, or nothing has been
    run yet.
    """
    call = open_call(job, input, settings, journal, sandbox=sandbox, local=False)
    return evaluate_job(call.job, sandbox=sandbox, table=call.table, by=by)


def compare(
    a: JobSource,
    b: JobSource,
    *,
    input: Input | None = None,  # noqa: A002
    journals: tuple[str | PathLike[str] | None, str | PathLike[str] | None] = (None, None),
    sandbox: bool = False,
) -> dict[str, Any]:
    """Compares two evaluations on the rows that both have sent, as `batchrun compare --json`. Sends nothing.

    `difference` is the mean of A's score less B's, from -1 to 1, with its 95 % `interval` and the `p_value`
    of `test`; amounts are USD. Raises UsageError if the two don't score the same rows.
    """
    calls = [
        open_call(job, input, None, journal, sandbox=sandbox, local=False)
        for job, journal in zip((a, b), journals, strict=True)
    ]
    return compare_jobs(calls[0].job, calls[1].job, sandbox=sandbox, table=calls[0].table)


async def _drained_when_cancelled(running: Callable[[], Result], shutdown: ShutdownRequest) -> Result:
    """Returns or raises what `running` does, a run that heeds `shutdown`, in its own thread.

    A cancellation drains the run and continues once the run has ended; a second one, which only asyncio
    delivers, ends the run at once.
    """
    ended = anyio.Event()
    outcome: Future[Result] = Future()

    async def follow() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_settle, outcome, running, limiter=anyio.CapacityLimiter(1))
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        try:
            await ended.wait()
        except anyio.get_cancelled_exc_class() as cancellation:
            shutdown.request(cancelled())
            with anyio.CancelScope(shield=True):
                try:
                    await ended.wait()
                except anyio.get_cancelled_exc_class():
                    shutdown.request(cancelled(immediate=True))
            if ended.is_set() and (error := outcome.exception()) is not None:
                cancellation.add_note(f"The run failed, too: {error}")
            raise
    return outcome.result()


def _settle(outcome: "Future[Result]", running: Callable[[], Result]) -> None:
    try:
        outcome.set_result(running())
    except BaseException as error:
        outcome.set_exception(error)


def _run(
    call: Call,
    sandbox: "bool | Settings",
    local: bool,
    api_key: str | None,
    retry_failed: bool,
    topped_up: bool,
    progress: bool,
    shutdown: ShutdownRequest,
) -> Result:
    with _target(call.job, sandbox, local, api_key) as server:
        summary = run_and_notify(
            call.job,
            server,
            lambda trouble: warnings.warn(trouble, RuntimeWarning, stacklevel=2),
            table=call.table,
            temporary_output=call.temporary_output,
            retry_failed=retry_failed,
            topped_up=topped_up,
            observers=_observers(progress),
            shutdown=shutdown,
        )
    return _result(summary, call.temporary_output or output_path(call.job), call, bool(sandbox))


def _result(summary: Summary, written: Path, call: Call, sandbox: bool) -> Result:
    source = None if call.temporary else Source(call.job, call.table, sandbox)
    if not summary.get("output_written", True):
        return Result(summary, None, None, source)
    if written != call.temporary_output:
        return Result(summary, written, None, source)
    table = read_table(written)
    written.unlink()
    return Result(summary, None, table, source)


def _target(
    job: Job, sandbox: "bool | Settings", local: bool, key: str | None
) -> AbstractContextManager[Server]:
    if local:
        return local_model()
    if not sandbox:
        return nullcontext(endpoint_of(job, os.environ, key))
    from batchrun.sandbox import Settings

    return sandbox_for(job, Settings() if sandbox is True else sandbox)


def _observers(progress: bool) -> list[MakeObserver]:
    if not progress:
        return []
    from batchrun.runs.observers.terminal import Display

    return [Display]


def _refuse_running_loop(instead: str) -> None:
    with suppress(anyio.NoEventLoopError):
        anyio.get_current_task()
        raise UsageError(f"an event loop already runs in this thread: use `{instead}` here")


def _hand_on_signal(shutdown: ShutdownRequest) -> None:
    """Passes the signal to the handler from before the run, which has only deferred it."""
    if shutdown.stop is not None:
        number = shutdown.stop.exit_code - EXIT_BY_SIGNAL
        signal.raise_signal(number if number in (*DRAINING, *AT_ONCE) else signal.SIGINT)
