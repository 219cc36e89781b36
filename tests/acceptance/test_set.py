"""`batchrun set`: new caps and limits for a run that is going on in another thread."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from batchrun.cli import batchrun_group
from batchrun.client.server import Server
from batchrun.errors import JournalError, LockedError, UsageError
from batchrun.job.file import make_job
from batchrun.job.spec import Job, run_folder
from batchrun.journal import create_or_open, open_for_reading
from batchrun.journal.adjustments import Adjustment, adjustments_of, insert_adjustments
from batchrun.journal.checking import check_whole
from batchrun.rows.dataset import Dataset
from batchrun.rows.observer import Observer, RunStarted
from batchrun.runs.adjust import take
from batchrun.runs.adjust.ask import adjust_run
from batchrun.runs.adjust.request import Request, ask, take_requests, withdraw
from batchrun.runs.begin import RowSubset, begin
from batchrun.runs.observers.progress import Progress
from batchrun.runs.observers.view import View
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import RunFolder, make_run_folder
from batchrun.runs.run_lock import locked
from batchrun.runs.status import status_of
from batchrun.sandbox import Sandbox, Settings, background

ROWS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with background(Settings(latency=0.05)) as sandbox:
        yield _server(sandbox)


def _server(sandbox: Sandbox) -> Server:
    return Server(sandbox.base_url, "key", sandbox=True)


@dataclass
class Going:
    """A run in a thread, its job and, once it has ended, its summary."""

    job: Job
    folder: RunFolder
    thread: threading.Thread | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    def set(self, *assignments: str) -> dict[str, Any]:
        return adjust_run(self.folder, assignments, author="ann@host")

    def ended(self) -> dict[str, Any]:
        assert self.thread is not None
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.summary


@contextmanager
def going(folder: Path, server: Server, rows: int = ROWS, **tables: Any) -> Iterator[Going]:
    """A run that has begun to send; at the end of the block it is stopped if it hasn't ended."""
    (folder / "in.csv").write_text("text\n" + "".join(f"row {row}\n" for row in range(rows)))
    given: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 400},
        "limits": {"concurrency": 1},
        "output": {"path": "out.parquet"},
    }
    job = make_job(given | tables, folder, sandbox=True)
    run = Going(job, RunFolder(run_folder(job)))

    def carry_out() -> None:
        run.summary = dict(run_job(job, server, quiet=True))

    run.thread = threading.Thread(target=carry_out)
    run.thread.start()
    try:
        until(lambda: has_answers(run))
        yield run
    finally:
        if run.thread.is_alive():
            ask(run.folder, "test", ("stop=true",))
            run.thread.join(30)


def has_answers(run: Going) -> bool:
    try:
        return bool(status_of(run.job, sandbox=True)["answered"])
    except (UsageError, JournalError):  # the journal is just being made
        return False


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take, "SECONDS_BETWEEN_LOOKS", 0.02)


def test_a_run_takes_new_values_and_journal_status_and_summary_have_them(
    tmp_path: Path, server: Server
) -> None:
    with going(tmp_path, server, budget={"usd": 5.0}) as run:
        done = run.set("budget.usd=1.25", "limits.concurrency=20")
        settings = {"budget.usd": ["5.0", "1.25"], "limits.concurrency": ["1", "20"]}
        assert (done["run"], done["author"], done["settings"], done["refused"]) == (
            1,
            "ann@host",
            settings,
            None,
        )
        status = status_of(run.job, sandbox=True)
        if status["running"]:
            assert status["usd"]["budget"] == 1.25
        assert status["adjustments"] == [done]
        summary = run.ended()
    assert summary["rows"]["ok"] == ROWS
    assert summary["usd"]["budget"] == 1.25
    assert summary["adjustments"] == [done]
    assert status_of(run.job, sandbox=True)["usd"]["budget"] == 5.0, "the job file's cap is the next run's"
    events = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["run started", "run adjusted", "run ended"]
    with closing(open_for_reading(run.folder.journal)) as journal:
        check_whole(journal)


def test_a_raised_cap_lets_a_run_go_on(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, budget={"rows": 30}) as run:
        run.set("budget.rows=100", "limits.concurrency=20")
        assert run.ended()["rows"]["ok"] == ROWS


def test_a_cap_below_what_is_spent_stops_the_run(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, budget={"usd": 5.0}) as run:
        run.set("budget.usd=0.000001")
        summary = run.ended()
    assert summary["exit_code"] == 4
    assert "budget.usd" in summary["reason"]
    assert 0 < summary["rows"]["ok"] < ROWS
    assert summary["rows"]["pending"] == ROWS - summary["rows"]["ok"]


def test_a_new_cap_on_seconds_stops_a_run_that_had_none(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server) as run:
        run.set("budget.seconds=0.2")
        assert run.ended()["reason"].startswith("Stopped at the cap budget.seconds")


def test_stop_lets_what_is_in_flight_end(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server) as run:
        assert run.set("stop=true")["settings"] == {"stop": [None, "true"]}
        summary = run.ended()
    assert (summary["exit_code"], summary["output_written"]) == (130, True)
    assert summary["reason"].startswith("Stopped by ann@host.")
    assert summary["usd"]["uncertain"] == 0


def test_what_a_run_refuses_is_journaled_too_and_changes_nothing(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, budget={"rows": 100}) as run:
        with pytest.raises(UsageError, match=r"Run 1 refused: budget.usd can't be added"):
            run.set("budget.usd=3", "budget.rows=1")
        summary = run.ended()
    assert summary["rows"]["ok"] == ROWS
    (refused,) = summary["adjustments"]
    assert refused["settings"] == {"budget.usd": [None, "3"], "budget.rows": [None, "1"]}
    assert "has reserved nothing" in refused["refused"]


def test_a_run_that_is_ending_takes_nothing_and_says_why() -> None:
    class Notes:
        def note(self, adjustment: Adjustment) -> None:
            noted.append(adjustment)

    noted: list[Adjustment] = []
    progress = Progress(stopping_for="Stopped at the cap budget.rows.")
    run: Any = SimpleNamespace(progress=progress, number=7)
    controls: Any = Notes()
    take.take(run, Request("id", "ann", ("budget.rows=9",)), controls, Observer())
    assert noted[0].run == 7
    assert str(noted[0].refused).startswith("It is ending: Stopped at the cap budget.rows.")


@pytest.mark.parametrize("holds_usd", [True, False])
def test_only_a_run_that_is_a_race_s_turn_keeps_its_cap_in_usd(
    tmp_path: Path, server: Server, holds_usd: bool
) -> None:
    (tmp_path / "in.csv").write_text("text\na\nb\n")
    job = make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 400},
            "output": {"path": "out.parquet"},
            "budget": {"usd": 1.0},
        },
        tmp_path,
        sandbox=True,
    )
    slow = Settings(latency=0.3)
    with background(slow) as sandbox:
        part = RowSubset((0,), "{}", holds_usd=holds_usd)
        summary = run_job(job, _server(sandbox), part=part, observers=(_asks_at_the_start(job),))
    (made,) = summary["adjustments"]
    assert (made["refused"] is not None) == holds_usd
    assert not holds_usd or made["refused"].startswith("budget.usd can't change: a race holds this cap")


def _asks_at_the_start(job: Job) -> Callable[[View], Observer]:
    class Asks(Observer):
        def run_started(self, start: RunStarted) -> None:
            ask(RunFolder(run_folder(job)), "ann", ("budget.usd=9",))

    return lambda view: Asks()


def test_what_is_asked_for_before_the_run_sends_is_taken_once_it_does(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_after_a_request(dataset: Dataset, *more: Any, **options: Any) -> Any:
        ask(RunFolder(run_folder(dataset.job)), "ann", ("budget.rows=50",))
        return begin(dataset, *more, **options)

    monkeypatch.setattr("batchrun.runs.run.begin", begin_after_a_request)
    with going(tmp_path, server, budget={"rows": 100}) as run:
        until(lambda: not list(run.folder.path.glob("adjust-*")))
        assert run.set("stop=true")["run"] == 1
        first = run.ended()["adjustments"][0]
    assert (first["author"], first["settings"]) == ("ann", {"budget.rows": ["100", "50"]})


def test_an_interrupted_request_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bool:
        assert list(folder.path.glob("adjust-*"))
        raise KeyboardInterrupt

    folder = make_run_folder(tmp_path / "out.run")
    create_or_open(folder.journal).close()
    monkeypatch.setattr("batchrun.runs.adjust.ask.is_taken", interrupted)
    with locked(folder), pytest.raises(KeyboardInterrupt):
        adjust_run(folder, ["budget.usd=3"])
    assert list(folder.path.glob("adjust-*")) == []


@pytest.mark.parametrize("active", [True, False])
def test_only_a_run_that_is_over_is_said_to_have_ended_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    folder = make_run_folder(tmp_path / "out.run")
    create_or_open(folder.journal).close()
    states = iter([True, active])
    monkeypatch.setattr("batchrun.runs.adjust.ask.is_taken", lambda *_: True)
    monkeypatch.setattr("batchrun.runs.adjust.ask.is_active", lambda _: next(states))
    monkeypatch.setattr("batchrun.runs.adjust.ask._SECONDS_TO_JOURNAL", 0.0)
    with pytest.raises(LockedError) as raised:
        adjust_run(folder, ["budget.usd=3"])
    assert ("ended" in str(raised.value)) != active


def test_without_a_run_the_command_says_what_to_do(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, rows=1) as run:
        run.ended()
    with pytest.raises(UsageError, match="No run is going on"):
        run.set("budget.usd=3")
    assert list(run.folder.path.glob("adjust-*")) == []


def test_a_folder_that_is_not_a_runs_is_left_as_it_is(tmp_path: Path) -> None:
    done = command(str(tmp_path), "budget.usd=3")
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_a_request_that_no_run_takes_is_withdrawn(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, rows=1) as run:
        run.ended()
    with locked(run.folder), pytest.raises(LockedError, match="Nothing was set"):
        adjust_run(run.folder, ["budget.usd=3"], patience=0.05)
    assert list(run.folder.path.glob("adjust-*")) == []


def test_a_request_is_either_taken_or_withdrawn(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "out.run")
    first, second = ask(folder, "a", ("budget.rows=1",)), ask(folder, "b", ("budget.rows=2",))
    assert withdraw(folder, first)
    (folder.path / "adjust-x.json").write_text("not ours")
    assert take_requests(folder) == [second]
    assert not withdraw(folder, second)
    assert take_requests(folder) == []


def test_a_request_to_an_earlier_run_is_not_taken_by_the_next(tmp_path: Path, server: Server) -> None:
    with going(tmp_path, server, rows=2) as run:
        run.ended()
    ask(run.folder, "ann", ("stop=true",))
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"row {row}\n" for row in range(4)))
    summary = run_job(run.job, server, quiet=True)
    assert (summary["exit_code"], summary["adjustments"]) == (0, [])


def test_a_journal_without_adjustments_has_no_table_for_them(tmp_path: Path) -> None:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        assert adjustments_of(journal) == []
        check_whole(journal)


def test_a_damaged_record_is_an_error_and_not_a_wrong_cap(tmp_path: Path) -> None:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        with journal.connection:
            insert_adjustments(journal.connection, [Adjustment("id", 1, 0, "ann", '{"budget.usd": [nul')])
        with pytest.raises(JournalError, match="adjustments"):
            adjustments_of(journal)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(batchrun_group, ["set", *arguments])


def test_the_command_prints_what_the_run_did(tmp_path: Path, server: Server) -> None:
    (tmp_path / "job.toml").write_text(
        'input.path = "in.csv"\nprompt.template = "{{ text }}"\noutput.path = "out.parquet"\n'
        'request = {model = "abliterated-model", max_tokens = 400}\n'
    )
    with going(tmp_path, server, budget={"usd": 5.0}) as run:
        done = command(str(tmp_path / "job.toml"), "limits.requests_per_minute=900", "budget.usd=6")
        assert done.exit_code == 0, done.output
        lines = done.output.splitlines()
        assert lines[:2] == ["limits.requests_per_minute: none -> 900", "budget.usd: 5.0 -> 6"]
        assert "is unchanged" in lines[2]
        done = command(str(run.folder.path), "limits.concurrency=30", "--json")
        assert json.loads(done.output)["settings"] == {"limits.concurrency": ["1", "30"]}
        run.ended()
