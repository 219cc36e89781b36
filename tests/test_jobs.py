"""The example jobs run as they stand, by hand, by cron and by systemd's rules."""

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.job.file import load_job
from tests.acceptance.command import Done, ended
from tests.forked import BatchrunProcess
from tests.forked_shell import folder_with_batchrun

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("batchrun")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the jobs and their data, so that outputs go nowhere else."""
    for name in ("jobs", "sample_data"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder: Path, job: str, *options: str) -> dict[str, object]:
    """The summary of a run against the sandbox."""
    replies = folder / "sample_data" / "replies.toml"
    arguments = ["run", f"jobs/{job}", "--sandbox", "--json", "--sandbox-replies", str(replies), *options]
    done = command(folder, *arguments)
    summary: dict[str, object] = done.summary
    assert done.code == summary["exit_code"], done.err
    return summary


@pytest.mark.parametrize("job", ["sentiment.toml", "tickets.toml"])
def test_a_labelling_job_answers_every_row_and_is_mostly_right(folder: Path, job: str) -> None:
    assert run(folder, job)["exit_code"] == 0
    output = pl.read_parquet(folder / "output" / job.replace(".toml", ".parquet"))
    assert set(output["status"]) == {"ok"}
    assert (output["output"] == output["gold"]).mean() > 0.75  # type: ignore[operator]


def test_a_capped_job_stops_at_its_cap_and_continues_with_a_higher_one(folder: Path) -> None:
    assert run(folder, "questions.toml")["exit_code"] == 4
    first = pl.read_parquet(folder / "output" / "questions.parquet")
    assert 0 < first.filter(status="ok").height < first.height
    # The file is sorted by topic; a random part of it has most of the topics.
    assert first.filter(status="ok")["topic"].n_unique() > first["topic"].n_unique() / 2
    assert run(folder, "questions.toml", "--set", "budget.usd=1")["exit_code"] == 0


def cron(folder: Path, batchrun: Path) -> None:
    """The crontab's line through a real shell, with nothing set but what cron sets; it has to be silent."""
    line = (folder / "jobs" / "crontab").read_text().splitlines()[-1]
    schedule, command = line.split(maxsplit=5)[:5], line.split(maxsplit=5)[5]
    assert schedule == ["15", "2", "*", "*", "*"]
    (folder / "key").write_text("a-key\n")
    command = command.replace("/srv/batchrun", str(folder)).replace(".venv/bin/batchrun", str(batchrun))
    result = subprocess.run(
        ["/bin/sh", "-c", f"{command} --sandbox --sandbox-replies sample_data/replies.toml"],
        env={"HOME": str(folder), "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_night_cron_asks_for_the_tickets_that_are_new(folder: Path) -> None:
    tickets = folder / "sample_data" / "tickets.csv"
    new = pl.read_csv(tickets).with_columns(pl.format("{} (again)", "body").alias("body")).head(3)
    nights = []
    with folder_with_batchrun() as forked:
        for batchrun, more in ((COMMAND, None), (forked / "batchrun", None), (forked / "batchrun", new)):
            if more is not None:
                with tickets.open("a") as file:
                    file.write(more.write_csv(include_header=False))
            cron(folder, batchrun)
            summary = json.loads((folder / "output" / "tickets-last-night.json").read_text())
            nights.append((summary["this_run"]["requests"]["sent"], summary["rows"]["pending"]))
    (all_of_them, _), *_ = nights
    assert nights == [(all_of_them, 0), (0, 0), (3, 0)]
    events = [json.loads(line)["event"] for line in (folder / "tickets.log").read_text().splitlines()]
    assert events == ["run started", "run ended"] * 3


def test_the_systemd_service_starts_a_command_that_exists(folder: Path) -> None:
    service = configparser.ConfigParser(interpolation=None)
    service.optionxform = str  # type: ignore[method-assign, assignment]
    service.read(folder / "jobs" / "batchrun-tickets.service")
    command = service["Service"]["ExecStart"].replace("/srv/batchrun/.venv/bin/batchrun", str(COMMAND))
    assert service["Service"]["EnvironmentFile"] == "/etc/batchrun/environment"
    result = subprocess.run(
        [*command.split(), "--sandbox", "--sandbox-replies", "sample_data/replies.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert int(service["Service"]["TimeoutStopSec"]) > 30


def test_the_timer_starts_the_service_of_its_name_when_cron_would(folder: Path) -> None:
    timer = configparser.ConfigParser(interpolation=None)
    timer.optionxform = str  # type: ignore[method-assign, assignment]
    timer.read(folder / "jobs" / "batchrun-tickets.timer")
    assert timer["Timer"]["OnCalendar"] == "*-*-* 02:15:00"
    assert (folder / "jobs" / "batchrun-tickets.service").exists()
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_every_example_is_a_job_that_loads(folder: Path) -> None:
    """Those that the tests above don't run, too."""
    for path in (folder / "jobs").glob("*.toml"):
        load_job(path)


def test_the_labels_job_is_reviewed_as_its_page_says(folder: Path) -> None:
    """The whole way: labels with votes, a file for a person who knows the gold labels, the precision."""
    summary = run(folder, "labels.toml")
    assert summary["rows"] == {"total": 308, "ok": 302, "invalid": 6, "failed": 0, "pending": 0, "shared": 6}
    page = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    review = ["review", "jobs/labels.toml", "--sandbox"]
    written = command(folder, *review, "--rows", "80").err.splitlines()
    assert written[0] in page
    sheet = folder / "output" / "labels-review.csv"
    gold = pl.read_csv(folder / "sample_data" / "reviews.csv")["gold"]
    rows = pl.read_csv(sheet)
    right = [gold[row - 1] for row in rows["row"]]
    # The last two rows are left for another day.
    rows.with_columns(correct=pl.Series([*right[:-2], None, None], dtype=pl.String)).write_csv(sheet)
    early = command(folder, *review, "--read", "output/labels-review.csv").out.splitlines()
    assert early[0] == "reviewed  80 rows: 63 right, 15 corrected, 2 not looked at"
    rows.with_columns(correct=pl.Series(right)).write_csv(sheet)
    read = command(folder, *review, "--read", "output/labels-review.csv").out.splitlines()
    assert len(read) > 5
    assert all(line in page for line in read), read


def command(folder: Path, *arguments: str) -> Done:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with BatchrunProcess(arguments, cwd=folder, **pipes) as process:
        return ended(process)
