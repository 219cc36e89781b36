"""`batchrun settle`: uncertain spend as the provider's bill has it, and nothing else changed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.cli import batchrun_group
from batchrun.cli.status_text import status_lines
from batchrun.errors import LockedError, UsageError
from batchrun.job.file import load_job
from batchrun.job.spec import Job
from batchrun.journal import create_or_open, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.journal.settlement import shares
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.run_lock import locked
from batchrun.runs.settle import settle_job
from batchrun.runs.status import status_of
from tests.money.journals import Reports, ask_all, intent, start_run, writer_of

JOB = """
input.path = "in.csv"
prompt.template = "{{ text }}"
request = { model = "m", max_tokens = 5 }
output.path = "out.csv"
budget.usd = 1
"""
UNCERTAIN = 3  # of attempts 1 to 50: 15, 30 and 45, at 500 nano-USD each


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "out.run").mkdir()
    journal = create_or_open(tmp_path / "out.run" / "journal.sqlite")
    ask_all(journal, range(1, 51), start_run(journal))
    journal.close()
    return load_job(tmp_path / "job.toml")


def test_what_the_bill_says_is_booked_and_noted(job: Job) -> None:
    before = status_of(job)
    told = settle_job(job, "0.000001")
    after = status_of(job)
    assert (told["requests"], told["usd"]["uncertain"], told["usd"]["uncertain_before"]) == (3, 1e-6, 1.5e-6)
    assert after["usd"]["uncertain"] == 1e-6
    assert after["usd"]["settled"] == before["usd"]["settled"] == told["usd"]["settled"]
    assert after["usd"]["left"] == pytest.approx(before["usd"]["left"] + 0.5e-6)
    assert after["credits"] == before["credits"]
    assert after["requests"] == before["requests"]
    assert "by the provider's bill" in after["settled"]["reason"]
    assert (after["last_run"], before["settled"]) == (before["last_run"], None)
    *_, settled, last = status_lines(after)
    assert settled.startswith("settled   ")
    assert last.startswith("last run  ")
    assert "by the provider's bill" not in last
    journal = open_for_reading(RunFolder(job.base / "out.run").journal)
    check_whole(journal)
    errors = journal.connection.execute("SELECT error FROM attempts WHERE outcome = 'uncertain'").fetchall()
    assert all(error.endswith("It was 500 nano-USD.") for (error,) in errors)
    journal.close()


def test_a_later_bill_corrects_an_earlier_one(job: Job) -> None:
    for amount in ("0", "0.0000015", "0.0000005", "0.000001", "0.0000005"):
        settle_job(job, amount)
        assert status_of(job)["usd"]["uncertain"] == float(amount)
    journal = open_for_reading(RunFolder(job.base / "out.run").journal)
    check_whole(journal)
    assert journal.totals(sandbox=False).spend.uncertain.nano_usd == 500
    journal.close()


def test_what_a_killed_run_had_in_flight_is_settled_too(job: Job) -> None:
    journal = create_or_open(RunFolder(job.base / "out.run").journal)
    reports = Reports()
    writer = writer_of(journal, reports)
    writer.write_intent(intent(51))
    writer.close()
    journal.close()
    assert settle_job(job, "0")["requests"] == UNCERTAIN + 1
    status = status_of(job)
    assert (status["in_flight"], status["usd"]["uncertain"], status["usd"]["reserved"]) == (0, 0, 0)


def test_a_bill_is_bounded_by_the_original_worst_case_and_not_by_what_is_uncertain_now(job: Job) -> None:
    """Also request by request: a bill of the whole worst case, after one of nothing, restores each amount."""
    settle_job(job, "0")
    with pytest.raises(UsageError, match=r"more than the uncertain requests can have cost.*0\.0000015 USD"):
        settle_job(job, "0.000001501")
    assert status_of(job)["usd"]["uncertain"] == 0
    settle_job(job, "0.0000015")
    journal = open_for_reading(RunFolder(job.base / "out.run").journal)
    booked = journal.connection.execute(
        "SELECT nano_usd FROM attempts WHERE outcome = 'uncertain'"
    ).fetchall()
    assert booked == [(500,)] * UNCERTAIN
    journal.close()


def test_a_bill_that_is_refused_leaves_no_trace_of_a_run(job: Job) -> None:
    before = status_of(job)["last_run"]
    with pytest.raises(UsageError, match="more than the uncertain requests can have cost"):
        settle_job(job, "0.5")
    assert status_of(job)["last_run"] == before


@pytest.mark.parametrize("amount", ["-1", "much", "1e99", "nan", "0.0000000001", ""])
def test_an_amount_that_is_none_is_refused_by_the_option_s_name(job: Job, amount: str) -> None:
    with pytest.raises(UsageError, match="--uncertain"):
        settle_job(job, amount)
    assert status_of(job)["usd"]["uncertain"] == 1.5e-6


def test_without_uncertain_spend_or_beside_a_run_nothing_is_settled(job: Job) -> None:
    with pytest.raises(UsageError, match="nothing to settle"):
        settle_job(job, "0.1", sandbox=True)
    with locked(RunFolder(job.base / "out.run")), pytest.raises(LockedError):
        settle_job(job, "0.1")
    RunFolder(job.base / "out.run").journal.unlink()
    with pytest.raises(UsageError, match="no journal"):
        settle_job(job, "0.1")


def test_the_command_says_what_it_booked(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(job.base / "job.toml")
    batchrun_group.main(["settle", file, "--uncertain", "0.0000012"], standalone_mode=False)
    assert "for 3 uncertain requests, by the provider's bill" in capsys.readouterr().out


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1, max_size=20))
def test_shares_add_up_and_are_in_proportion(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0
    if any(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - total * weight / sum(weights)) <= 1 + 1e-9 * total
