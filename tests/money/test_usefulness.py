"""A run that buys nothing usable stops, and says why and what to do."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.client.request import Request
from batchrun.client.server import Server
from batchrun.engine.usefulness import IN_FLIGHT_BEFORE_FIRST_USABLE, Usefulness
from batchrun.exchange import WORKER_LOST, BillingStatus, Completion, Failure, FailureAction
from batchrun.job.file import make_job
from batchrun.journal import create_or_open
from batchrun.journal.records import Outcome
from batchrun.rows.labelling import LabelResult
from batchrun.rows.result import RowResult
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.money.journals import Reports, digest_of, failure_of, intent, start_run, writer_of

ROW = Request(b"{}", b"r" * 16, 100, 16)
RESULTS = {
    "o": RowResult("ok", Completion("yes", "end_turn")),
    "c": RowResult("invalid", Completion("yes", "max_tokens", cap=16)),
    "t": RowResult("invalid", Completion("", "max_tokens", cap=16)),
    "e": RowResult("invalid", Completion("", "end_turn")),
    "r": RowResult("invalid", Completion("", "refusal")),
    "l": RowResult("invalid", Completion("perhaps", "end_turn")),
    "v": RowResult(
        "invalid",
        Completion("yes", "end_turn"),
        LabelResult(None, "a tie: yes, no have 1 of 2 samples each", True, b"", ("yes", "no"), None, 0),
    ),
    "f": RowResult("failed", Completion(None)),
    "w": RowResult("failed", Completion(None)),
}
LOST = Failure(WORKER_LOST, "the worker a/1 was lost", FailureAction.RETRY, BillingStatus.UNKNOWN)
REFUSED = Failure("model_not_found", "no model x", FailureAction.FAIL_ROW, BillingStatus.NO, 400)
FAILURES = {"f": REFUSED, "w": LOST}


def after(ends: str, most_useless: int = 25) -> Usefulness:
    usefulness = Usefulness(most_useless)
    for end in ends:
        if end in FAILURES:
            usefulness.row_failed(FAILURES[end])
        usefulness.row_ended(RESULTS[end])
    return usefulness


@pytest.mark.parametrize(
    "ends",
    [
        "c" * 24,
        "c" * 24 + "o" + "c" * 24,
        "o" * 3 + "c" * 26,
        ("c" * 9 + "o") * 50,
        "o" * 100 + "f" * 800,
        "o" + "c" * 24 + "w" * 25,
    ],
)
def test_a_run_goes_on_while_something_comes_of_it(ends: str) -> None:
    assert after(ends).stop is None


@pytest.mark.parametrize(
    "ends",
    [
        "c" * 25,
        "o" + "c" * 25,
        "o" * 3 + "c" * 28,
        "o" * 100 + "f" * 901,
        "ctelrf" * 5,
        "o" + "c" * 24 + "w" * 25 + "c",
        "w" * 25,
    ],
)
def test_it_takes_so_many_in_a_row_and_fewer_than_one_in_ten_in_all(ends: str) -> None:
    assert after(ends).stop is not None
    assert after(ends, most_useless=0).stop is None


@pytest.mark.parametrize(
    ("end", "reason", "next_step"),
    [
        ("c", "all 25 were cut at max_tokens = 16.", "raise request.max_tokens, then"),
        ("t", "cut at max_tokens = 16 before any text came", "switch thinking off with request.extra"),
        ("e", "had no text", "prompt or model"),
        ("r", "were refusals", "prompt or the model"),
        ("l", "not valid labels", "[labels]"),
        ("v", "votes for several labels", "raise labels.votes"),
        ("f", "failed with model_not_found (no model x)", "fix the cause"),
    ],
)
def test_the_reason_names_the_commonest_cause_and_what_to_do(end: str, reason: str, next_step: str) -> None:
    stop = after(end * 25).stop
    assert stop is not None
    assert reason in stop.reason
    assert next_step in stop.next_step
    assert stop.exit_code == 5
    mixed = after(end * 15 + "o" + end * 20 + ("r" if end == "e" else "e") * 5).stop
    assert mixed is not None
    assert "20 of 25" in mixed.reason
    assert reason.removeprefix("all 25 ") in mixed.reason


def test_few_are_in_flight_until_a_first_usable_answer_has_come() -> None:
    assert after("").most_in_flight == after("cf").most_in_flight == IN_FLIGHT_BEFORE_FIRST_USABLE
    assert after("co").most_in_flight == after("", most_useless=0).most_in_flight == float("inf")


def job(folder: Path, rows: int = 100, **request: Any) -> Any:
    pl.DataFrame({"text": [f"Tell me of {number}" for number in range(rows)]}).write_csv(folder / "in.csv")
    tables: dict[str, dict[str, Any]] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 300} | request,
        "output": {"path": "out.parquet"},
    }
    return make_job(tables, folder, sandbox=True)


def test_a_run_whose_answers_are_all_cut_stops_and_goes_on_with_more_tokens(tmp_path: Path) -> None:
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        stopped = run_job(job(tmp_path, max_tokens=2), server)
        sent = stopped["requests"]["sent"]
        assert (stopped["exit_code"], stopped["rows"]["invalid"]) == (5, sent)
        assert 25 <= sent <= 25 + IN_FLIGHT_BEFORE_FIRST_USABLE
        assert "max_tokens = 2" in stopped["reason"]
        done = run_job(job(tmp_path), server)
    assert (done["exit_code"], done["rows"]["ok"]) == (0, 100)
    assert done["requests"]["sent"] == 100 + sent


def test_rows_that_failed_in_a_run_that_stopped_are_sent_again(tmp_path: Path) -> None:
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        for _ in range(2):
            stopped = run_job(job(tmp_path, model="no-such-model"), server)
            assert stopped["exit_code"] == 5
            assert "model_not_found" in stopped["reason"]
            assert (stopped["rows"]["pending"], stopped["rows"]["failed"]) == (100, 0)
            assert 25 <= stopped["this_run"]["requests"]["sent"] <= 25 + IN_FLIGHT_BEFORE_FIRST_USABLE


def test_fewer_rows_than_it_takes_end_the_run_as_failed_and_are_not_sent_again(tmp_path: Path) -> None:
    """The run has come to its end then, and its rows are final: 3, and not 5."""
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        few = job(tmp_path, rows=24, model="no-such-model")
        done = run_job(few, server)
        assert (done["exit_code"], done["rows"]["failed"], done["rows"]["pending"]) == (3, 24, 0)
        assert run_job(few, server)["this_run"]["requests"]["sent"] == 0
        assert run_job(few, server, retry_failed=True)["this_run"]["requests"]["sent"] == 24


def test_each_run_after_a_stop_sends_at_most_as_many_useless_rows_again(tmp_path: Path) -> None:
    """Cut rows are not sent again under the same max_tokens, so that the last of them end in 3."""
    most = 25 + IN_FLIGHT_BEFORE_FIRST_USABLE
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        stopped = run_job(job(tmp_path, rows=40, max_tokens=2), server)
        sent = stopped["requests"]["sent"]
        assert (stopped["exit_code"], stopped["rows"]["pending"]) == (5, 40 - sent)
        assert 25 <= sent <= most
        rest = run_job(job(tmp_path, rows=40, max_tokens=2), server)
        assert (rest["exit_code"], rest["requests"]["sent"], rest["rows"]["invalid"]) == (3, 40, 40)
        assert run_job(job(tmp_path, rows=40, max_tokens=2), server)["requests"]["sent"] == 40


@pytest.mark.parametrize("in_doubt", [True, False])
def test_what_may_have_been_billed_is_sent_again_only_where_the_job_says_so(
    tmp_path: Path, in_doubt: bool
) -> None:
    journal = create_or_open(tmp_path / "journal.sqlite")
    run = start_run(journal)
    reports = Reports()
    writer = writer_of(journal, reports)
    for attempt, outcome in ((1, Outcome.REFUSED), (2, Outcome.UNCERTAIN)):
        writer.write_intent(intent(attempt, run=run))
        assert reports.committed.acquire(timeout=20)
        writer.record(failure_of(attempt, outcome))
    writer.close()
    digests = [digest_of(1), digest_of(2)]
    assert journal.settled_digests(digests) == dict.fromkeys(digests, True)
    journal.reopen_failures(run, in_doubt=in_doubt)
    assert journal.settled_digests(digests) == ({} if in_doubt else {digests[1]: True})
    journal.close()
