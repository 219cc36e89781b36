"""Runs with three workers: any of their processes is killed, and all promises hold."""

from pathlib import Path

import pytest

from tests.kill.audit import audit
from tests.kill.campaign import run_campaign
from tests.kill.workers import WhileWorkersDie, worker_plan

AMPLE = 10 * 10**9


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kills_of_workers_and_of_their_run_break_no_promise(tmp_path: Path) -> None:
    moment = WhileWorkersDie()
    evidence = run_campaign(worker_plan(moment, kills=4, seed=1, cap_nano_usd=AMPLE), tmp_path)
    found = audit(evidence)
    assert found.broken == ()
    assert found.kills >= 2
    assert moment.kills.total() >= 2
    lost = [a for a in evidence.observations[-1].journal.attempts.values() if a.error_code == "worker_lost"]
    assert lost
