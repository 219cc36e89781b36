"""Runs killed with SIGKILL a few hundred times, each campaign held against the sandbox's bill."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from proofs.results import Result, Say, usd
from tests.kill.audit import Audit, audit, total
from tests.kill.campaign import Plan, run_campaign
from tests.kill.moments import at_a_system_call, while_writing_output
from tests.kill.system_calls import compiled, draw_commit, draw_indexing, draw_upgrade

_AMPLE = 10 * 10**9
_REACHED = 250 * 10**6

_PLANS = (
    Plan(rows=2_500, stages=((_AMPLE, 10),)),
    Plan(rows=1_500, stages=((_REACHED, 4), (_AMPLE, 6))),
    Plan(rows=1_000, stages=((_AMPLE, 4),), in_doubt="leave"),
    Plan(
        rows=40_000,
        prompts=100,
        stages=((_AMPLE, 4),),
        moment=while_writing_output,
        kill_finished=True,
        latency=0.01,
    ),
)
_LABELS = """
[labels]
choices = ["yes", "no"]
"""
_REPLIES = """
[[reply]]
pattern = "(?s)."
choices = [{ text = "yes", probability = 0.6 }, { text = "no" }]
"""
_OTHERS = (("plan", "--sample", "10"), ("export",), ("review", "--again"))
AT_SYSTEM_CALLS = Plan(
    rows=400,
    stages=((_REACHED // 4, 8), (_AMPLE, 16)),
    moment=at_a_system_call,
    kill_finished=True,
    others=_OTHERS,
    job=_LABELS,
    replies=_REPLIES,
)
_IN_A_FEW_CALLS = Plan(rows=120, stages=((_AMPLE, 8),), moment=at_a_system_call, latency=0.02)
IN_THE_JOURNAL = {
    "between block and COMMIT": replace(_IN_A_FEW_CALLS, draw_call=draw_commit),
    "index caught up": replace(_IN_A_FEW_CALLS, draw_call=draw_indexing, module="tests.kill.soon_indexed"),
    "journal upgraded": replace(_IN_A_FEW_CALLS, draw_call=draw_upgrade, upgraded=True),
}


def prove_kills(say: Say, kills: int) -> list[Result]:
    """Campaigns with new seeds until there were `kills` kills at least."""
    audits: list[Audit] = []
    with tempfile.TemporaryDirectory() as place:
        library = compiled(Path(place))
        for plan in _plans(library):
            with tempfile.TemporaryDirectory() as folder:
                audits.append(audit(run_campaign(plan, Path(folder))))
            if _is_enough(audits, kills, plan, say):
                break
    return _results(total(audits), kills)


def _is_enough(audits: list[Audit], kills: int, plan: Plan, say: Say) -> bool:
    """Tells how far the proof has come; returns whether there were as many kills as wanted."""
    done = sum(found.kills for found in audits)
    broken = sum(len(found.broken) for found in audits)
    say(f"{done} of {kills} kills in {len(audits)} campaigns, {broken} promises broken")
    for text in audits[-1].broken:
        say(f"broken with {plan}: {text}")
    return done >= kills


def _plans(library: Path | None) -> Iterator[Plan]:
    at_calls = (AT_SYSTEM_CALLS, *IN_THE_JOURNAL.values()) if library is not None else ()
    plans = (*_PLANS, *(replace(plan, library=library) for plan in at_calls))
    for seed in count(1):
        yield replace(plans[seed % len(plans)], seed=seed)


def _results(found: Audit, kills: int) -> list[Result]:
    proof = "kill -9"
    other_kills = f"{found.kills_at_calls:,}, {found.kills_of_others:,}"
    return [
        Result(proof, "kills", f"{found.kills:,}", f"at least {kills:,}", found.kills >= kills),
        Result(proof, "kills at a system call, kills of plan --sample, export, review", other_kills),
        *money_and_rows(proof, found),
        bill_within_bounds(proof, found),
        Result(proof, "requests open at one kill, at most", f"{found.most_open:,}"),
        Result(proof, "rows in doubt that were billed again", f"{found.paid_again:,}"),
        Result(proof, "answers that came to a dead process", f"{found.unseen_answers:,}"),
        Result(proof, "promises broken", f"{len(found.broken):,}", "0", not found.broken),
    ]


def money_and_rows(proof: str, found: Audit) -> list[Result]:
    """Returns what holds after kills of any kind of process."""
    return [
        Result(proof, "rows of the inputs, requests", f"{found.rows:,}, {found.requests:,}"),
        Result(proof, "rows lost or wrong in the outputs", f"{found.rows_lost:,}", "0", not found.rows_lost),
        Result(proof, "paid answers lost", f"{found.answers_lost:,}", "0", not found.answers_lost),
        Result(proof, "answered rows sent again", f"{found.double_sends:,}", "0", not found.double_sends),
        Result(proof, "billed above the cap at most", usd(found.overshoot), "0", not found.overshoot),
    ]


def bill_within_bounds(proof: str, found: Audit) -> Result:
    return Result(
        proof,
        "settled <= billed <= settled + uncertain",
        f"{usd(found.settled)} <= {usd(found.billed)} <= {usd(found.settled + found.uncertain)}",
        "always",
        found.settled <= found.billed <= found.settled + found.uncertain,
    )
