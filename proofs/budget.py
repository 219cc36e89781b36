"""Caps that are reached: how far above them the bill goes (nowhere), and how much of them is used."""

import random
import sqlite3
import tempfile
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import EXIT_BUDGET
from proofs.results import Result, Say, usd
from tests.kill.evidence import Snapshot, snapshot
from tests.kill.processes import SandboxProcess, finished, sandbox_process

_JOB = """
[input]
path = "prompts.parquet"
[prompt]
template = "{{ text }}"
[request]
model = "abliterated-model"
max_tokens = 64
[request.columns]
max_tokens = "most"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
# High, so that concurrency is what bounds the requests in flight.
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
[output]
path = "answers.parquet"
"""
_REPLIES = """
[[reply]]
pattern = "(?s)."
choices = [{ text = "yes", probability = 0.4 }, { text = "no", probability = 0.3 }, { text = "Hard to say." }]
"""
_WITH_REPAIRS = ("--set", 'labels.choices=["yes", "no"]', "--set", "labels.repair=2")
_SAMPLE_ROWS = 400


class Case(NamedTuple):
    """A cap worth `worth` average rows, out of twice as many, at so many requests in flight.

    `uniform`: all prompts are short, of one length, and have one max_tokens; otherwise lengths are mixed.
    `repairs`: three answers in ten are not valid label, and go back up to twice.
    """

    name: str
    concurrency: int
    worth: int
    latency: float
    uniform: bool = False
    faults: tuple[str, ...] = ("500=0.03",)
    repairs: bool = False


_CASES = (
    Case("cap worth 100 rows, 50 in flight", 50, 100, 0.05, uniform=True, faults=()),
    Case("mixed lengths, retries, 1 in flight", 1, 1_500, 0.0),
    Case("mixed lengths, retries, 64 in flight", 64, 2_000, 0.05),
    Case("mixed lengths, retries, 1,000 in flight", 1_000, 6_000, 0.3),
    Case("mixed lengths, retries, repairs, 64 in flight", 64, 2_000, 0.05, repairs=True),
    Case(
        "mixed lengths, lost answers, 64 in flight", 64, 2_000, 0.05, faults=("reset-after=0.02", "500=0.03")
    ),
)


class Measured(NamedTuple):
    """Amounts in nano-USD. `worst_case` is the largest that was reserved for one row; `most_in_flight`
    is the largest number of requests in flight at once."""

    exit_code: int
    cap: int
    billed: int
    billed_requests: int
    journal: Snapshot
    worst_case: int
    most_in_flight: int

    @property
    def use(self) -> float:
        """Share of the cap that was spent, or may have been."""
        return (self.journal.settled + self.journal.uncertain) / self.cap


def prove_budget(say: Say) -> list[Result]:
    results = []
    for case in _CASES:
        measured = _measure(case)
        results += _results(case, measured)
        say(f"{case.name}: {measured.billed_requests:,} billed, {measured.use:.2%} of the cap used")
    return results


def _results(case: Case, measured: Measured) -> list[Result]:
    over = max(0, measured.billed - measured.cap)
    overshoot = f"{usd(over)}, {over / measured.cap:.2%}"
    # A row of the largest worst case that doesn't fit ends the run: so much may be left over.
    least = min(0.99, 1 - measured.worst_case / measured.cap)
    return [
        Result(case.name, "exit code", str(measured.exit_code), "4", measured.exit_code == EXIT_BUDGET),
        Result(case.name, "in flight at most", f"{measured.most_in_flight:,}"),
        Result(case.name, "billed, requests billed", f"{usd(measured.billed)}, {measured.billed_requests:,}"),
        Result(case.name, "billed above the cap", overshoot, "0", over == 0),
        Result(case.name, "cap used", f"{measured.use:.2%}", f"at least {least:.1%}", measured.use >= least),
    ]


def _measure(case: Case) -> Measured:
    options = ["--latency", str(case.latency), "--latency-sigma", "0.5"]
    for fault in case.faults:
        options += ["--fault", fault]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        replies = _replies_of(case, folder)
        (folder / "job.toml").write_text(_JOB)
        average = _average_cost(case, folder, replies)
        worst_case = _write_prompts(case, 2 * case.worth, folder)
        cap = average * case.worth
        with sandbox_process(*options, *replies) as sandbox:
            exit_code = _run(case, sandbox, folder, cap)
            bill = sandbox.settled_totals()
        path = folder / "answers.run" / "journal.sqlite"
        return Measured(
            exit_code,
            cap,
            bill["nano_usd"],
            bill["billed_requests"],
            snapshot(path),
            worst_case,
            _most_in_flight(path),
        )


def _most_in_flight(journal: Path) -> int:
    """From when each attempt ended and how long it took; an overlap within a millisecond is none."""
    with closing(sqlite3.connect(journal)) as connection:
        spans = connection.execute("SELECT finished_at - latency_ms, finished_at FROM attempts").fetchall()
    events = sorted([(start, 1) for start, _ in spans] + [(end - 1, -1) for _, end in spans])
    return max(accumulate(change for _, change in events))


def _replies_of(case: Case, folder: Path) -> list[str]:
    """The sandbox's options for what it answers."""
    if not case.repairs:
        return []
    path = folder / "replies.toml"
    path.write_text(_REPLIES)
    return ["--replies", str(path)]


def _average_cost(case: Case, folder: Path, replies: list[str]) -> int:
    """Nano-USD of a row, from a run over some of them at a sandbox without faults."""
    _write_prompts(case, _SAMPLE_ROWS, folder)
    with sandbox_process(*replies) as sandbox:
        _run(case, sandbox, folder, 10**12, "--set", "output.path=sample.parquet")
        return int(sandbox.settled_totals()["nano_usd"]) // _SAMPLE_ROWS


def _run(case: Case, sandbox: SandboxProcess, folder: Path, cap: int, *options: str) -> int:
    settings = (f"budget.usd={cap / 10**9:.9f}", f"limits.concurrency={case.concurrency}")
    command: list[str | Path] = ["run", folder / "job.toml", "-q", "--base-url", sandbox.base_url, *options]
    command += _WITH_REPAIRS if case.repairs else ()
    for setting in settings:
        command += ["--set", setting]
    return finished(command, folder / "commands.log", timeout=300)


def _write_prompts(case: Case, rows: int, folder: Path) -> int:
    """Writes the input; returns a row's worst case in nano-USD at most."""
    draw = random.Random(7)  # noqa: S311 - repeatable on purpose
    texts = [f"{row:06} " + "word " * (8 if case.uniform else draw.randint(0, 250)) for row in range(rows)]
    most = [64 if case.uniform else draw.choice((16, 64, 256)) for _ in range(rows)]
    pq.write_table(pa.table({"text": texts, "most": most}), folder / "prompts.parquet")
    framing = 64 + 16
    return max(5_000 * (framing + len(text) + tokens) for text, tokens in zip(texts, most, strict=True))
