"""The worst case of rows with repairs, and beside it the one without."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.cli.plan_lines import plan_lines
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.runs.plan.plan import plan_job
from batchrun.runs.run import Server, run_job
from batchrun.sandbox import Settings, background


def job_of(folder: Path, repair: int, usd: float | None = None) -> Job:
    labels: dict[str, Any] = {"choices": ["yes", "no"], "repair": repair}
    return make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 8},
            "output": {"path": "out.parquet"},
            "labels": labels,
            "retry": {"useless_rows": 0},
            "budget": {} if usd is None else {"usd": usd},
        },
        folder,
        sandbox=True,
    )


@pytest.mark.parametrize("answer", ["perhaps", "\\\\n" * 8, '\\"' * 32])
def test_the_worst_case_lets_every_row_be_repaired_as_often_as_it_may(tmp_path: Path, answer: str) -> None:
    """The answers of the last two take more bytes as JSON than as text."""
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"review {n}\n" for n in range(6)))
    (tmp_path / "replies.toml").write_text(f'[[reply]]\npattern = "."\ntext = "{answer}"\n')
    worst = plan_job(job_of(tmp_path, 2), sandbox=True)["worst"]
    with background(Settings(replies=tmp_path / "replies.toml")) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        summary = run_job(job_of(tmp_path, 2, usd=worst["usd"]), server)
        assert summary["exit_code"] == 3, summary["reason"]
        assert summary["requests"]["sent"] == worst["requests"] == 18


def test_the_plan_says_the_worst_case_with_and_without_repairs(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nreview\n")
    plain = plan_job(job_of(tmp_path, 0), sandbox=True)
    repaired = plan_job(job_of(tmp_path, 1), sandbox=True)
    worst = repaired["worst"]
    assert worst["usd_per_row_unrepaired"] == plain["worst"]["usd_per_row"] < worst["usd_per_row"]
    assert "for a row without repairs" in "\n".join(plan_lines(repaired))
    assert worst["usd_unrepaired"] == plain["worst"]["usd"] < worst["usd"]
    assert "USD without repairs)" in "\n".join(plan_lines(repaired))
    assert "without repairs" not in "\n".join(plan_lines(plain))
    assert "for a row without repairs" not in "\n".join(plan_lines(plain))
