"""What a run notes of itself each second, and the charts that are made of it."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.server import Server
from batchrun.exchange import Waiting
from batchrun.job.spec import run_folder
from batchrun.journal import create_or_open, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.journal.connection import transaction
from batchrun.journal.samples import RUNS_KEPT, Sample, insert_samples, samples_of
from batchrun.runs.observers.view import View
from batchrun.runs.report.course import course_of
from batchrun.runs.report.facts import RunFacts, facts_of
from batchrun.runs.report.run_part import run_blocks
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.sampler import MOST_SAMPLES, held_by, sample_of, stride_at
from batchrun.sandbox import Sandbox, Settings, background
from tests.looking.conftest import Finished, finish, write_job


def sample(second: int, stride: int = 1, run: int = 1, **values: Any) -> Sample:
    known: dict[str, Any] = {"in_flight": 3, "nano_usd": second * 10**9, "requests_per_minute": 120.0}
    return Sample(run, second, stride, **(known | {"held_by": None} | values))


def seconds_sampled(length: int) -> list[tuple[int, int]]:
    """The seconds at which a run of `length` seconds takes samples, each with its stride."""
    second, stride, taken = 0, 1, []
    while second < length:
        second += stride - second % stride
        stride = stride_at(second, stride)
        if second % stride == 0:
            taken.append((second, stride))
    return taken


@pytest.mark.parametrize("length", [1, 600, 601, 5_000, 100_000])
def test_a_run_of_any_length_keeps_a_bounded_number_of_evenly_spaced_samples(
    tmp_path: Path, length: int
) -> None:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        with transaction(journal.connection):
            insert_samples(journal.connection, [sample(*taken) for taken in seconds_sampled(length)])
        kept = [each.second for each in samples_of(journal, 1)]
        check_whole(journal)
    assert min(length, MOST_SAMPLES // 2) <= len(kept) <= MOST_SAMPLES
    (step,) = {b - a for a, b in itertools.pairwise([0, *kept])}
    assert length - kept[-1] < 2 * step


def test_samples_of_old_runs_are_dropped(tmp_path: Path) -> None:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        for run in range(1, RUNS_KEPT + 3):
            insert_samples(journal.connection, [sample(1, run=run)])
        assert [bool(samples_of(journal, run)) for run in (1, 2, 3)] == [False, False, True]


def test_a_journal_without_samples_has_none(finished: Finished) -> None:
    with closing(open_for_reading(RunFolder(run_folder(finished.job)).journal)) as journal:
        assert samples_of(journal, 99) == []
    assert course_of([], [1.0]) is None


def test_a_sample_says_what_the_display_knows(view: View) -> None:
    view.progress.in_flight = 2
    taken = sample_of(7, 4, 2, view)
    spent = view.before.spend.committed.plus(view.ledger.settled).plus(view.ledger.reserved)
    assert taken[:5] == (7, 4, 2, 2, spent.nano_usd)
    assert taken.requests_per_minute == view.limiter.pace.requests_per_minute
    view.progress.waiting = Waiting("rate limit", 5.0)
    assert held_by(view) == "rate limit"
    view.progress.blocked_by = "budget.usd"
    assert held_by(view) == "budget.usd"
    view.progress.blocked_by = view.progress.waiting = None
    assert held_by(view) is None
    view.progress.in_flight = view.job.limits.concurrency
    assert held_by(view) == "limits.concurrency"


def test_a_course_has_the_last_sample_up_to_each_end_and_gaps_where_nothing_was_sent() -> None:
    taken = [sample(1), sample(2, held_by="endpoint"), sample(9, requests_per_minute=None)]
    course = course_of(taken, [0.5, 1.0, 2.5, 6.0, 9.0])
    assert course is not None
    assert course.committed == [None, 1.0, 2.0, None, 9.0]
    assert course.limit == [None, 2.0, 2.0, None, None]
    assert course.on_wire == [None, 3.0, 3.0, None, 3.0]
    assert course.held == {"endpoint": pytest.approx(1 / 3)}


def blocks(facts: RunFacts) -> dict[str, Any]:
    return {block["title"]: block for block in run_blocks(facts)}


def numbers(block: dict[str, Any]) -> list[dict[str, str]]:
    """The numbers below a chart, by the names of its lines."""
    names = [head["text"] for head in block["numbers"]["head"]]
    return [dict(zip(names, [each["text"] for each in row], strict=True)) for row in block["numbers"]["rows"]]


def test_the_charts_of_a_run_show_its_samples(tmp_path: Path) -> None:
    with background(Settings(latency=0.15)) as sandbox:
        job = write_job(
            tmp_path, limits={"concurrency": 4, "requests_per_minute": 1_500}, evaluation=None, labels=None
        )
        run_job(job, Server(sandbox.base_url, "key", sandbox=True), quiet=True)
    with closing(open_for_reading(RunFolder(run_folder(job)).journal)) as journal:
        check_whole(journal)
        taken = samples_of(journal, 1)
    assert taken
    assert all(0 < each.nano_usd < 10**9 and each.in_flight <= 4 for each in taken)
    assert {each.requests_per_minute for each in taken} == {1_500}
    shown = blocks(facts_of(job, sandbox=True))
    assert {line["name"] for line in shown["Spend, USD"]["legend"]} >= {"settled", "+ reserved"}
    assert {line["name"] for line in shown["Requests in flight"]["legend"]} >= {"reserved for", "on the wire"}
    assert any(row["limit"] == "25" for row in numbers(shown["Answers and refusals per second"]))


def test_the_spend_has_a_line_to_where_it_is_heading_while_rows_are_pending(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    job = finish(tmp_path, sandbox, budget={"usd": 1.0, "rows": 40}, evaluation=None).job
    facts = facts_of(job, sandbox=True)
    rows = numbers(blocks(facts)["Spend, USD"])
    assert rows[-1]["settled"] == "–"
    spent, pending = facts.status["usd"]["settled"], facts.rows["pending"]
    heading = spent + spent / (facts.rows["total"] - pending) * pending
    assert float(rows[-1]["forecast"]) == pytest.approx(heading, rel=1e-3)
    assert [row["forecast"] for row in rows[:-2]] == ["–"] * len(rows[:-2])
