"""What the account's balance says about requests without a known outcome."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from msgspec.structs import replace

from batchrun.client.server import Server
from batchrun.job.file import make_job
from batchrun.journal import Outcome, create_or_open, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.money.journals import Reports, answer_to, ask_all, failure_of, intent, start_run, writer_of

ROWS_AT_A_TIME = 60


@pytest.fixture
def billed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox bills a request when it accepts it."""
    monkeypatch.setattr("batchrun.journal.balance.LATEST_BILL_MS", 0)


def test_the_balance_to_begin_with_is_the_lowest_of_the_last_run_less_what_may_have_been_used_since(
    tmp_path: Path,
) -> None:
    """The newest attempt need not be the one that was answered, or charged, last."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    assert journal.lowest_balance(sandbox=False) is None
    reported = {1: 20, 2: 400, 3: 300, 4: 280, 5: 290}  # 1 is of an earlier run, before a top-up
    earlier, last = start_run(journal), start_run(journal)
    reports = Reports()
    writer = writer_of(journal, reports)
    for attempt in range(1, 8):
        writer.write_intent(intent(attempt, run=earlier if attempt == 1 else last))
        assert reports.committed.acquire(timeout=20)
    for attempt, balance in reported.items():
        writer.record(replace(answer_to(attempt), remaining_credits=balance))
    lost = failure_of(6, Outcome.UNCERTAIN, final=False)
    before_the_lowest, after_it = (answer_to(4).finished_at + step for step in (-1, 1))
    writer.record(replace(lost, finished_at=before_the_lowest))
    writer.record(replace(lost, attempt=7, finished_at=after_it))
    writer.close()
    assert journal.totals(sandbox=False).remaining_credits == 290
    assert journal.lowest_balance(sandbox=False) == 280 - lost.credits
    assert journal.lowest_balance(sandbox=True) is None
    journal.close()


@pytest.mark.usefixtures("billed_at_once")
def test_the_balance_shows_what_lost_answers_used(tmp_path: Path) -> None:
    """Answers are lost in the second of three runs; the bill knows what they cost."""
    summary, billed = three_runs(tmp_path, {"reset-after": 0.1, "reset-before": 0.1})
    assert summary["uncertain_credits_used"] == billed["credits"] - summary["credits"]["used"] > 0
    assert summary["uncertain_credits_used"] <= summary["credits"]["uncertain"]
    usd = summary["usd"]
    assert usd["settled"] < billed["usd"] <= usd["settled"] + usd["uncertain"]
    assert summary["uncertain_freed_usd"] > 0, "as many were not billed"


@pytest.mark.usefixtures("billed_at_once")
def test_uncertain_spend_that_was_not_billed_is_free_again_by_itself(tmp_path: Path) -> None:
    summary, billed = three_runs(tmp_path, {"reset-before": 0.2})
    assert summary["uncertain_freed_usd"] > 0
    assert summary["usd"]["uncertain"] == summary["credits"]["uncertain"] == 0
    assert summary["usd"]["settled"] == billed["usd"]
    journal = open_for_reading(tmp_path / "out.run" / "journal.sqlite")
    check_whole(journal)
    errors = journal.connection.execute("SELECT error FROM attempts WHERE outcome = 'uncertain'").fetchall()
    journal.close()
    assert errors
    assert all("not billed, by the account's balance" in error for (error,) in errors)


@pytest.mark.usefixtures("billed_at_once")
def test_a_top_up_that_hides_what_was_lost_frees_nothing(tmp_path: Path) -> None:
    summary, billed = three_runs(tmp_path, {"reset-after": 0.2}, topped_up=True)
    assert summary["uncertain_credits_used"] == 0, "as the balance has it"
    assert summary["uncertain_freed_usd"] == 0
    usd = summary["usd"]
    assert usd["settled"] < billed["usd"] <= usd["settled"] + usd["uncertain"]


def test_what_a_server_may_bill_only_later_is_not_freed(tmp_path: Path) -> None:
    """It may go on with a request whose client has gone: no balance of this run has its bill."""
    summary, _ = three_runs(tmp_path, {"reset-before": 0.2})
    assert summary["uncertain_credits_used"] == 0
    assert summary["uncertain_freed_usd"] == 0
    assert summary["usd"]["uncertain"] > 0


def test_where_nothing_is_to_be_freed_nothing_is_written(tmp_path: Path) -> None:
    """Every run looks at its end, when the disk may be full."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    ask_all(journal, range(1, 51), start_run(journal))
    journal.connection.execute("PRAGMA query_only = ON")
    assert journal.free_unbilled(sandbox=False) == 0
    journal.close()


def three_runs(folder: Path, faults: dict[str, float], *, topped_up: bool = False) -> tuple[Any, Any]:
    """The last summary of three runs, of which the second meets the faults, and the totals of the bill.

    `uncertain_freed_usd` is that of all runs. `topped_up`: before the third run, by what was lost.
    """
    freed = 0.0
    summary: dict[str, Any] = {}
    job = make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 16},
            "output": {"path": "out.parquet", "accept": ["truncated"]},
            "retry": {"max_wait_seconds": 0.1},
        },
        folder,
        sandbox=True,
    )
    with background(Settings(credits=5_000)) as sandbox:
        for run, met in enumerate([{}, faults, {}], start=1):
            _post(sandbox.base_url, "faults", met)
            if run == 3 and topped_up:
                _post(sandbox.base_url, "credits", {"credits": 5_000 - summary["credits"]["used"]})
            rows = "".join(f"row {row}\n" for row in range(run * ROWS_AT_A_TIME))
            (folder / "in.csv").write_text(f"text\n{rows}")
            summary = dict(run_job(job, Server(sandbox.base_url, "a-key", sandbox=True)))
            assert summary["exit_code"] == 0
            freed += summary["uncertain_freed_usd"]
        return {**summary, "uncertain_freed_usd": freed}, sandbox.bill()["total"]


def _post(base_url: str, path: str, values: Mapping[str, float]) -> None:
    body = json.dumps(values).encode()
    with urlopen(Request(f"{base_url}/sandbox/{path}", data=body, method="POST")) as response:
        assert response.status == 200
