"""A campaign: one job, run and killed again and again, then resumed until it ends by itself."""

import fcntl
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kill.evidence import RowRequest, Snapshot, row_requests, snapshot
from tests.kill.former import bring_back
from tests.kill.moments import Moment, Scene, any_moment
from tests.kill.processes import BilledRequest, SandboxProcess, command_process, finished, sandbox_process
from tests.kill.system_calls import Draw, draw_call, draw_commit

CONCURRENCY = 50
FAULTS = ("reset-before=0.03", "reset-after=0.03", "500=0.02")
_SHARE_OF_OTHERS = 0.4
ENDS = (0, 3, 4)
"""Exit codes after which the same command would do no more: all answered, some failed, at a cap."""

_JOB = """
[input]
path = "prompts.parquet"
[prompt]
template = "Say: {{{{ text }}}}"
[request]
model = "abliterated-model"
max_tokens = 64
{request}
[endpoint]
base_url = "{base_url}"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
# High, so that concurrency is what bounds the requests in flight.
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
concurrency = {concurrency}
[retry]
in_doubt = "{in_doubt}"
max_attempts = 20
[output]
path = "answers.parquet"
# Any response counts as an answer, so that the journal alone says what a row's status has to be.
accept = ["truncated", "empty"]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs and the number of kills, under one cap after the other.

    `prompts` is the number of different prompts among the `rows`. A stage is a cap in nano-USD and the
    number of kills under it; it ends earlier where a run ends before it is killed, unless
    `kill_finished`: then the next run, which has nothing to send, is killed as well. `request` and
    `job` go behind the table [request] and the whole job file; `replies` is the sandbox's reply file. With a
    library of `system_calls`, each process ends at one of its calls, as `draw_call` draws it. `others` are
    commands, with their options, of which one is killed now and then in place of a run. `module` is run in
    place of batchrun. Where `upgraded`, each process finds a journal of format 3,
    and the first one, which finds none, ends in a commit. `has_children`: the moment may kill the process
    that writes a run's journal or reads its input, and this run then ends by a fault.
    """

    rows: int
    stages: Sequence[tuple[int, int]]
    seed: int = 0
    prompts: int | None = None
    moment: Moment = any_moment
    kill_finished: bool = False
    in_doubt: str = "ask"
    faults: Sequence[str] = FAULTS
    latency: float = 0.05
    request: str = ""
    job: str = ""
    replies: str | None = None
    library: Path | None = None
    draw_call: Draw = draw_call
    others: Sequence[Sequence[str]] = ()
    module: str = "batchrun"
    upgraded: bool = False
    has_children: bool = False


class Observation(NamedTuple):
    """Journal, bill and output at one instant at which nothing runs.

    `exit_code` is that of the command before it, which was a run or sent nothing; `output_rows` is None where
    there is no output yet.
    """

    cap_nano_usd: int
    billed_nano_usd: int
    journal: Snapshot
    exit_code: int
    output_rows: int | None
    is_run: bool = True

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence at the end: the job's requests, the bill, the output."""

    plan: Plan
    asked: list[RowRequest]
    observations: list[Observation]
    bill: list[BilledRequest]
    input: pa.Table
    output: pa.Table

    @property
    def kills(self) -> int:
        return sum(observation.killed for observation in self.observations)


def run_campaign(plan: Plan, folder: Path) -> Evidence:
    """Carries the plan out in `folder`, which must be empty."""
    rows = _write_input(plan, folder / "prompts.parquet")
    with _sandbox_for(plan, folder) as sandbox:
        job = folder / "job.toml"
        fields = {"base_url": sandbox.base_url, "concurrency": CONCURRENCY, "in_doubt": plan.in_doubt}
        job.write_text(_JOB.format(**fields, request=plan.request) + plan.job)
        observations = list(_run_stages(plan, job, sandbox))
        bill = sandbox.requests()
    output = pq.read_table(folder / "answers.parquet")
    return Evidence(plan, row_requests(job), observations, bill, rows, output)


def _write_input(plan: Plan, path: Path) -> pa.Table:
    prompts = plan.prompts or plan.rows
    texts = [f"prompt {row % prompts} {'lorem ipsum ' * (row % prompts % 9)}" for row in range(plan.rows)]
    rows = pa.table({"id": range(plan.rows), "text": texts})
    pq.write_table(rows, path)
    return rows


def _sandbox_for(plan: Plan, folder: Path) -> AbstractContextManager[SandboxProcess]:
    faults = [option for fault in plan.faults for option in ("--fault", fault)]
    latency = ("--latency", str(plan.latency), "--latency-sigma", "0.5", "--seed", str(plan.seed))
    replies: tuple[str, ...] = ()
    if plan.replies is not None:
        path = folder / "replies.toml"
        path.write_text(plan.replies)
        replies = ("--replies", str(path))
    return sandbox_process(*latency, *faults, *replies)


def _run_stages(plan: Plan, job: Path, sandbox: SandboxProcess) -> Iterator[Observation]:
    draw = random.Random(plan.seed)
    for cap_nano_usd, kills in plan.stages:
        cap = ("--set", f"budget.usd={cap_nano_usd / 10**9:.9f}")
        command = ("run", job, "-q", *cap)
        exit_code = None
        for _ in range(kills):
            if plan.others and draw.random() < _SHARE_OF_OTHERS:
                name, *options = draw.choice(plan.others)
                ended = _killed((name, job, *options, *cap), job, sandbox, plan, draw)
                yield _observe(job, sandbox, cap_nano_usd, ended, is_run=False)
                exit_code = None
                continue
            exit_code = _killed(command, job, sandbox, plan, draw)
            yield _observe(job, sandbox, cap_nano_usd, exit_code)
            if exit_code in ENDS and not plan.kill_finished:
                break
        if exit_code not in ENDS:
            yield _observe(job, sandbox, cap_nano_usd, finished(command, _log(job)))


def _killed(
    command: Sequence[str | Path], job: Path, sandbox: SandboxProcess, plan: Plan, draw: random.Random
) -> int:
    """Runs the command until the plan's moment, then kills it; returns the exit code, -9 where killed."""
    draw_call = plan.draw_call if not plan.upgraded or bring_back(_journal(job)) else draw_commit
    settings = {} if plan.library is None else draw_call(draw).environment(plan.library, job.parent)
    with command_process(*command, log=_log(job), settings=settings, module=plan.module) as process:
        plan.moment(Scene(process, sandbox, job.with_name("answers.parquet"), draw))
        process.kill()
        exit_code = process.wait()
    _until_lock_is_free(job.with_name("answers.run") / "lock")
    return exit_code


def _until_lock_is_free(lock: Path) -> None:
    """Waits for the process that writes a killed run's journal, if it has one."""
    if lock.exists():
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def _observe(
    job: Path, sandbox: SandboxProcess, cap_nano_usd: int, exit_code: int, *, is_run: bool = True
) -> Observation:
    output = job.with_name("answers.parquet")
    return Observation(
        cap_nano_usd,
        sandbox.settled_totals()["nano_usd"],
        snapshot(_journal(job)),
        exit_code,
        pq.read_metadata(output).num_rows if output.exists() else None,
        is_run,
    )


def _journal(job: Path) -> Path:
    return job.with_name("answers.run") / "journal.sqlite"


def _log(job: Path) -> Path:
    return job.with_name("commands.log")
