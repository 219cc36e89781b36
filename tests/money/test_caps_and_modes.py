"""Every cap is held against what is sent for, whatever sends it: first requests, repairs, votes, rows that
are sent again, a plan's sample, an evaluation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.server import Server
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.runs.plan.plan import plan_by_sample
from batchrun.runs.pool import change_pool
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings, background

ROWS = 48
REPLIES = """
[[reply]]
pattern = "That is not a valid answer"
text = "{repaired}"
[[reply]]
pattern = "."
text = "{first}"
"""


@dataclass(frozen=True)
class Mode:
    """A way to send. `before`: tables of a first run without the cap. `more`: what the capped one adds."""

    tables: Mapping[str, Any] = field(default_factory=dict)
    first: str = "yes"
    repaired: str = "no"
    before: Mapping[str, Any] | None = None
    fails_before: bool = False
    sample: int = 0
    requests_a_row: int = 1


CHOICES = {"choices": ["yes", "no"]}
MODES = {
    "plain": Mode(),
    "plain in random order": Mode({"output": {"order": "random"}}),
    "repairs": Mode({"labels": {**CHOICES, "repair": 1}}, first="hm", requests_a_row=2),
    "votes": Mode({"labels": {**CHOICES, "votes": 3}, "request": {"temperature": 1.0}}, requests_a_row=3),
    "repairs and votes": Mode(
        {"labels": {**CHOICES, "repair": 1, "votes": 3}, "request": {"temperature": 1.0}},
        first="hm",
        requests_a_row=6,
    ),
    "larger max_tokens": Mode({"retry": {"max_tokens": [16]}}, first="one two three four", requests_a_row=2),
    "failed rows again": Mode(before={}, fails_before=True),
    "invalid rows again": Mode({"labels": CHOICES}, first="hm", before={"labels": CHOICES}),
    "invalid rows again, with a repair": Mode(
        {"labels": {**CHOICES, "repair": 1}},
        first="hm",
        repaired="hm",
        before={"labels": {**CHOICES, "repair": 1}},
        requests_a_row=2,
    ),
    "failed votes again": Mode(
        {"labels": {**CHOICES, "votes": 3}, "request": {"temperature": 1.0}},
        before={"labels": {**CHOICES, "votes": 3}, "request": {"temperature": 1.0}},
        fails_before=True,
        requests_a_row=3,
    ),
    "a repair added to rows that were invalid": Mode(
        {"labels": {**CHOICES, "repair": 1}}, first="hm", before={"labels": CHOICES}
    ),
    "a plan's sample": Mode(sample=20),
    "a plan's sample with votes": Mode(
        {"labels": {**CHOICES, "votes": 3}, "request": {"temperature": 1.0}}, sample=20, requests_a_row=3
    ),
    "an evaluation": Mode({"labels": CHOICES, "evaluation": {"expected": "gold", "metric": "exact"}}),
    "an evaluation with repairs": Mode(
        {"labels": {**CHOICES, "repair": 1}, "evaluation": {"expected": "gold", "metric": "exact"}},
        first="hm",
        requests_a_row=2,
    ),
    "an evaluation of invalid rows again": Mode(
        {"labels": CHOICES, "evaluation": {"expected": "gold", "metric": "exact"}},
        first="hm",
        before={"labels": CHOICES},
    ),
}
CAPS = {
    "rows": 2,
    "usd": 0.0008,
    "usd_per_run": 0.0008,
    "usd_per_day": 0.0008,
    "tokens": 150,
    "credits": 12,
    "keep_credits": 10_000 - 12,
    "pool": 0.0008,
}
LIFE = ("usd", "usd_per_day", "tokens", "credits", "pool")
USD = ("usd", "usd_per_run", "usd_per_day", "pool")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    return MODES[request.param]


@pytest.fixture
def sandbox(mode: Mode, tmp_path: Path) -> Iterator[Sandbox]:
    (tmp_path / "replies.toml").write_text(REPLIES.format(first=mode.first, repaired=mode.repaired))
    with background(Settings(replies=tmp_path / "replies.toml", credits=10_000)) as sandbox:
        yield sandbox


def job_of(folder: Path, *parts: Mapping[str, Any]) -> Job:
    tables: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 2},
        "output": {"path": "out.parquet"},
        "limits": {"concurrency": 16},
        "retry": {"useless_rows": 0, "max_attempts": 1},
    }
    for part in parts:
        for name, values in part.items():
            tables[name] = {**tables.get(name, {}), **values}
    return make_job(tables, folder, sandbox=True)


@pytest.mark.parametrize(
    "cap", [cap if cap == "rows" else pytest.param(cap, marks=pytest.mark.slow) for cap in CAPS]
)
def test_no_mode_passes_a_cap(tmp_path: Path, sandbox: Sandbox, mode: Mode, cap: str) -> None:
    rows = [f"text {n},yes" for n in range(ROWS)]
    (tmp_path / "in.csv").write_text("\n".join(["text,gold", *rows]) + "\n")
    server = Server(sandbox.base_url, "key", sandbox=True)
    if mode.before is not None:
        if mode.fails_before:
            sandbox.provider.fault_draw.shares = {"500": 0.7}
        run_job(job_of(tmp_path, mode.before), server)
        sandbox.provider.fault_draw.shares = {}
    before = sandbox.bill()["total"]
    limit = round(CAPS[cap] + (billed(before, cap) if cap in LIFE else 0), 9)
    if cap == "keep_credits":
        limit = limit - before["credits"]
    if cap == "pool":
        change_pool(tmp_path / "team.budget", {"life": round(limit * 10**9)})
    budget = {"pool": "team.budget"} if cap == "pool" else {cap: limit}
    job = job_of(tmp_path, mode.tables, {"budget": budget})
    if mode.sample:
        summary = plan_by_sample(job, server, mode.sample)[1] or {}
    else:
        summary = run_job(job, server, retry_failed=mode.before is not None)
    after = sandbox.bill()["total"]
    assert summary["exit_code"] == 4, summary["reason"]
    assert f"budget.{cap}" in summary["reason"]
    sent = after["requests"] - before["requests"]
    assert sent > 0 or cap != "rows"
    if cap == "rows":
        assert sent <= 2 * mode.requests_a_row
    if cap not in ("rows", "keep_credits"):
        assert billed(after, cap) - (billed(before, cap) if cap not in LIFE else 0) <= limit
    if cap == "keep_credits":
        assert 10_000 - after["credits"] >= limit


def billed(totals: Mapping[str, Any], cap: str) -> float:
    if cap in ("tokens", "credits"):
        return int(
            totals["credits"] if cap == "credits" else totals["input_tokens"] + totals["output_tokens"]
        )
    return round(totals["usd"], 9) if cap in USD else 0
