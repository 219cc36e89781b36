"""Runs with three workers: any of their processes is killed, and the run itself. The bill is the judge."""

import tempfile
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

from proofs.kills import money_and_rows
from proofs.results import Result, Say
from tests.kill.audit import Audit, audit, total
from tests.kill.campaign import run_campaign
from tests.kill.workers import Child, WhileWorkersDie, worker_plan

KILLS = 60
_CAPS = (10 * 10**9, 120 * 10**6)
"""Ample, and one that is reached."""


def prove_workers(say: Say) -> list[Result]:
    """Campaigns with new seeds until there were `KILLS` kills of processes at least."""
    audits: list[Audit] = []
    done: Counter[Child] = Counter()
    for seed in count(1):
        moment = WhileWorkersDie()
        plan = worker_plan(moment, kills=5, seed=seed, cap_nano_usd=_CAPS[seed % 2])
        if seed % 3 == 0:
            plan = replace(plan, in_doubt="leave")
        with tempfile.TemporaryDirectory() as folder:
            audits.append(audit(run_campaign(plan, Path(folder))))
        done += moment.kills
        found = total(audits)
        kills = found.kills + done.total()
        say(f"{kills} of {KILLS} kills, {len(found.broken)} promises broken")
        for text in audits[-1].broken:
            say(f"broken with {plan}: {text}")
        if kills >= KILLS:
            break
    return _results(found, done)


def _results(found: Audit, done: Counter[Child]) -> list[Result]:
    proof = "kill -9 of workers"
    by_kind = f"{done['worker']}, {done['journal']}, {done['reader']}, {found.kills}"
    return [
        Result(proof, "kills of workers, of journal processes, of readers, of runs", by_kind),
        *money_and_rows(proof, found),
        Result(proof, "promises broken", f"{len(found.broken):,}", "0", not found.broken),
    ]
