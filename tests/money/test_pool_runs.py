"""Whole runs of jobs that share a budget: how they stop, what they tell, what a faulty pool does."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from batchrun.cli.plan_lines import plan_lines
from batchrun.cli.pool_lines import pool_line
from batchrun.cli.status_text import status_lines
from batchrun.cli.summary_lines import end_lines
from batchrun.client.server import Server
from batchrun.errors import EXIT_BUDGET, EXIT_DONE, EXIT_FAULT, OutputError, UsageError
from batchrun.exchange import Response
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.journal import open_for_reading
from batchrun.journal.pool import PoolCaps, make_pool, open_pool, share_of
from batchrun.rows.observer import Observer
from batchrun.runs.observers.view import View
from batchrun.runs.plan.plan import plan_job
from batchrun.runs.pool import change_pool, pool_report
from batchrun.runs.run import run_job
from batchrun.runs.settle import settle_job
from batchrun.runs.status import status_of
from batchrun.sandbox import Sandbox, Settings, background
from batchrun.stops import at_cap_of

NANO = 10**9


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with background(Settings(latency=0.001)) as sandbox:
        yield sandbox


@pytest.fixture
def server(sandbox: Sandbox) -> Server:
    return Server(sandbox.base_url, "key", sandbox=True)


def job_of(folder: Path, name: str, **budget: Any) -> Job:
    (folder / f"{name}.csv").write_text("text\n" + "".join(f"{name} {row}\n" for row in range(40)))
    tables = {
        "input": {"path": f"{name}.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 64},
        "budget": {"pool": "team.budget", **budget},
        "retry": {"max_attempts": 1, "useless_rows": 0},
        "output": {"path": f"{name}.parquet", "accept": ["truncated"]},
    }
    return make_job(tables, folder, sandbox=True)


def test_two_jobs_use_one_budget_up_and_stop_at_it(tmp_path: Path, sandbox: Sandbox, server: Server) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(15 * 10**6, None))
    a, b = job_of(tmp_path, "a"), job_of(tmp_path, "b")
    first, second = run_job(a, server), run_job(b, server)
    assert first["exit_code"] == EXIT_DONE
    assert second["exit_code"] == EXIT_BUDGET
    assert "Stopped at the cap budget.pool." in second["reason"]
    assert "more would finish the job" in second["reason"]
    assert "batchrun pool" not in second["next_step"], "nothing is paid"
    assert "--set budget.pool=null" in second["next_step"]
    assert at_cap_of("budget.pool").next_step.startswith("raise its cap with `batchrun pool FILE --usd N`")
    spent = first["usd"]["settled"] + second["usd"]["settled"]
    assert spent == pytest.approx(sandbox.bill()["total"]["usd"])
    assert 0.015 - 160 * 5e-6 < spent <= 0.015, "up to the worst case of one row"
    assert second["pool"]["counted"] == pytest.approx(spent)
    assert end_lines(second).index(pool_line(second["pool"])) > 0
    change_pool(tmp_path / "team.budget", {"life": NANO})
    assert run_job(b, server)["exit_code"] == EXIT_DONE


def test_a_cap_for_the_day_says_that_it_renews_itself(tmp_path: Path, server: Server) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(NANO, 5 * 10**6))
    summary = run_job(job_of(tmp_path, "a"), server)
    assert summary["exit_code"] == EXIT_BUDGET
    assert "budget.pool per day" in summary["reason"]
    assert "midnight" in summary["next_step"]
    assert not summary["needs_attention"]


class Holder(Observer):
    """Another program that holds the pool for a while, from the first request on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.blocked_by: list[str | None] = []
        self.thread: Thread | None = None

    def request_sent(self, number: int) -> None:
        if self.thread is None:
            held = Event()
            self.thread = Thread(target=self._hold, args=(held,))
            self.thread.start()
            held.wait()

    def blocked(self, cap: str | None) -> None:
        self.blocked_by.append(cap)

    def _hold(self, held: Event) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as pool:
            pool.execute("BEGIN IMMEDIATE")
            held.set()
            time.sleep(0.3)
            pool.execute("ROLLBACK")


def test_a_run_goes_on_when_another_program_has_let_the_pool_go(tmp_path: Path, server: Server) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(40 * 10**6, None))
    holder = Holder(tmp_path / "team.budget")
    summary = run_job(job_of(tmp_path, "a"), server, observers=(lambda _: holder,))
    assert summary["exit_code"] == EXIT_DONE
    assert "budget.pool, which another program holds" in holder.blocked_by
    assert holder.thread is not None
    holder.thread.join()


def test_another_cap_of_the_job_holds_as_well(tmp_path: Path, server: Server) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(NANO, None))
    summary = run_job(job_of(tmp_path, "a", rows=3), server)
    assert "budget.rows" in summary["reason"]
    assert summary["pool"]["counted"] == summary["usd"]["settled"], "the rest was given back"


def test_what_a_dead_run_had_claimed_counts_until_the_next_run_and_status_says_so(
    tmp_path: Path, server: Server
) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(NANO, None))
    job = job_of(tmp_path, "a")
    settled = run_job(job, server)["usd"]["settled"]
    with_claim(tmp_path, settled + 0.25)
    status = status_of(job, sandbox=True)
    assert status["pool"]["held"] == pytest.approx(0.25)
    assert any("0.25 USD claimed by this job's run" in line for line in status_lines(status))
    run_job(job, server)
    status = status_of(job, sandbox=True)
    assert (status["pool"]["held"], status["pool"]["counted"]) == (0, settled)


def with_claim(folder: Path, amount: float) -> None:
    """Leaves the pool as a killed run of the job `a` would."""
    path = folder / "a.run" / "journal.sqlite"
    pool, journal = open_pool(folder / "team.budget"), open_for_reading(path)
    (day,) = journal.counted_by_day(sandbox=True)
    share_of(pool, path, journal, sandbox=True).settle(
        {day: round(amount * NANO)}, journal.next_attempt() - 1
    )
    journal.close()
    pool.close()


def test_status_is_told_without_the_pool_and_says_what_is_wrong_with_it(
    tmp_path: Path, server: Server
) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(NANO, None))
    job = job_of(tmp_path, "a")
    run_job(job, server)
    (tmp_path / "team.budget").unlink()
    lines = status_lines(status_of(job, sandbox=True))
    assert f"pool      There is no pool {tmp_path / 'team.budget'}." in lines


def test_a_plan_reckons_with_what_the_pool_has_left(tmp_path: Path, server: Server) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(12 * 10**6, None))
    run_job(job_of(tmp_path, "a"), server)
    plan = plan_job(job_of(tmp_path, "b"), sandbox=True)
    assert plan["budget"]["usd_left_by_all_caps"] == plan["pool"]["left"] < 0.003
    assert plan["budget"]["rows_at_worst"] < plan["budget"]["rows_expected"] < 40
    lines = list(plan_lines(plan))
    assert pool_line(plan["pool"]) in lines
    assert not any("no cap in USD" in line for line in lines)


def test_a_missing_pool_is_refused_before_anything_is_sent(
    tmp_path: Path, sandbox: Sandbox, server: Server
) -> None:
    job = job_of(tmp_path, "a")
    for command in (run_job, lambda job, _: plan_job(job, sandbox=True)):
        with pytest.raises(UsageError, match="There is no pool"):
            command(job, server)
    assert sandbox.bill()["total"]["requests"] == 0
    assert not (tmp_path / "a.run" / "journal.sqlite").exists()


@pytest.mark.parametrize("path", ["a.csv", "a.parquet", "a.run/journal.sqlite"])
def test_the_pool_is_no_other_file_of_the_job(tmp_path: Path, server: Server, path: str) -> None:
    with pytest.raises(OutputError, match=r"\[budget\] pool"):
        run_job(job_of(tmp_path, "a", pool=path), server)


class Deleting(Observer):
    """Deletes the pool when the first response is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def made(self, view: View) -> Observer:
        return self

    def response_received(self, response: Response, tokens: int) -> None:
        self.path.unlink(missing_ok=True)


def test_a_pool_that_is_deleted_during_a_run_stops_it_without_losing_an_answer(
    tmp_path: Path, sandbox: Sandbox, server: Server
) -> None:
    path = tmp_path / "team.budget"
    make_pool(path, PoolCaps(12 * 10**6, None))
    summary = run_job(job_of(tmp_path, "a"), server, observers=(Deleting(path).made,))
    assert summary["exit_code"] == EXIT_FAULT
    assert "was deleted, moved or replaced" in summary["reason"]
    assert 0 < summary["rows"]["ok"] == sandbox.bill()["total"]["requests"] < 40
    assert "put the pool in order" in summary["next_step"]


def test_settled_uncertain_spend_is_free_for_the_other_jobs(
    tmp_path: Path, sandbox: Sandbox, server: Server
) -> None:
    make_pool(tmp_path / "team.budget", PoolCaps(NANO, None))
    job = job_of(tmp_path, "a")
    sandbox.provider.fault_draw.shares = {"reset-after": 0.5}
    summary = run_job(job, server)
    assert summary["usd"]["uncertain"] > 0
    told = settle_job(job, "0", sandbox=True)
    report = pool_report(tmp_path / "team.budget", sandbox=True)
    assert report["counted"] == pytest.approx(told["usd"]["settled"])
