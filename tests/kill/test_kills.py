"""Runs with 50 requests in flight, killed with SIGKILL and resumed, against a sandbox with resets.

All promises are checked by `audit`; test_audit.py proves that it can fail.
"""

from pathlib import Path

import pytest

from batchrun.errors import EXIT_BUDGET, EXIT_DONE, EXIT_ROWS_FAILED
from tests.kill.audit import audit
from tests.kill.campaign import CONCURRENCY, Plan, run_campaign
from tests.kill.moments import while_writing_output

AMPLE = 10 * 10**9
"""A cap in nano-USD that is never reached here."""


def test_five_kills_under_a_cap_that_is_not_reached(tmp_path: Path) -> None:
    """Every row is answered at the end, and every promise held after every kill."""
    evidence = run_campaign(Plan(rows=1_000, stages=((AMPLE, 5),), seed=1), tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.kills == 5
    assert found.most_open >= CONCURRENCY // 2
    assert evidence.observations[-1].exit_code == EXIT_DONE
    assert set(evidence.output["status"].to_pylist()) == {"ok"}


def test_five_kills_at_a_cap_that_is_reached_and_raised(tmp_path: Path) -> None:
    """The bill stays under the first cap, the run says so, and goes on under a higher one."""
    worth_60_percent = 100 * 10**6
    plan = Plan(rows=600, stages=((worth_60_percent, 2), (AMPLE, 3)), seed=2)
    evidence = run_campaign(plan, tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.kills >= 4, "the last one may come after the end"
    codes = [seen.exit_code for seen in evidence.observations if not seen.killed]
    assert codes == [EXIT_BUDGET, EXIT_DONE]


def test_a_kill_while_the_output_is_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    """Two kills in the middle of writing 40,000 rows; then it is complete, nothing paid again."""
    plan = Plan(
        rows=40_000,
        prompts=60,
        stages=((AMPLE, 2),),
        moment=while_writing_output,
        kill_finished=True,
        faults=(),
        latency=0.01,
    )
    evidence = run_campaign(plan, tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.kills == 2
    assert found.requests == 60


def test_rows_in_doubt_are_left_alone_if_the_job_says_so(tmp_path: Path) -> None:
    """With in_doubt = "leave" no row is billed twice; those whose fate is unknown have failed."""
    plan = Plan(rows=500, stages=((AMPLE, 3),), seed=3, in_doubt="leave")
    evidence = run_campaign(plan, tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.paid_again == 0
    assert evidence.observations[-1].exit_code == EXIT_ROWS_FAILED
    assert "in_doubt" in evidence.output["error_code"].to_pylist()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_tiny_job_survives_being_killed_as_soon_as_it_asks(tmp_path: Path, rows: int) -> None:
    """With fewer rows than requests in flight, all of them are open at the kill."""
    plan = Plan(rows=rows, stages=((AMPLE, 2),), seed=4, faults=(), latency=0.3)
    evidence = run_campaign(plan, tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.rows == rows
