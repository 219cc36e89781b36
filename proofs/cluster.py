"""Runs on a Ray cluster of three nodes: random processes of both are killed. The bill is the judge."""

import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

from proofs.kills import bill_within_bounds, money_and_rows
from proofs.results import Result, Say
from tests.kill.audit import Audit, audit, total
from tests.kill.campaign import run_campaign
from tests.kill.ray_kills import WhileTheClusterDies, ray_plan
from tests.kill.ray_nodes import is_installed, ray_nodes

_CAPS = (10 * 10**9, 450 * 10**6)
"""Ample, and one that is reached."""
_RUNS = 3
_PROOF = "kills of a Ray cluster"


def prove_cluster(say: Say, kills: int) -> list[Result]:
    """Campaigns with new seeds until there were `kills` kills of processes at least."""
    if not is_installed():
        say("left out: Ray is not installed. Next: make .venv/cluster")
        return [Result(_PROOF, "left out", "needs Ray: make .venv/cluster")]
    audits: list[Audit] = []
    done: Counter[str] = Counter()
    broken: list[str] = []
    with ray_nodes() as nodes:
        for seed in count(1):
            cap = _CAPS[seed % 2]
            moment = WhileTheClusterDies(nodes, cap)
            with tempfile.TemporaryDirectory() as folder:
                evidence = run_campaign(ray_plan(moment, _RUNS, seed, cap), Path(folder))
                moment.check_end(Path(folder, "answers.parquet"))
            audits.append(audit(moment.as_seen(evidence)))
            done += moment.kills
            new = [*audits[-1].broken, *moment.broken]
            broken += new
            say(f"{done.total()} of {kills} kills, {len(broken)} promises broken")
            for text in new:
                say(f"broken with seed {seed}: {text}")
            if done.total() >= kills:
                return _results(total(audits), done, broken, kills)
    raise AssertionError


def _results(found: Audit, done: Counter[str], broken: list[str], kills: int) -> list[Result]:
    by_kind = ", ".join(f"{number} {what}" for what, number in done.most_common())
    return [
        Result(_PROOF, "kills", f"{done.total()}", f"at least {kills}", done.total() >= kills),
        Result(_PROOF, "of them", by_kind),
        *money_and_rows(_PROOF, found),
        bill_within_bounds(_PROOF, found),
        Result(_PROOF, "promises broken", f"{len(broken)}", "0", not broken),
    ]
