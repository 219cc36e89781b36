"""`batchrun status` of several jobs, and `--watch`."""

import json
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from batchrun.cli import batchrun_group
from batchrun.cli.status_text import _rows_cell, _rows_line, table_lines
from batchrun.cli.watch import SECONDS_BETWEEN_LOOKS, watch
from batchrun.journal import create_or_open, open_for_reading
from batchrun.journal import journal as journal_module
from batchrun.runs.observers.in_place import ERASE, UP_AND_ERASE
from batchrun.runs.status import _rows_known, status_of
from tests.looking.conftest import Finished, write_job
from tests.money.journals import STARTED_AT, make_journal


def status(*arguments: str) -> Result:
    return CliRunner().invoke(batchrun_group, ["status", "--sandbox", *arguments])


@pytest.fixture
def jobs(finished: Finished, tmp_path: Path) -> list[str]:
    """A finished job, and one that was never run."""
    write_job(tmp_path)
    return [str(finished.folder / "job.toml"), str(tmp_path / "job.toml")]


def test_several_jobs_have_a_line_each(jobs: list[str]) -> None:
    heading, finished, never = status(*jobs).stdout.splitlines()
    assert heading.split() == ["job", "state", "rows", "spent", "answers/min", "time", "to", "go"]
    assert finished.split(maxsplit=1)[0] == jobs[0]
    assert "  ended with 3  57 ok, 2 invalid, 1 failed of 60  " in finished
    assert " of 1 USD" in finished
    assert never.split(maxsplit=1) == [jobs[1], "not run yet"]


def test_several_jobs_as_json_are_an_object_each(jobs: list[str], finished: Finished) -> None:
    first, second = map(json.loads, status(*jobs, "--json").stdout.splitlines())
    assert first.pop("job") == jobs[0]
    assert set(first) == set(status_of(finished.job, sandbox=True))
    assert second == {"job": jobs[1], "running": False, "last_run": None}


def test_one_job_has_its_lines_and_its_object_as_before(finished: Finished) -> None:
    assert finished.command("status").stdout.startswith(
        "rows      57 ok, 2 invalid, 1 failed, 0 pending of 60"
    )
    assert json.loads(finished.command("status", "--json").stdout)["rows"]["ok"] == 57


def test_a_running_job_has_its_rate_and_its_time_to_go(finished: Finished) -> None:
    found = status_of(finished.job, sandbox=True) | {"running": True, "answers_per_minute": 1200}
    (_, line) = table_lines(["job.toml"], [found | {"seconds_to_go": 3725.4}])
    assert "  running  " in line
    assert line.endswith("  1,200        1:02:05")


@pytest.mark.parametrize(("sent_before", "found"), [(20_000, 35), (5, 13), (0, 9)])
def test_answers_since_an_instant_are_counted_from_where_they_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_before: int, found: int
) -> None:
    """Attempt n began after n ms and ended a second later; some of them ended without an answer."""
    monkeypatch.setattr(journal_module, "MOST_SENT_BEFORE", sent_before)
    make_journal(tmp_path / "journal.sqlite", 40)
    with closing(open_for_reading(tmp_path / "journal.sqlite")) as journal:
        assert journal.answers_since(STARTED_AT + 31, sandbox=False) == found
        assert journal.answers_since(STARTED_AT + 31, sandbox=True) == 0
        assert journal.answers_since(STARTED_AT + 5_000, sandbox=False) == 0
    with closing(create_or_open(tmp_path / "empty.sqlite")) as journal:
        assert journal.answers_since(0, sandbox=False) == 0


def watched(looks: list[tuple[list[str], bool]], seconds_a_look: float = 0.0) -> list[float]:
    """Watches what `looks` say; returns the waits between them."""
    waits: list[float] = []
    times = iter(range(100))
    found = iter(looks)

    def look() -> tuple[list[str], bool]:
        return next(found)

    watch(look, lambda: next(times) * seconds_a_look, waits.append)
    return waits


def test_watching_ends_with_the_last_run_and_prints_what_has_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert watched([(["one"], True), (["one"], True), (["two"], False)]) == [SECONDS_BETWEEN_LOOKS] * 2
    assert capsys.readouterr().out == "one\n\ntwo\n"


def test_watching_a_large_journal_takes_a_twentieth_of_the_time() -> None:
    assert watched([([], True), ([], False)], seconds_a_look=1.0) == [20.0]


def test_ctrl_c_ends_watching_without_an_error() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    watch(lambda: ([], True), lambda: 0.0, interrupted)


def test_on_a_terminal_the_lines_are_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    watched([(["rows      broken in two by this width"], True), (["c"], True), (["c"], False)])
    assert capsys.readouterr().out == (
        f"rows      broken in two by\n          this width\n{ERASE}{UP_AND_ERASE * 2}c\n"
    )


def test_watch_goes_without_json(finished: Finished) -> None:
    assert finished.command("status", "--watch", "--json").exit_code == 2


@pytest.mark.parametrize(
    ("noted", "goes_on", "known"),
    [
        ([(0, 0), (60, None), (70, None)], False, 60),  # killed before it knew anything
        ([(0, 0), (60, None)], True, 0),
        ([(80, 90), (60, None)], False, 80),  # killed with more than the output has
        ([(10, 100), (60, None)], False, 10),  # the job has changed
        ([(3, 5), (40, 45)], False, 40),
        ([], False, None),
    ],
)
def test_a_killed_run_hides_no_rows_that_an_earlier_one_answered(
    noted: list[tuple[int, int | None]], goes_on: bool, known: int | None
) -> None:
    counts = [
        msgspec.json.encode(
            {"total": 100, "ok": ok, "invalid": 0} | ({} if looked_at is None else {"looked_at": looked_at})
        ).decode()
        for ok, looked_at in noted
    ]
    rows = _rows_known(counts, goes_on=goes_on)
    assert known == (None if rows is None else rows["ok"])


def test_a_run_that_goes_on_does_not_call_earlier_answers_ok() -> None:
    """Only the output's pass says which of them are invalid."""
    rows: dict[str, int | None] = {
        "total": 51,
        "ok": 20,
        "invalid": 1,
        "failed": 0,
        "pending": 30,
        "shared": 0,
    }
    assert _rows_line(rows | {"looked_at": 51}) == (
        "rows      21 answered, 1 of them invalid in this run, 0 failed, 30 pending of 51 so far"
    )
    assert _rows_line(rows).startswith("rows      20 ok, 1 invalid, 0 failed, 30 pending of 51 when")
    assert _rows_cell(rows | {"looked_at": 51}) == "21 answered, 1 of them invalid in this run of 51"
    assert _rows_cell(rows) == "20 ok, 1 invalid of 51"
