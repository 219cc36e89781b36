"""What the next run makes of what earlier ones have left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.errors import StorageError, UsageError
from batchrun.job.file import make_job
from batchrun.journal import Attempt, Intent, Journal, JournalWriter, Outcome, create_or_open
from batchrun.pipeline import Target, run_job
from batchrun.sandbox import Sandbox, Settings, background


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
        "output": {"path": "out.parquet"},
        "endpoint": {"base_url": sandbox.base_url},
    }
    tables |= {name: tables.get(name, {}) | table for name, table in more.items()}
    job = make_job(tables, folder, sandbox=not paid)
    return run_job(job, Target(sandbox.base_url, "a-key", sandbox=not paid), **options)


def test_a_row_asked_again_and_interrupted_is_asked_by_the_next_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """Its failure of an earlier run no longer counts as its end."""
    rows = [{"text": "[sandbox:flag self-harm] one"}]
    assert run(tmp_path, sandbox, rows)["exit_code"] == 3
    journal = create_or_open(tmp_path / "out.run" / "journal.sqlite")
    ((digest,),) = journal.connection.execute("SELECT digest FROM attempts").fetchall()
    number = journal.start_run("0", 0, True, "sandbox", "f", "{}")
    writer = JournalWriter(journal, lambda *_: None, lambda _: None, lambda: False, lambda _: None)
    writer.intend(Intent(9, number, digest, 1, 0, 1, 0, 1))
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
