"""Numbers for Prometheus, and what `on_finish` is told."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

import batchrun
from batchrun.cli import batchrun_group
from batchrun.errors import JobError, OutputError
from batchrun.job.file import make_job
from batchrun.rows.observer import RunStarted
from batchrun.runs.notify import exit_code_of, payload
from batchrun.runs.observers import prometheus
from batchrun.runs.observers.prometheus import PrometheusFile, as_text
from batchrun.runs.observers.view import View
from batchrun.runs.summary import with_former_keys
from tests.looking.conftest import Finished, job_in

SAMPLE = re.compile(r'(batchrun_\w+)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\} (\S+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """Every sample by its name and labels; each line is a sample or describes one."""
    found = {}
    for line in text.splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[match[1], match[2]] = float(match[3])
    return found


def test_the_file_has_the_numbers_of_the_summary(tmp_path: Path) -> None:
    rows = ["one", "two", "one", "[sandbox:flag hate]"]
    table = pl.DataFrame({"text": rows, "gold": ["yes", "no", "yes", "yes"]})
    job = job_in(tmp_path, telemetry={"prometheus": str(tmp_path / "batchrun.prom")})
    summary = batchrun.run(job, input=table, sandbox=True).summary
    found = samples((tmp_path / "batchrun.prom").read_text())
    for status in ("ok", "invalid", "failed", "pending"):
        assert found["batchrun_rows", f'output="out",status="{status}"'] == summary["rows"][status]
    settled = found["batchrun_spend_usd", 'output="out",state="settled"']
    assert settled == pytest.approx(summary["usd"]["settled"])
    assert found["batchrun_requests_total", 'output="out"'] == summary["requests"]["sent"]
    assert found["batchrun_failed_attempts_total", 'output="out",code="content_flagged"'] == 1
    assert found["batchrun_exit_code", 'output="out"'] == summary["exit_code"] == 3
    assert found["batchrun_needs_attention", 'output="out"'] == 1
    assert found["batchrun_running", 'output="out"'] == 0
    assert found["batchrun_budget_usd", 'output="out"'] == 1


def test_it_is_replaced_while_the_run_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: View
) -> None:
    monkeypatch.setattr(prometheus, "SECONDS_BETWEEN_WRITES", 0.01)
    path = tmp_path / "batchrun.prom"
    observer = PrometheusFile(view, path)
    observer.run_started(RunStarted(1, sandbox=True, rows=3))
    until(lambda: path.exists() and samples(path.read_text())["batchrun_running", 'output="out"'] == 1)
    view.progress.request_sent(1)
    until(lambda: samples(path.read_text())["batchrun_in_flight", 'output="out"'] == 1)
    observer.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_write_that_fails_does_not_end_the_run(tmp_path: Path, view: View) -> None:
    observer = PrometheusFile(view, tmp_path / "missing" / "a.prom")
    observer.run_started(RunStarted(1, sandbox=True, rows=1))
    observer.close()


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    job = job_in(tmp_path, telemetry={"prometheus": str(tmp_path / "missing" / "a.prom")})
    with pytest.raises(OutputError, match=r"a\.prom can't be written"):
        batchrun.run(job, input=pl.DataFrame({"text": ["one"], "gold": ["yes"]}), sandbox=True)
    assert not (tmp_path / "out.run").exists()


def test_labels_are_escaped() -> None:
    text = as_text([("rows", "gauge", "Rows.", [({"code": 'a"b\\c\nd'}, 1.0)])], "out")
    assert text.endswith('batchrun_rows{output="out",code="a\\"b\\\\c\\nd"} 1\n')
    assert len(samples(text)) == 1


def test_the_payload_has_the_same_keys_whatever_the_exit_code(finished: Finished) -> None:
    fault = {"exit_code": 1, "reason": "The disk is full.", "next_step": None, "needs_attention": True}
    of_run, of_fault = (payload(finished.job, with_former_keys(each)) for each in (finished.summary, fault))
    assert list(of_fault) == list(of_run)
    assert of_fault["rows"] is None
    assert of_fault["text"] == "out: The disk is full."
    assert of_fault["needs_person"] is True
    assert of_run["text"].startswith("out: Finished, but 3 rows of 60 failed or are invalid")
    assert "57 of 60 rows ok. Spent 0.00" in of_run["text"]


@pytest.mark.parametrize(("needed", "code"), [(True, 4), (False, 0)])
def test_the_process_can_exit_with_0_unless_a_person_is_needed(
    tmp_path: Path, needed: bool, code: int
) -> None:
    tables = job_in(tmp_path, input={"path": "in.parquet"}, on_finish={"exit_zero_unless_person": True})
    job = make_job(tables, tmp_path, sandbox=True)
    summary = {"exit_code": 4, "needs_attention": needed}
    assert exit_code_of(job, summary) == code
    without = make_job(job_in(tmp_path, input={"path": "in.parquet"}), tmp_path, sandbox=True)
    assert exit_code_of(without, summary) == 4


def test_a_run_at_a_cap_that_renews_itself_exits_with_0(finished: Finished, tmp_path: Path) -> None:
    options = [
        "--sandbox",
        "-q",
        "--json",
        "--set",
        "budget.rows=2",
        "--output",
        str(tmp_path / "out.parquet"),
    ]
    done = CliRunner().invoke(
        batchrun_group,
        [
            "run",
            str(finished.folder / "job.toml"),
            *options,
            "--set",
            "on_finish.exit_zero_unless_person=true",
        ],
        standalone_mode=False,
    )
    assert done.return_value == 0
    assert '"exit_code":4' in done.stdout


def test_on_finish_says_something_or_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="give command or url, or exit_zero_unless_person = true"):
        make_job(job_in(tmp_path, input={"path": "in.parquet"}, on_finish={}), tmp_path, sandbox=True)
