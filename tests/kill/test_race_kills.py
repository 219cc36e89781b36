"""Races that are killed with SIGKILL at random and go on: one cap holds for all bills together."""

import random
import time
from pathlib import Path

import pytest

from batchrun.errors import EXIT_BUDGET
from tests.kill.evidence import snapshot
from tests.kill.processes import SandboxProcess, command_process, finished, sandbox_process

NAMES = ("a", "b", "c")
ROWS = 800
_JOB = """
[input]
path = "in.csv"
[prompt]
template = "{name} says: {{{{ text }}}}"
[request]
model = "abliterated-model"
max_tokens = 8
[endpoint]
base_url = "{base_url}"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
[output]
path = "{name}.csv"
[evaluation]
expected = "gold"
metric = "contains"
"""
CAP = 30_000_000
"""Nano-USD: for about a hundred rows of each."""
WORST_CASE_OF_A_ROW = 515_000
"""As `batchrun plan` has it: 103 tokens."""


def write_jobs(folder: Path, sandbox: SandboxProcess) -> None:
    rows = "".join(f"row {row},zebra\n" for row in range(ROWS))
    (folder / "in.csv").write_text(f"text,gold\n{rows}")
    for name in NAMES:
        (folder / f"{name}.toml").write_text(_JOB.format(name=name, base_url=sandbox.base_url))


def check(folder: Path, sandbox: SandboxProcess) -> int:
    """Compares journals and bill, with nothing running; returns what the journals count."""
    paths = [folder / f"{name}.run" / "journal.sqlite" for name in NAMES]
    found = [snapshot(path) for path in paths if path.exists()]
    counted = sum(each.settled + each.uncertain for each in found)
    assert counted <= CAP
    bill = sandbox.settled_totals()["nano_usd"]
    assert sum(each.settled for each in found) <= bill <= counted
    return counted


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="4 kills"), pytest.param(60, id="60 kills", marks=pytest.mark.slow)]
)
def test_one_cap_holds_for_a_race_that_is_killed_again_and_again(tmp_path: Path, kills: int) -> None:
    draw = random.Random(kills)
    command = ("race", *(f"{name}.toml" for name in NAMES), "--usd", str(CAP / 10**9))
    with sandbox_process("--latency", "0.02", "--fault", "reset-after=0.02") as sandbox:
        write_jobs(tmp_path, sandbox)
        for _ in range(kills):
            with command_process(*command, log=tmp_path / "log") as process:
                time.sleep(draw.uniform(0.5, 4))
                process.kill()
            check(tmp_path, sandbox)
        assert finished(command, tmp_path / "log") == EXIT_BUDGET
        counted = check(tmp_path, sandbox)
    assert counted >= CAP - WORST_CASE_OF_A_ROW
    rows = [len(snapshot(tmp_path / f"{name}.run" / "journal.sqlite").answered) for name in NAMES]
    assert max(rows) - min(rows) <= 2, "all have been sent the same rows, but for the last of them"
