"""Runs with three workers: any process is killed, the journal's and the run's too. The bill is the judge."""

import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

from proofs.kills import money_and_rows
from proofs.results import Result, Say
from tests.kill.audit import Audit, audit, total
from tests.kill.campaign import run_campaign
from tests.kill.workers import WhileWorkersDie, worker_plan

KILLS = 60
_CAPS = (10 * 10**9, 120 * 10**6)
"""Ample, and one that is reached."""


def prove_workers(say: Say) -> list[Result]:
    """Campaigns with new seeds until there were `KILLS` kills of processes at least."""
    audits: list[Audit] = []
    of_workers = of_journals = 0
    for seed in count(1):
        moment = WhileWorkersDie()
        plan = worker_plan(moment, kills=5, seed=seed, cap_nano_usd=_CAPS[seed % 2])
        if seed % 3 == 0:
            plan = replace(plan, in_doubt="leave")
        with tempfile.TemporaryDirectory() as folder:
            audits.append(audit(run_campaign(plan, Path(folder))))
        of_workers += moment.of_workers
        of_journals += moment.of_journals
        found = total(audits)
        kills = found.kills + of_workers + of_journals
        say(f"{kills} of {KILLS} kills, {len(found.broken)} promises broken")
        for text in audits[-1].broken:
            say(f"broken with {plan}: {text}")
        if kills >= KILLS:
            break
    return _results(found, of_workers, of_journals)


def _results(found: Audit, of_workers: int, of_journals: int) -> list[Result]:
    proof = "kill -9 of workers"
    kills = f"{of_workers:,}, {of_journals:,}, {found.kills:,}"
    return [
        Result(proof, "kills of workers, of journal processes, of runs", kills),
        *money_and_rows(proof, found),
        Result(proof, "promises broken", f"{len(found.broken):,}", "0", not found.broken),
    ]
