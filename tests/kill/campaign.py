"""A campaign: one job, run and killed again and again, then resumed until it ends by itself."""

import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kill.evidence import RowRequest, Snapshot, row_requests, snapshot
from tests.kill.moments import Moment, Scene, any_moment
from tests.kill.processes import BilledRequest, SandboxProcess, command_process, finished, sandbox_process

CONCURRENCY = 50
FAULTS = ("reset-before=0.03", "reset-after=0.03", "500=0.02")
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
[endpoint]
base_url = "{base_url}"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
concurrency = {concurrency}
[retry]
in_doubt = "{in_doubt}"
max_attempts = 20
[output]
path = "answers.parquet"
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run and how often it is killed, under one cap after the other.

    `prompts` is the number of different prompts among the `rows`. A stage is a cap in nano-USD and the
    number of kills under it; it ends earlier where a run ends by itself.
    """

    rows: int
    stages: Sequence[tuple[int, int]]
    seed: int = 0
    prompts: int | None = None
    moment: Moment = any_moment
    in_doubt: str = "ask"
    faults: Sequence[str] = FAULTS
    latency: float = 0.05
    progress: Callable[[], object] = lambda: None


class Observation(NamedTuple):
    """Journal and bill at one instant at which nothing runs. `exit_code` is that of the run before it."""

    cap_nano_usd: int
    billed_nano_usd: int
    journal: Snapshot
    exit_code: int

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known at the end: what the job asked for, what was billed, what was written."""

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
    with _sandbox_for(plan) as sandbox:
        job = folder / "job.toml"
        job.write_text(
            _JOB.format(base_url=sandbox.base_url, concurrency=CONCURRENCY, in_doubt=plan.in_doubt)
        )
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


def _sandbox_for(plan: Plan):  # type: ignore[no-untyped-def]
    faults = [option for fault in plan.faults for option in ("--fault", fault)]
    latency = ("--latency", str(plan.latency), "--latency-sigma", "0.5", "--seed", str(plan.seed))
    return sandbox_process(*latency, *faults)


def _run_stages(plan: Plan, job: Path, sandbox: SandboxProcess) -> "list[Observation]":
    draw = random.Random(plan.seed)
    observations = []
    for cap_nano_usd, kills in plan.stages:
        command = ("run", job, "-q", "--set", f"budget.usd={cap_nano_usd / 10**9:.9f}")
        for attempt in range(kills + 1):
            kill = attempt < kills
            exit_code = _killed(command, job, sandbox, plan, draw) if kill else finished(command, _log(job))
            observations.append(_observe(job, sandbox, cap_nano_usd, exit_code))
            plan.progress()
            if exit_code in ENDS and plan.moment is any_moment:
                break
    return observations


def _killed(
    command: Sequence[str | Path], job: Path, sandbox: SandboxProcess, plan: Plan, draw: random.Random
) -> int:
    """Runs the command until the plan's moment, then kills it; returns the exit code, -9 where killed."""
    with command_process(*command, log=_log(job)) as process:
        plan.moment(Scene(process, sandbox, job.with_name("answers.parquet"), draw))
        process.kill()
        return process.wait()


def _observe(job: Path, sandbox: SandboxProcess, cap_nano_usd: int, exit_code: int) -> Observation:
    billed: int = sandbox.settled_totals()["nano_usd"]
    return Observation(cap_nano_usd, billed, snapshot(job.with_name("answers.run") / "journal.sqlite"), exit_code)


def _log(job: Path) -> Path:
    return job.with_name("commands.log")
