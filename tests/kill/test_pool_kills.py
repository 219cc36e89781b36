"""Two jobs with one budget, killed with SIGKILL at random and resumed, against a sandbox with resets."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from batchrun.errors import EXIT_BUDGET
from batchrun.runs.pool import change_pool, pool_report
from tests.kill.evidence import Snapshot, snapshot
from tests.kill.processes import SandboxProcess, command_process, finished, sandbox_process

NAMES = ("a", "b")
ROWS = 3_000
_JOB = """
[input]
path = "{name}.csv"
[prompt]
template = "{name} says: {{{{ text }}}}"
[request]
model = "abliterated-model"
max_tokens = 64
[endpoint]
base_url = "{base_url}"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
concurrency = {concurrency}
[budget]
pool = "team.budget"
[output]
path = "{name}.csv.out.csv"
"""


class Campaign:
    """The jobs in `folder`, and what their files say when nothing runs."""

    def __init__(self, folder: Path, sandbox: SandboxProcess, cap: int, seed: int) -> None:
        self.folder, self.sandbox, self.cap = folder, sandbox, cap
        self.draw = random.Random(seed)
        self.pool = folder / "team.budget"
        change_pool(self.pool, {"life": cap})
        for name, concurrency in zip(NAMES, (50, 20), strict=True):
            rows = "".join(f"row {row} {'lorem ' * (row % 9)}\n" for row in range(ROWS))
            (folder / f"{name}.csv").write_text(f"text\n{rows}")
            fields = {"name": name, "base_url": sandbox.base_url, "concurrency": concurrency}
            (folder / f"{name}.toml").write_text(_JOB.format(**fields))

    def kill_both(self) -> None:
        """Runs both jobs until one has sent something, and for a moment more. One that dies before, or ends,
        may be started again meanwhile."""
        before = self.sandbox.totals()["requests"]
        with ExitStack() as running:
            processes = []
            for name in (*NAMES, self.draw.choice(NAMES)):
                process = running.enter_context(command_process("run", f"{name}.toml", "-q", log=self.log))
                processes.append(process)
                time.sleep(self.draw.uniform(0.0, 0.7))
                if len(processes) <= len(NAMES) and self.draw.random() < 0.5:
                    process.kill()
            while self.sandbox.totals()["requests"] == before:
                if all(process.poll() is not None for process in processes):
                    break
                time.sleep(0.02)
            time.sleep(self.draw.uniform(0.0, 0.5))

    def check(self) -> int:
        """Compares journals, pool and bill, with nothing running; returns what the journals count."""
        journals = self.journals()
        counted = {name: found.settled + found.uncertain for name, found in journals.items()}
        assert sum(counted.values()) <= self.cap
        claims = self.claims()
        for name in NAMES:
            assert claims.get(name, 0) >= counted[name], f"{name} has reserved what it had not claimed"
        assert sum(claims.values()) <= self.cap
        bill = self.sandbox.settled_totals()["nano_usd"]
        assert sum(found.settled for found in journals.values()) <= bill <= sum(counted.values())
        return sum(counted.values())

    def end(self) -> None:
        """Lets both jobs run to their ends, which are at the cap, and compares to the nano-USD."""
        for name in (*NAMES, *NAMES):  # the second has taken what the first one had to give back
            assert finished(("run", f"{name}.toml", "-q"), self.log) == EXIT_BUDGET
        counted = self.check()
        assert sum(self.claims().values()) == counted, "no money is lost in the pool"
        dearest = (64 + 200) * 5_000
        assert counted > self.cap - dearest, "the pool is used up"

    def journals(self) -> dict[str, Snapshot]:
        paths = {name: self.folder / f"{name}.csv.out.run" / "journal.sqlite" for name in NAMES}
        return {name: snapshot(path) if path.exists() else Snapshot() for name, path in paths.items()}

    def claims(self) -> dict[str, int]:
        report = pool_report(self.pool, sandbox=False)
        found = dict[str, int]()
        for job in report["jobs"]:
            name = Path(job["journal"]).parent.name[0]
            found[name] = found.get(name, 0) + round(job["counted"] * 10**9)
        return found

    @property
    def log(self) -> Path:
        return self.folder / "commands.log"


@pytest.mark.parametrize(
    "rounds",
    [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
    ids=lambda rounds: f"{rounds} rounds",
)
def test_two_jobs_killed_at_random_never_pass_the_budget_they_share(tmp_path: Path, rounds: int) -> None:
    """What both journals count, reserved included, is below the cap after every kill; at the end
    the pool counts the same."""
    options = ("--latency", "0.03", "--fault", "reset-after=0.03", "--fault", "500=0.02")
    with sandbox_process(*options) as sandbox:
        campaign = Campaign(tmp_path, sandbox, cap=400 * 10**6 if rounds < 10 else 1_200 * 10**6, seed=rounds)
        counted = [0]
        for _ in range(rounds):
            campaign.kill_both()
            counted.append(campaign.check())
        assert counted[-1] > 0, "it was killed while it was sending"
        campaign.end()
