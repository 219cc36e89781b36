"""Races as whole runs against the sandbox: who gets rows, what is paid, and how they go on."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGINT
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from batchrun.amounts import usd_text
from batchrun.cli import batchrun_group
from batchrun.cli.race_lines import race_lines as ended_lines
from batchrun.cli.status_text import status_lines
from batchrun.client.server import Server
from batchrun.engine.shutdown import ShutdownRequest
from batchrun.errors import LockedError, UsageError
from batchrun.evaluation.race_report import Standing
from batchrun.job.file import make_job
from batchrun.job.spec import Job, run_folder
from batchrun.runs.begin import RowSubset
from batchrun.runs.evaluate import evaluate_job
from batchrun.runs.observers.race_view import RaceView, race_lines, seconds_to_go
from batchrun.runs.observers.view import MakeObserver
from batchrun.runs.race import Candidate, race_jobs
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import make_run_folder
from batchrun.runs.run_lock import locked
from batchrun.runs.status import goes_on, state_of, status_of
from batchrun.sandbox import Sandbox, Settings, background
from batchrun.stops import interrupted

ROWS = 300
REPLIES = """
[[reply]]
pattern = "hard .*(B|C)"
text = "no"
[[reply]]
pattern = "middle .*C"
text = "no"
[[reply]]
pattern = "never"
text = "no"
[[reply]]
pattern = "."
text = "yes"
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    (tmp_path / "replies.toml").write_text(REPLIES)
    with background(Settings(replies=tmp_path / "replies.toml")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A is right in nine of ten rows, B in three of five, C in two of five."""
    kinds = ["never"] + ["hard"] * 3 + ["middle"] * 2 + ["easy"] * 4
    texts = [f"{kinds[row % 10]} {row}" for row in range(ROWS)]
    pl.DataFrame({"text": texts, "gold": ["yes"] * ROWS}).write_parquet(tmp_path / "in.parquet")
    return tmp_path


@pytest.fixture
def few(folder: Path) -> int:
    """Leaves the first rows of the table; returns how many."""
    rows = pl.read_parquet(folder / "in.parquet").head(120)
    rows.write_parquet(folder / "in.parquet")
    return len(rows)


def job_of(folder: Path, name: str, ending: str = "", **tables: Any) -> Job:
    given: dict[str, Any] = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": f"{{{{ text }}}} {ending or name}"},
        "request": {"model": "abliterated-model", "max_tokens": 4},
        "output": {"path": f"{name}.parquet"},
        "labels": {"choices": ["yes", "no"]},
        "limits": {"concurrency": 20, "requests_per_minute": 10_000_000},
        "evaluation": {"expected": "gold", "metric": "choice"},
    }
    kept = {table: keys for table, keys in (given | tables).items() if keys is not None}
    return make_job(kept, folder, sandbox=True)


def candidates(sandbox: Sandbox, *jobs: Job) -> list[Candidate]:
    server = Server(sandbox.base_url, "key", sandbox=True)
    return [Candidate(job.output.path.removesuffix(".parquet"), job, server) for job in jobs]


def race(sandbox: Sandbox, *jobs: Job, usd: float = 1.0, **more: Any) -> dict[str, Any]:
    return race_jobs(candidates(sandbox, *jobs), round(usd * 10**9), **more)


def test_the_worse_ones_are_given_up_and_the_best_one_is_named(folder: Path, sandbox: Sandbox) -> None:
    report = race(sandbox, *(job_of(folder, name) for name in "ABC"))
    assert (report["exit_code"], report["best"], report["reason"]) == (0, "A", "It is decided.")
    assert report["verdict"] == "A is the best: with 95 % certainty each of the others is worse."
    a, b, c = report["candidates"]
    assert (a["given_up"], b["given_up"]["worse_than"], c["given_up"]["worse_than"]) == (None, "A", "A")
    assert c["rows"] <= b["rows"] == a["rows"] < ROWS
    assert c["rows"] < b["rows"]
    assert a["interval"][0] < 0.9 < a["interval"][1]
    right = a["estimate"] * a["rows"]
    assert a["usd_per_correct"] == pytest.approx(a["usd"] / right)
    bill = sandbox.bill()["total"]
    assert bill["requests"] == sum(each["rows"] for each in report["candidates"])
    assert report["usd"]["spent"] == pytest.approx(bill["usd"])
    assert report["usd"]["spent"] == pytest.approx(a["usd"] + b["usd"] + c["usd"])


def test_all_get_the_same_rows_which_their_evaluations_take_for_a_sample(
    folder: Path, sandbox: Sandbox
) -> None:
    jobs = [job_of(folder, "A"), job_of(folder, "A2", "A")]
    report = race(sandbox, *jobs, usd=0.008)
    assert (report["exit_code"], report["best"]) == (4, None)
    assert "Stopped at the cap --usd" in report["reason"]
    assert "It is open between A and A2" in report["verdict"]
    assert "A further dollar buys the other" in report["verdict"]
    for job, candidate in zip(jobs, report["candidates"], strict=True):
        found = evaluate_job(job, sandbox=True)
        assert (found["n"], found["estimate"]) == (candidate["rows"], candidate["estimate"])
    assert report["differences"][0]["rows"] >= 40
    assert abs(report["candidates"][0]["rows"] - report["candidates"][1]["rows"]) <= 2


@pytest.mark.parametrize("usd", [0.0, 0.0003, 0.001, 0.004, 0.009])
def test_the_cap_holds_for_all_of_them_together(folder: Path, sandbox: Sandbox, usd: float) -> None:
    jobs = [job_of(folder, "A"), job_of(folder, "A2", "A"), job_of(folder, "A3", "A")]
    report = race(sandbox, *jobs, usd=usd)
    assert report["exit_code"] == 4
    assert sandbox.bill()["total"]["usd"] <= usd
    worst_case_of_a_row = 0.0006
    assert sandbox.bill()["total"]["usd"] >= usd - worst_case_of_a_row


def test_the_same_race_goes_on_and_so_does_a_run_without_paying_again(folder: Path, sandbox: Sandbox) -> None:
    jobs = [job_of(folder, name) for name in "ABC"]
    codes = [race(sandbox, *jobs, usd=usd)["exit_code"] for usd in (0.001, 0.002, 0.003, 1.0, 1.0)]
    assert codes[0] == 4
    assert codes[-2:] == [0, 0]
    at_once = candidates(sandbox, *jobs)
    decided = race_jobs(at_once, 10**9)
    assert sandbox.bill()["total"]["requests"] == sum(each["rows"] for each in decided["candidates"])
    summary = run_job(jobs[0], at_once[0].server)
    others = sum(each["rows"] for each in decided["candidates"][1:])
    assert summary["rows"]["ok"] == ROWS
    assert sandbox.bill()["total"]["requests"] == ROWS + others, "no row was bought twice"


def test_answers_that_a_run_has_bought_before_count_for_the_race_and_its_cap(
    folder: Path, sandbox: Sandbox
) -> None:
    jobs = [job_of(folder, "A"), job_of(folder, "B")]
    run_job(jobs[0], candidates(sandbox, jobs[0])[0].server)
    spent = sandbox.bill()["total"]["usd"]
    assert race(sandbox, *jobs, usd=spent)["exit_code"] == 4
    assert sandbox.bill()["total"]["usd"] == spent
    report = race(sandbox, *jobs)
    assert report["best"] == "A"
    assert report["candidates"][0]["rows"] == ROWS
    assert report["next_step"] == "batchrun run A writes its output"
    assert sandbox.bill()["total"]["requests"] == ROWS + report["candidates"][1]["rows"]


def test_rows_without_an_expected_answer_are_left_out_and_cost_nothing(
    folder: Path, sandbox: Sandbox
) -> None:
    table = pl.read_parquet(folder / "in.parquet").with_row_index()
    known = pl.when(pl.col("index") % 4 == 0).then(pl.col("gold"))
    table.with_columns(gold=known).drop("index").write_parquet(folder / "in.parquet")
    jobs = [job_of(folder, "A"), job_of(folder, "C")]
    report = race(sandbox, *jobs)
    assert (report["of"], report["not_scorable"]) == (ROWS // 4, ROWS - ROWS // 4)
    assert (report["best"], report["exit_code"]) == ("A", 0)
    assert sum(each["rows"] for each in report["candidates"]) == sandbox.bill()["total"]["requests"]
    for job, candidate in zip(jobs, report["candidates"], strict=True):
        assert candidate["rows"] > 0
        assert evaluate_job(job, sandbox=True)["n"] == candidate["rows"], "they are a sample"
    left_out = f"left out  {ROWS - ROWS // 4} rows without an expected answer"
    assert left_out in "\n".join(ended_lines(report))


@pytest.mark.usefixtures("few")
def test_once_all_rows_are_sent_nothing_is_left_to_find_out(folder: Path, sandbox: Sandbox) -> None:
    report = race(sandbox, job_of(folder, "A"), job_of(folder, "A2", "A"))
    assert (report["exit_code"], report["reason"], report["best"]) == (0, "All rows were sent.", None)
    assert report["verdict"].endswith("All rows are sent.")
    low, high = report["differences"][0]["interval"]
    assert low == pytest.approx(0, abs=1e-9) == high


def test_a_signal_ends_the_race_with_its_code_and_the_same_race_goes_on(
    folder: Path, few: int, sandbox: Sandbox
) -> None:
    jobs, shutdown, lines = [job_of(folder, "A"), job_of(folder, "A2", "A")], ShutdownRequest(), list[str]()

    def tell(line: str) -> None:
        lines.append(line)
        if len(lines) == 9:
            shutdown.request(interrupted(SIGINT))

    report = race(sandbox, *jobs, tell=tell, shutdown=shutdown)
    assert report["exit_code"] == 130
    assert "Interrupted by SIGINT" in report["reason"]
    assert lines[:2] == ["round 1: 20 rows for A ...", "round 1: 20 rows for A2 ..."]
    assert lines[8].startswith("scores so far: A 0.")
    assert lines[8].count("(rows: 60)") == 2
    assert race(sandbox, *jobs)["exit_code"] == 0
    assert sandbox.bill()["total"]["requests"] == 2 * few


def test_rows_that_an_outage_left_open_are_sent_again_and_count(
    folder: Path, few: int, sandbox: Sandbox
) -> None:
    jobs = [job_of(folder, name, "A", retry={"outage_seconds": 0.5}) for name in ("A", "A2")]
    race(sandbox, *jobs, usd=0.004)
    sandbox.provider.fault_draw.shares = {"500": 1.0}
    stopped = race(sandbox, *jobs)
    assert stopped["exit_code"] == 5
    assert stopped["reason"].startswith("A: The endpoint has let nothing through")
    assert [each["missing"] for each in stopped["candidates"]] == [0, 0]
    sandbox.provider.fault_draw.shares = {}
    ended = race(sandbox, *jobs)
    assert ended["exit_code"] == 0
    assert [(each["rows"], each["missing"]) for each in ended["candidates"]] == [(few, 0)] * 2
    assert sandbox.bill()["total"]["billed_requests"] == 2 * few


def test_what_rows_outside_of_the_sample_cost_is_in_a_candidate_s_usd(folder: Path, sandbox: Sandbox) -> None:
    jobs, lines = [job_of(folder, "A"), job_of(folder, "A2", "A")], list[str]()
    table = pl.read_parquet(folder / "in.parquet")
    table.with_columns(gold=pl.when(pl.int_range(pl.len()) % 10 == 0).then("gold")).write_parquet(
        folder / "in.parquet"
    )
    run_job(jobs[0], candidates(sandbox, jobs[0])[0].server)
    report = race(sandbox, *jobs, usd=sandbox.bill()["total"]["usd"] + 0.0011, tell=lines.append)
    assert sum(each["usd"] for each in report["candidates"]) == pytest.approx(report["usd"]["spent"])
    assert sandbox.bill()["total"]["usd"] == pytest.approx(report["usd"]["spent"])
    assert report["candidates"][0]["usd"] > 5 * report["candidates"][1]["usd"]
    assert len(lines) == len(set(lines)), "no line is printed twice"


def test_a_cap_of_a_candidate_s_own_holds_too_and_is_named_with_it(folder: Path, sandbox: Sandbox) -> None:
    own = job_of(folder, "B", budget={"usd": 0.001})
    report = race(sandbox, job_of(folder, "A"), own)
    assert report["exit_code"] == 4
    assert report["reason"].startswith("B: Stopped at the cap budget.usd")
    assert report["next_step"] == "raise budget.usd, then run the same command"


def test_every_turn_holds_its_cap_in_usd_against_changes(
    folder: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def seen(job: Job, server: Server, *, part: RowSubset, **more: Any) -> Any:
        held.append(part.holds_usd)
        return run_job(job, server, part=part, **more)

    monkeypatch.setattr("batchrun.runs.race.run_job", seen)
    race(sandbox, job_of(folder, "A"), job_of(folder, "B", budget={"usd": 0.001}))
    assert len(held) > 1
    assert all(held)


def test_the_display_of_a_race_has_who_is_alive_and_what_was_sent_and_spent(
    folder: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, shown = RaceView(), []

    def seen(job: Job, server: Server, *, observers: Sequence[MakeObserver], **more: Any) -> Any:
        summary = run_job(job, server, observers=observers, **more)
        shown.append(race_lines(view, 100))
        return summary

    assert race_lines(view, 100) == ["reading the tables ..."]
    monkeypatch.setattr("batchrun.runs.race.run_job", seen)
    report = race(sandbox, *(job_of(folder, name) for name in "ABC"), view=view)
    last = race_lines(view, 0)
    for candidate, line in zip(report["candidates"], last[1:4], strict=True):
        assert f"{candidate['job']}  {candidate['rows']:,} of 300 rows, score " in line
        assert f", {usd_text(round(candidate['usd'] * 10**9))}" in line
    assert "given up: worse than A" in last[3]
    assert last[-1].startswith(f"spent {usd_text(round(report['usd']['spent'] * 10**9))} + 0.00 USD reserved")
    assert "to go" in last[-1]
    assert shown[1][1:3] == ["A  20 of 300 rows, 0.001 USD", "B  20 of 300 rows, 0.001 USD"]
    assert "sandbox: nothing is paid" in shown[0][-1]
    assert max(len(line) for lines in shown for line in lines) <= 100


def test_the_time_to_go_of_a_race_is_bounded_by_its_rows_and_by_its_cap() -> None:
    view = RaceView()
    view.begun(100, 1_000, [Standing("a", 0, None, 0, "", False), Standing("b", 0, None, 0, "", False)])
    assert seconds_to_go(view, 0, view.started + 10) is None
    view.looked([Standing("a", 20, 0.9, 100, "", False), Standing("b", 20, 0.5, 100, "", True)])
    assert seconds_to_go(view, 200, view.started + 10) == 20  # 80 rows of a, at 4 a second
    assert seconds_to_go(view, 800, view.started + 10) == 2.5  # 10 rows at 20 each


def test_a_candidate_between_its_turns_is_in_a_race_and_has_not_ended(
    folder: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = job_of(folder, "A"), job_of(folder, "B")
    states = []

    def seen(job: Job, server: Server, **more: Any) -> Any:
        if job.output.path == b.output.path:
            states.append(status_of(a, sandbox=True))
        return run_job(job, server, **more)

    monkeypatch.setattr("batchrun.runs.race.run_job", seen)
    race(sandbox, a, b, usd=0.004)
    assert [(goes_on(each), state_of(each)) for each in states] == [(True, "in a race")] * len(states)
    assert "in a race that is going on" in status_lines(states[0])[-1]
    over = status_of(a, sandbox=True)
    assert (goes_on(over), state_of(over)) == (False, "a part was sent")


def test_nobody_else_spends_from_a_candidate_during_the_race(folder: Path, sandbox: Sandbox) -> None:
    jobs = [job_of(folder, "A"), job_of(folder, "B")]
    with locked(make_run_folder(run_folder(jobs[1]))), pytest.raises(LockedError, match=r"B\.run"):
        race(sandbox, *jobs)
    assert sandbox.bill()["total"]["requests"] == 0


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"evaluation": None}, r"B has no \[evaluation\]"),
        ({"evaluation": {"expected": "gold", "metric": "exact"}}, "different metrics: choice and exact"),
        ({"evaluation": {"expected": "gold", "metric": "choice", "stratify": "text"}}, "stratified sample"),
        ({"evaluation": {"expected": "gold", "metric": "choice", "target": "population"}}, "of this table"),
        ({"output": {"path": "B.parquet", "seed": 9}}, "ask in different orders"),
        ({"output": {"path": "B.parquet", "order": "input"}}, "not a random sample"),
        ({"output": {"path": "A.parquet"}}, "the same output.path"),
        ({"input": {"path": "other.parquet"}}, "different inputs: 300 and 7 rows"),
    ],
)
def test_jobs_that_cannot_be_compared_are_refused_before_anything_is_sent(
    folder: Path, sandbox: Sandbox, tables: dict[str, Any], text: str
) -> None:
    pl.read_parquet(folder / "in.parquet").head(7).write_parquet(folder / "other.parquet")
    rivals = candidates(sandbox, job_of(folder, "A"), job_of(folder, "B", **tables))
    named = [Candidate(name, each.job, each.server) for name, each in zip("AB", rivals, strict=True)]
    with pytest.raises(UsageError, match=text):
        race_jobs(named, 10**9)
    assert sandbox.bill()["total"]["requests"] == 0


def test_the_command_prints_a_table_and_json_and_refuses_what_cannot_be_capped(folder: Path) -> None:
    for name, cap in (("a", 4), ("b", 3)):
        (folder / f"{name}.toml").write_text(
            f"""
            input = {{path = "in.parquet"}}
            prompt = {{template = "{{{{ text }}}} {name.upper()}"}}
            request = {{model = "abliterated-model", max_tokens = {cap}}}
            output = {{path = "{name}.parquet"}}
            labels = {{choices = ["yes", "no"]}}
            evaluation = {{expected = "gold", metric = "choice"}}
            """
        )
    (folder / "replies.toml").write_text(REPLIES)
    names = [str(folder / f"{name}.toml") for name in "ab"]
    shared = ["--sandbox", "--sandbox-replies", str(folder / "replies.toml")]
    command = ["race", *names, *shared]
    done = CliRunner().invoke(batchrun_group, [*command, "--usd", "0.5"], standalone_mode=False)
    assert done.return_value == 0, done.output
    heading, a, b, spent, *_, verdict, end = done.stdout.splitlines()
    assert heading.split("  ")[0] == "candidate"
    assert a.startswith(names[0])
    assert "given up after" in b
    assert spent.startswith("spent     0.0")
    assert verdict == f"{names[0]} is the best: with 95 % certainty the other one is worse."
    assert end == f"It is decided. To go on: batchrun run {names[0]} sends the other rows."
    assert "scores so far: " in done.stderr
    again = CliRunner().invoke(batchrun_group, [*command, "--usd", "0.5", "--json"], standalone_mode=False)
    assert json.loads(again.stdout)["best"] == names[0]
    assert "scores so far" not in again.stderr
    for usd, text in (
        ("much", "--usd: expected a number, got much"),
        ("-1", "--usd: expected an amount from 0 to"),
        ("0", "--usd: nothing can be sent for 0 USD"),
    ):
        refused = CliRunner().invoke(batchrun_group, [*command, "--usd", usd])
        assert text in str(refused.exception)
        assert isinstance(refused.exception, UsageError)
    alone = CliRunner().invoke(batchrun_group, ["race", names[0], "--usd", "1", *shared])
    assert "takes two jobs at least" in str(alone.exception)
