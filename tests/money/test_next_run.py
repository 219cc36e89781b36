"""What the next run makes of what earlier ones have left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.client.server import Server
from batchrun.errors import StorageError, UsageError
from batchrun.job.file import make_job
from batchrun.journal import Attempt, Intent, Journal, Outcome, create_or_open
from batchrun.runs.output import write_output
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings, background
from tests.money.journals import Reports, writer_of


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with background(Settings(credits=100)) as server:
        yield server


def run(
    folder: Path, sandbox: Sandbox, rows: list[dict[str, Any]], *, paid: bool = False, **more: Any
) -> Any:
    """The summary of a run over `rows`; `more` are tables of the job."""
    options = {name: more.pop(name) for name in ("retry_failed", "topped_up") if name in more}
    pl.DataFrame(rows).write_parquet(folder / "in.parquet")
    tables: dict[str, dict[str, Any]] = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 16},
        "output": {"path": "out.parquet", "accept": ["truncated"]},
        "endpoint": {"base_url": sandbox.base_url},
    }
    tables |= {name: tables.get(name, {}) | table for name, table in more.items()}
    job = make_job(tables, folder, sandbox=not paid)
    return run_job(job, Server(sandbox.base_url, "a-key", sandbox=not paid), **options)


def test_a_row_asked_again_and_interrupted_is_asked_by_the_next_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """Its failure of an earlier run no longer counts as its end."""
    rows = [{"text": "[sandbox:flag self-harm] one"}]
    assert run(tmp_path, sandbox, rows)["exit_code"] == 3
    journal = create_or_open(tmp_path / "out.run" / "journal.sqlite")
    ((digest,),) = journal.connection.execute("SELECT digest FROM attempts").fetchall()
    number = journal.start_run("0", 0, True, "sandbox", "f", "{}")
    reports = Reports()
    writer = writer_of(journal, reports)
    writer.write_intent(Intent(9, number, digest, 1, 0, 1, 0, 1))
    assert reports.committed.acquire(timeout=20)
    writer.record(Attempt(9, Outcome.UNCERTAIN, final=False, finished_at=1, nano_usd=1, tokens=1))
    writer.close()
    journal.close()
    summary = run(tmp_path, sandbox, rows)
    assert (summary["exit_code"], summary["rows"]["pending"], summary["this_run"]["requests"]["sent"]) == (
        3,
        0,
        1,
    )


def test_the_floor_under_the_account_holds_over_many_runs(tmp_path: Path, sandbox: Sandbox) -> None:
    rows = [{"text": f"row {row}"} for row in range(50)]
    budget = {"keep_credits": 90}
    first = run(tmp_path, sandbox, rows, budget=budget)
    assert first["exit_code"] == 4
    again = run(tmp_path, sandbox, rows, budget=budget)
    assert (again["exit_code"], again["this_run"]["requests"]["sent"]) == (4, 0)
    assert sandbox.bill()["total"]["credits"] <= 10
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Journal, "lowest_balance", lambda *_: 99)
        assert run(tmp_path, sandbox, rows, budget=budget)["this_run"]["requests"]["sent"] > 0
    looked = run(tmp_path, sandbox, rows, budget=budget, topped_up=True)
    assert looked["this_run"]["requests"]["sent"] == 1


def test_an_absurd_cell_fails_its_row_alone(tmp_path: Path, sandbox: Sandbox) -> None:
    rows = [{"text": "one", "most": 16}, {"text": "two", "most": 10**18}]
    summary = run(tmp_path, sandbox, rows, request={"columns": {"max_tokens": "most"}})
    assert (summary["rows"]["ok"], summary["rows"]["failed"]) == (1, 1)


@pytest.mark.parametrize("most", [(2, 300), (300, 2)])
def test_rows_that_differ_in_max_tokens_alone_share_the_answer_of_the_highest(
    tmp_path: Path, sandbox: Sandbox, most: tuple[int, int]
) -> None:
    rows = [{"text": "one", "most": each} for each in most]
    job: dict[str, Any] = {"request": {"columns": {"max_tokens": "most"}}, "output": {"accept": []}}
    summary = run(tmp_path, sandbox, rows, **job)
    assert (summary["exit_code"], summary["rows"]["ok"]) == (0, 2)
    assert run(tmp_path, sandbox, rows, **job)["this_run"]["requests"]["sent"] == 0


@pytest.mark.parametrize("order", ["input", "random"])
def test_a_row_that_differs_in_a_higher_max_tokens_alone_is_answered_in_the_same_run(
    tmp_path: Path, order: str
) -> None:
    """The shorter answers have ended when the rows with the higher cap begin."""
    rows = [{"text": f"row {n}", "most": 2 if n < 3 else 300} for n in range(300)]
    rows += [{"text": f"row {n}", "most": 300} for n in range(3)]
    tables: dict[str, Any] = {
        "request": {"columns": {"max_tokens": "most"}},
        "output": {"accept": [], "order": order},
        "limits": {"concurrency": 4},
    }
    with background(Settings()) as sandbox:
        first = run(tmp_path, sandbox, rows, **tables)
        assert (first["exit_code"], first["rows"]["ok"]) == (0, 303)
        assert first["requests"]["sent"] <= 303
        assert run(tmp_path, sandbox, rows, **tables)["this_run"]["requests"]["sent"] == 0


def test_a_stream_takes_the_answer_that_was_bought_in_one_piece(tmp_path: Path, sandbox: Sandbox) -> None:
    rows = [{"text": "one"}]
    run(tmp_path, sandbox, rows)
    assert run(tmp_path, sandbox, rows, request={"stream": True})["this_run"]["requests"]["sent"] == 0


def test_a_sandbox_run_does_not_replace_paid_answers(tmp_path: Path, sandbox: Sandbox) -> None:
    rows = [{"text": "one"}]
    run(tmp_path, sandbox, rows, paid=True)
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(UsageError, match="paid for"):
        run(tmp_path, sandbox, rows)
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_a_log_that_cannot_be_written_costs_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "log.jsonl").symlink_to("/dev/full")
    assert run(tmp_path, sandbox, [{"text": "one"}])["exit_code"] == 0


def test_a_salvage_that_was_broken_off_keeps_a_run_from_starting(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "salvaged.sqlite").touch()
    with pytest.raises(StorageError, match="broken off"):
        run(tmp_path, sandbox, [{"text": "one"}])


def test_what_answers_cost_above_their_worst_case_is_known_to_later_runs(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """The prices are a thousand times too low. Each run knows better from its first request on."""
    rows = [{"text": f"number {number}"} for number in range(6)]
    more = {
        "limits": {"concurrency": 1},
        "pricing": {"input_usd_per_million": 0.005, "output_usd_per_million": 0.005},
    }
    first = run(tmp_path, sandbox, rows, paid=True, budget={"rows": 1}, **more)
    cap = 3.5 * first["usd"]["settled"]
    for upto in range(2, 6):
        last = run(tmp_path, sandbox, rows, paid=True, budget={"rows": upto, "usd": cap}, **more)
    assert (last["exit_code"], last["rows"]["ok"]) == (4, 3)
    assert "budget.usd" in last["reason"]


@pytest.mark.parametrize(
    ("rows_after", "exit_code", "told"),
    [
        (3, 1, "2 rows that have a response are not in the output"),
        (7, 3, "2 rows pending that came while the run was going on"),
    ],
)
def test_an_input_that_is_replaced_under_a_run_is_said(
    tmp_path: Path,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    rows_after: int,
    exit_code: int,
    told: str,
) -> None:
    rows = [{"text": f"row {row}"} for row in range(7)]

    def replace_first(*arguments: Any) -> Any:
        pl.DataFrame(rows[:rows_after]).write_parquet(tmp_path / "in.parquet")
        return write_output(*arguments)

    monkeypatch.setattr("batchrun.runs.run.write_output", replace_first)
    summary = run(tmp_path, sandbox, rows[:5])
    assert summary["exit_code"] == exit_code
    assert told in summary["reason"]
    assert summary["rows"]["total"] == rows_after
