"""The preview after a run: rows that have ended, few columns, and the reason of what failed."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.cli.plan_lines import plan_lines
from batchrun.cli.preview import BETWEEN_COLUMNS, NARROWEST, print_preview
from batchrun.cli.status_text import status_lines
from batchrun.cli.summary_lines import end_lines
from batchrun.client.server import Server
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.runs.plan.plan import plan_job
from batchrun.runs.run import run_job
from batchrun.runs.status import status_of
from batchrun.runs.summary import Summary
from batchrun.sandbox import Settings, background

REPLIES = """
[[reply]]
pattern = "hm"
text = "perhaps"
[[reply]]
pattern = "."
text = "yes"
"""
COLUMNS = ("first", "second", "third", "fourth", "fifth")


@pytest.fixture
def ran(tmp_path: Path) -> tuple[Job, Summary]:
    """Twelve rows in random order, of which a cap lets eight be sent; row 3 can't be sent."""
    texts = [*("hm" if n % 4 == 1 else "fine" for n in range(12))]
    texts[2] = ""
    lines = [",".join([f"{text} {n}" if text else "" for _ in COLUMNS]) for n, text in enumerate(texts)]
    (tmp_path / "in.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    (tmp_path / "replies.toml").write_text(REPLIES)
    job = make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": " ".join(f"{{{{ {name} }}}}" for name in COLUMNS)},
            "request": {"model": "abliterated-model", "max_tokens": 20},
            "output": {"path": "out.parquet", "order": "random"},
            "labels": {"choices": ["yes", "no"]},
            "budget": {"rows": 8},
        },
        tmp_path,
        sandbox=True,
    )
    with background(Settings(replies=tmp_path / "replies.toml")) as sandbox:
        return job, run_job(job, Server(sandbox.base_url, "key", sandbox=True))


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_rows_that_have_ended_are_shown_in_columns_that_can_be_read(
    ran: tuple[Job, Summary],
    width: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    job, summary = ran
    assert summary["rows"]["pending"] > 0
    print_preview(job, tmp_path / "out.parquet", 12)
    head, rule, *rows = capsys.readouterr().err.splitlines()
    assert len(rows) == 12 - summary["rows"]["pending"]
    assert "pending" not in " ".join(rows)
    assert max(map(len, (head, *rows))) <= width
    widths = [len(part) for part in rule.strip().split("\u2547")]
    assert min(widths) >= NARROWEST
    assert len(widths) <= 9
    assert len(widths) <= (width + BETWEEN_COLUMNS) // (NARROWEST + BETWEEN_COLUMNS)
    if width == 200:
        assert "fourth" not in head
        assert any("no_choice" in row or "none of the choices" in row for row in rows), rows


def test_reasons_are_shown_with_the_first_row_of_each_by_the_run_and_its_status(
    ran: tuple[Job, Summary],
) -> None:
    job, summary = ran
    invalid = summary["reasons"]["invalid_label"]
    told = f"reasons   {invalid['rows']} invalid_label (first: row {invalid['example']})"
    unsent = [line for line in end_lines(summary) if line.startswith("unsent")]
    assert told in end_lines(summary)
    assert len(unsent) == 1
    assert [
        line for line in status_lines(status_of(job, sandbox=True)) if line[:6] in ("reason", "unsent")
    ] == [
        told,
        *unsent,
    ]
    assert told in list(plan_lines(plan_job(job, sandbox=True)))


def test_labels_are_counted_by_the_run_and_its_status(ran: tuple[Job, Summary]) -> None:
    job, summary = ran
    counts = summary["labels"]["counts"]
    assert counts == {"label": {"yes": summary["rows"]["ok"]}}
    told = f"labels    {summary['rows']['ok']} yes"
    status = status_of(job, sandbox=True)
    assert told in end_lines(summary)
    assert told in status_lines(status)
    assert (status["labels"], "labels" in status["rows"]) == (counts, False)


def test_a_plan_says_why_plain_rows_failed_or_are_cut(tmp_path: Path) -> None:
    texts = ["one", "[sandbox:flag hate] two", "three", "[sandbox:flag hate] two", "five"]
    (tmp_path / "in.csv").write_text("\n".join(["text", *texts]) + "\n")
    tables: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 1, "flagged_categories": ["hate"]},
        "output": {"path": "out.parquet"},
    }
    job = make_job(tables, tmp_path, sandbox=True)
    assert plan_job(job, sandbox=True)["reasons"] == {}
    with background(Settings()) as sandbox:
        run_job(job, Server(sandbox.base_url, "key", sandbox=True))
    assert plan_job(job, sandbox=True)["reasons"] == {
        "truncated": {"rows": 3, "example": 1},
        "content_flagged": {"rows": 1, "example": 2},
    }
