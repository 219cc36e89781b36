"""batchrun from Python: what `import batchrun` offers, over the code that the command line runs.

Exceptions are `batchrun.BatchrunError` and its kinds, as batchrun/errors.py draws them: a job, an input or
an output that is wrong (UsageError: nothing was sent), another run of the same output (LockedError), a
fault of this machine (StorageError, JournalError). A run that a cap or the endpoint stopped is a result,
not an error.
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

from batchrun.call import Call, Input, kept_if_it_fails, open_call
from batchrun.errors import EXIT_SIGTERM, UsageError
from batchrun.estimate import plan_by_sample, plan_job
from batchrun.evaluate import compare_jobs, evaluate_job
from batchrun.interruption import Interruption
from batchrun.job import Job, output_path
from batchrun.job.given import Given
from batchrun.on_finish import run_and_tell
from batchrun.output import export_job
from batchrun.pipeline import Watch
from batchrun.result import Result, read_table
from batchrun.state import status_of
from batchrun.stops import cancelled
from batchrun.summary import Summary
from batchrun.target import Target, endpoint_of, local_model, sandbox_for

if TYPE_CHECKING:
    from batchrun.sandbox import Settings


def run(
    job: Given,
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
    """Asks for every row that has no answer yet, and returns the output.

    >>> import batchrun, polars
    >>> reviews = polars.DataFrame({"id": [1, 2], "text": ["Broke at once.", "Lovely."]})
    >>> job = {
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 16},
    ...     "budget": {"usd": 2.5},
    ... }
    >>> result = batchrun.run(job, input=reviews, sandbox=True)
    >>> result.exit_code, result.reason
    (0, 'Every row has an answer (2 rows).')
    >>> result.to_polars().select("id", "status", "output_tokens").height
    2

    `job` is the path of a job file, a dict of its tables (docs/job-file.md; paths relative to the present
    folder) or a `batchrun.Job`. `settings` are put on top: `{"budget.usd": 2.5, "limits.concurrency": 64}`;
    amounts are in USD, times in seconds.

    `input` takes the place of `input.path`: a table of polars, pandas, pyarrow or another library that speaks
    Arrow, or a path. A table's rows are asked like a file's: rows of the same request share one answer.

    Where the output goes:

    - the job has an `output.path`: there, with the journal beside it, as on the command line;
    - else `journal="labels.run"`, a folder: no file is written, `Result.table` holds the output, and the next
      call with the same journal asks only for what has no answer in it;
    - else the output is in memory and the journal in a temporary folder, which is removed when the call
      returns. Then nothing can be resumed: the next call pays for every row again. Only where the call
      raises, the folder stays, and a note on the exception says where.

    `sandbox` runs against a sandbox in this process: True, or `batchrun.SandboxSettings` with scripted
    replies, limits, faults. `local` runs a small model on this machine. `api_key` takes the place of the
    key that the job names. `retry_failed` asks again for rows that failed for good, `topped_up` says that
    the account has more credits than when last seen (budget.keep_credits), `progress` shows the command
    line's display on stderr.

    Where the job's `on_finish` can't be told, a RuntimeWarning says so.

    In the main thread the first SIGINT (Ctrl-C) or SIGTERM drains what is in flight, the second ends at
    once; once journal and output are written, the signal goes on to the handler that was there before,
    which raises KeyboardInterrupt for Ctrl-C. In other threads no signal is seen.

    Raises UsageError where job, input or output are wrong, or where an event loop runs in this thread
    already (`await batchrun.arun(...)` there); LockedError while another run of this output goes on;
    StorageError and JournalError for faults. Whatever is raised, answers that came are in the journal.
    """
    _refuse_running_loop("await batchrun.arun(...)")
    call = open_call(job, input, settings, journal, sandbox=bool(sandbox), local=local)
    with kept_if_it_fails(call.temporary):
        interruption = Interruption()
        result = _run(call, sandbox, local, api_key, retry_failed, topped_up, progress, interruption)
        _hand_on_signal(interruption)
    return result


async def arun(
    job: Given,
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
    """`run`, for code that is asynchronous itself: under asyncio (uvloop too) or trio.

    >>> import asyncio, batchrun
    >>> job = {
    ...     "input": {"path": "reviews.csv"},
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 16},
    ...     "output": {"path": "labels.parquet"},
    ... }
    >>> result = asyncio.run(batchrun.arun(job, sandbox=True))
    >>> result.output.name, result.table.num_rows, result.summary["requests"]["sent"]
    ('labels.parquet', 3, 3)

    Parameters, result and exceptions are those of `run`. The run has an event loop of its own in a thread
    of its own, so that neither loop waits for the other, and hears no signals.

    Cancelling it drains what is in flight, for 30 seconds at most, and writes the output before the
    cancellation goes on: no answer is lost. An asyncio task that is cancelled a second time ends the run at
    once; what was in flight counts as spent.
    """
    arguments = (job, input, settings, journal)
    opening = partial(open_call, *arguments, sandbox=bool(sandbox), local=local)
    call = await anyio.to_thread.run_sync(opening)
    with kept_if_it_fails(call.temporary):
        interruption = Interruption()
        running = partial(
            _run, call, sandbox, local, api_key, retry_failed, topped_up, progress, interruption
        )
        return await _drained_when_cancelled(running, interruption)


def plan(
    job: Given,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sample: int = 0,
    sandbox: "bool | Settings" = False,
    local: bool = False,
    api_key: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """What a run with the same parameters would send and cost, as `batchrun plan --json` says it.

    >>> import batchrun
    >>> job = {
    ...     "input": {"path": "reviews.csv"},
    ...     "prompt": {"template": "Sentiment of this review, one word: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 16},
    ... }
    >>> plan = batchrun.plan(job, settings={"budget.usd": 1.0})
    >>> plan["rows"]["to_send"], plan["budget"]["rows_at_worst"]
    (3, 3)

    With a `sample`, so many random rows are asked for first, under the budget and as `run` asks: `expected`
    then has 95 % intervals. They are in the journal, so that neither the next plan nor a run asks for them
    again; the job has to name an output, or the call a journal. `stopped` says why the sampling ended early,
    in a run's words; it is None where it didn't. `sandbox`, `local`, `api_key` and `progress` are those of
    `run`, as are the signals.

    Raises UsageError for whatever a run would refuse; with a sample, what `run` raises.
    """
    call = open_call(job, input, settings, journal, sandbox=bool(sandbox), local=local)
    with kept_if_it_fails(call.temporary):
        if not sample:
            return plan_job(call.job, sandbox=bool(sandbox), table=call.table)
        _refuse_running_loop("await asyncio.to_thread(batchrun.plan, ...)")
        if call.temporary is not None:
            raise UsageError(
                "a sample is paid for, and this call would forget it: name an output.path or a journal"
            )
        interruption = Interruption()
        with _target(call.job, sandbox, local, api_key) as target:
            plan, _ = plan_by_sample(
                call.job,
                target,
                sample,
                table=call.table,
                scratch=call.scratch,
                watch=_watch(progress),
                interruption=interruption,
            )
        _hand_on_signal(interruption)
        return plan or {}


def status(
    job: Given,
    *,
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
) -> dict[str, Any]:
    """Where a job stands, from its journal, as `batchrun status --json` says it, also during a run.

    Raises UsageError where the job is wrong, or nothing has been run yet.
    """
    call = open_call(job, None, settings, journal, sandbox=sandbox, local=False, needs_input=False)
    return status_of(call.job, sandbox=sandbox)


def export(
    job: Given,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
    to: str | PathLike[str] | None = None,
) -> Result:
    """The output from the journal as it stands, also while a run is going on. Sends nothing.

    Written to `to`, else to the job's output; with neither, it is in `Result.table` alone. Raises
    UsageError where the job is wrong, or nothing has been run yet.
    """
    call = open_call(job, input, settings, journal, sandbox=sandbox, local=False)
    path = call.scratch if to is None else Path(to)
    summary, written = export_job(call.job, sandbox=sandbox, table=call.table, to=path)
    return _result(summary, written, call.scratch)


def evaluate(
    job: Given,
    *,
    input: Input | None = None,  # noqa: A002
    settings: Mapping[str, Any] | None = None,
    journal: str | PathLike[str] | None = None,
    sandbox: bool = False,
) -> dict[str, Any]:
    """What the answers so far tell about all rows: `evaluation` in a run's summary. Sends nothing.

    `estimate`, `interval` (95 %) and `bounds` are mean scores from 0 to 1, `n`, `of` and `missing` count
    rows, amounts are USD; docs/output.md names the rest. Raises UsageError where the job is wrong or has no
    evaluation, or nothing has been run yet.
    """
    call = open_call(job, input, settings, journal, sandbox=sandbox, local=False)
    return evaluate_job(call.job, sandbox=sandbox, table=call.table)


def compare(
    a: Given,
    b: Given,
    *,
    input: Input | None = None,  # noqa: A002
    journals: tuple[str | PathLike[str] | None, str | PathLike[str] | None] = (None, None),
    sandbox: bool = False,
) -> dict[str, Any]:
    """Two evaluations compared on the rows that both have asked, as `batchrun compare --json`. Sends nothing.

    `difference` is the mean of A's score less B's, from -1 to 1, with its 95 % `interval` and the `p_value`
    of `test`; amounts are USD. Raises UsageError where the two don't score the same rows.
    """
    calls = [
        open_call(job, input, None, journal, sandbox=sandbox, local=False)
        for job, journal in zip((a, b), journals, strict=True)
    ]
    return compare_jobs(calls[0].job, calls[1].job, sandbox=sandbox, table=calls[0].table)


async def _drained_when_cancelled(running: Callable[[], Result], interruption: Interruption) -> Result:
    """What `running` returns or raises, a run in a thread of its own that heeds `interruption`.

    A cancellation drains the run and goes on once that has ended; a second one, which asyncio alone lets
    through, ends the run at once.
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
            interruption.ask(cancelled())
            with anyio.CancelScope(shield=True):
                try:
                    await ended.wait()
                except anyio.get_cancelled_exc_class():
                    interruption.ask(cancelled(at_once=True))
            if ended.is_set() and (error := outcome.exception()) is not None:
                cancellation.add_note(f"The run had an error, too: {error}")
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
    interruption: Interruption,
) -> Result:
    with _target(call.job, sandbox, local, api_key) as target:
        summary = run_and_tell(
            call.job,
            target,
            lambda trouble: warnings.warn(trouble, RuntimeWarning, stacklevel=2),
            table=call.table,
            scratch=call.scratch,
            retry_failed=retry_failed,
            topped_up=topped_up,
            watch=_watch(progress),
            interruption=interruption,
        )
    return _result(summary, call.scratch or output_path(call.job), call.scratch)


def _result(summary: Summary, written: Path, scratch: Path | None) -> Result:
    if not summary.get("output_written", True):
        return Result(summary, None)
    if written != scratch:
        return Result(summary, written)
    table = read_table(written)
    written.unlink()
    return Result(summary, None, table)


def _target(
    job: Job, sandbox: "bool | Settings", local: bool, key: str | None
) -> AbstractContextManager[Target]:
    if local:
        return local_model()
    if not sandbox:
        return nullcontext(endpoint_of(job, os.environ, key))
    from batchrun.sandbox import Settings

    return sandbox_for(job, Settings() if sandbox is True else sandbox)


def _watch(progress: bool) -> Watch:
    if not progress:
        return lambda _: nullcontext()
    from batchrun.cli.display import watching

    return watching


def _refuse_running_loop(instead: str) -> None:
    with suppress(anyio.NoEventLoopError):
        anyio.get_current_task()
        raise UsageError(f"an event loop runs in this thread already: use `{instead}` here")


def _hand_on_signal(interruption: Interruption) -> None:
    """To the handler that was there before the run, which has only put it off."""
    if interruption.stop is not None:
        signal.raise_signal(signal.SIGTERM if interruption.stop.exit_code == EXIT_SIGTERM else signal.SIGINT)
