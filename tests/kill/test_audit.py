"""The audit can fail: evidence that was tampered with is found out."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.kill.audit import audit
from tests.kill.campaign import Evidence, Plan, run_campaign
from tests.kill.evidence import Attempt, Snapshot

AMPLE = 10**10


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """One kill, one row after the other answered, no fault."""
    plan = Plan(rows=300, stages=((AMPLE, 1),), seed=11, faults=())
    return run_campaign(plan, tmp_path_factory.mktemp("campaign"))


def test_untouched_evidence_is_in_order(evidence: Evidence) -> None:
    assert audit(evidence).broken == ()


def _with_last_journal(evidence: Evidence, attempts: dict[int, Attempt]) -> Evidence:
    last = evidence.observations[-1]
    tampered = last._replace(journal=Snapshot(attempts))
    return replace(evidence, observations=[*evidence.observations[:-1], tampered])


def _last_answered(evidence: Evidence) -> int:
    return max(evidence.observations[-1].journal.answered)


def without_an_answer(evidence: Evidence) -> Evidence:
    attempts = dict(evidence.observations[-1].journal.attempts)
    del attempts[_last_answered(evidence)]
    return _with_last_journal(evidence, attempts)


def with_a_wrong_cost(evidence: Evidence) -> Evidence:
    attempts = dict(evidence.observations[-1].journal.attempts)
    number = _last_answered(evidence)
    attempts[number] = attempts[number]._replace(nano_usd=attempts[number].nano_usd - 5_000)
    return _with_last_journal(evidence, attempts)


def with_an_answer_twice(evidence: Evidence) -> Evidence:
    attempts = dict(evidence.observations[-1].journal.attempts)
    return _with_last_journal(evidence, {**attempts, 10**6: attempts[_last_answered(evidence)]})


def with_a_late_arrival(evidence: Evidence) -> Evidence:
    again = evidence.bill[-1]._replace(id="msg_again", nano_usd=0, status=500, fault="500")
    return replace(evidence, bill=[*evidence.bill, again])


def with_a_lower_cap(evidence: Evidence) -> Evidence:
    seen = [seen._replace(cap_nano_usd=seen.billed_nano_usd - 1) for seen in evidence.observations]
    return replace(evidence, observations=seen)


def with_an_intent_forgotten(evidence: Evidence) -> Evidence:
    """As if the intents of the killed run had been deleted instead of being booked as uncertain."""
    attempts = evidence.observations[-1].journal.attempts
    known = {number: attempt for number, attempt in attempts.items() if attempt.error_code != "in_doubt"}
    assert len(known) < len(attempts)
    return _with_last_journal(evidence, known)


def with_a_row_missing(evidence: Evidence) -> Evidence:
    return replace(evidence, output=evidence.output.slice(1))


def with_rows_reversed(evidence: Evidence) -> Evidence:
    return replace(evidence, output=evidence.output.sort_by([("id", "descending")]))


def with_another_rows_answer(evidence: Evidence) -> Evidence:
    column = evidence.output.column_names.index("response_id")
    ids = evidence.output["response_id"].to_pylist()
    return replace(evidence, output=evidence.output.set_column(column, "response_id", [[ids[-1], *ids[1:]]]))


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        (without_an_answer, "paid answers were lost"),
        (with_a_wrong_cost, "doesn't match its line of the bill"),
        (with_an_answer_twice, "has 2 answers"),
        (with_a_late_arrival, "sent again after their answer was journaled"),
        (with_a_late_arrival, "without an intent"),
        (with_a_lower_cap, "billed > cap"),
        (with_an_intent_forgotten, "has vanished"),
        (with_a_row_missing, "1 rows of the input are missing or wrong"),
        (with_rows_reversed, "300 rows of the input are missing or wrong"),
        (with_another_rows_answer, "1 rows of the input are missing or wrong"),
    ],
)
def test_tampered_evidence_is_found_out(
    evidence: Evidence, tamper: Callable[[Evidence], Evidence], text: str
) -> None:
    broken = audit(tamper(evidence)).broken
    assert any(text in sentence for sentence in broken), broken
