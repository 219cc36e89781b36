"""Holds a campaign's evidence against the promises: the bill is the judge, not the journal."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from batchrun.errors import EXIT_FAULT
from tests.kill.campaign import ENDS, Evidence, Observation
from tests.kill.evidence import Attempt, Snapshot

_KILLED = ("in_doubt", "worker_lost")
"""Error codes of requests whose process was killed: the run's, or a worker's."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The numbers of one campaign or, added up, of many. Amounts are in nano-USD.

    `paid_again`: billed requests beyond the first billed one of the same row; the earlier ones are counted
    as uncertain. `double_sends`: requests that arrived after the same request's answer had been journaled.
    `answers_lost`: answers that were in the journal after a kill and were not at the end, and answers
    delivered whole while nothing was killed that are not in the journal. `unseen_answers`: those
    delivered to a process that was dead or died before their commit; they count as uncertain.
    `kills_at_calls` are the kills at a system call, `kills_of_others` those of other commands than `run`.
    `most_open`: the most intents that one kill left open.
    """

    kills: int = 0
    kills_at_calls: int = 0
    kills_of_others: int = 0
    rows: int = 0
    rows_lost: int = 0
    requests: int = 0
    paid_again: int = 0
    double_sends: int = 0
    answers_lost: int = 0
    unseen_answers: int = 0
    overshoot: int = 0
    settled: int = 0
    billed: int = 0
    uncertain: int = 0
    most_open: int = 0
    broken: tuple[str, ...] = ()


def total(audits: list[Audit]) -> Audit:
    """The sums, and of `overshoot` and `most_open` the largest."""
    sums = {
        name: sum(getattr(audit, name) for audit in audits)
        for name in Audit.__slots__
        if name not in ("overshoot", "most_open", "broken")
    }
    return Audit(
        **sums,
        overshoot=max(audit.overshoot for audit in audits),
        most_open=max(audit.most_open for audit in audits),
        broken=tuple(text for audit in audits for text in audit.broken),
    )


def audit(evidence: Evidence) -> Audit:
    """Checks every promise; each one that is broken is a sentence in `broken`."""
    end = evidence.observations[-1]
    lost, unseen = _missing_answers(evidence)
    paid = [line.body_sha256 for line in evidence.bill if line.nano_usd]
    numbers = Audit(
        kills=evidence.kills,
        kills_at_calls=evidence.kills if evidence.plan.library is not None else 0,
        kills_of_others=sum(seen.killed and not seen.is_run for seen in evidence.observations),
        rows=len(evidence.asked),
        rows_lost=_rows_lost(evidence),
        requests=len(evidence.bill),
        paid_again=len(paid) - len(set(paid)),
        double_sends=_double_sends(evidence),
        answers_lost=lost,
        unseen_answers=unseen,
        overshoot=max(max(0, seen.billed_nano_usd - seen.cap_nano_usd) for seen in evidence.observations),
        settled=end.journal.settled,
        billed=end.billed_nano_usd,
        uncertain=end.journal.uncertain,
        most_open=max(len(seen.journal.open) for seen in evidence.observations),
    )
    return replace(numbers, broken=tuple(_broken_promises(evidence, numbers)))


def _broken_promises(evidence: Evidence, numbers: Audit) -> Iterator[str]:
    if evidence.observations[-1].exit_code not in ENDS:
        yield f"the last run ended with exit code {evidence.observations[-1].exit_code}"
    for number, observation in enumerate(evidence.observations, 1):
        if observation.is_run and observation.exit_code == EXIT_FAULT and not evidence.plan.has_children:
            yield f"run {number} ended by a fault"
        for text in broken_at(observation):
            yield f"after run {number}: {text}"
        if observation.output_rows not in (None, evidence.plan.rows):
            yield f"after run {number}: the output has {observation.output_rows} rows"
    yield from broken_between(evidence)
    yield from _broken_by_request(evidence)
    if numbers.rows_lost:
        yield f"{numbers.rows_lost} rows of the input are missing or wrong in the output"
    if numbers.double_sends:
        yield f"{numbers.double_sends} requests were sent again after their answer was journaled"
    if numbers.answers_lost:
        yield f"{numbers.answers_lost} paid answers were lost"


def broken_at(seen: Observation) -> list[str]:
    """Checks the invariants that hold whenever nothing runs, also just after a kill."""
    journal, billed = seen.journal, seen.billed_nano_usd
    broken = []
    if journal.settled + journal.uncertain > seen.cap_nano_usd:
        broken.append(f"{journal.settled} settled + {journal.uncertain} uncertain > cap {seen.cap_nano_usd}")
    if billed > seen.cap_nano_usd:
        broken.append(f"{billed} billed > cap {seen.cap_nano_usd}")
    if not journal.settled <= billed <= journal.settled + journal.uncertain:
        broken.append(
            f"billed {billed} is not within {journal.settled} settled + {journal.uncertain} uncertain"
        )
    if journal.open and seen.is_run and not seen.killed and seen.exit_code != EXIT_FAULT:
        broken.append(f"{len(journal.open)} intents are open though the run ended by itself")
    answers = Counter(attempt.digest for attempt in journal.answered.values())
    broken += [f"request {digest.hex()} has {n} answers" for digest, n in answers.items() if n > 1]
    return broken


def broken_between(evidence: Evidence) -> list[str]:
    """A kill's open intents, and nothing else, become uncertain; known outcomes stay."""
    broken = []
    given_up: set[int] = set()
    for before, after in pairwise(seen.journal for seen in evidence.observations):
        known = {**after.attempts, **after.open}
        broken += [f"attempt {number} has vanished" for number in before.open.keys() - known.keys()]
        broken += [
            f"attempt {number} has changed"
            for number, attempt in before.attempts.items()
            if after.attempts.get(number) != attempt
        ]
        given_up |= before.open.keys()
    in_doubt = {
        number
        for number, attempt in evidence.observations[-1].journal.attempts.items()
        if attempt.error_code == "in_doubt"
    }
    if in_doubt != given_up:
        broken.append(
            f"attempts {sorted(in_doubt ^ given_up)} are not in doubt exactly where a kill left them open"
        )
    return broken


def _broken_by_request(evidence: Evidence) -> Iterator[str]:
    """For each request by itself: what was billed is what was answered or counted as uncertain."""
    body_of = {asked.digest: asked.body_sha256 for asked in evidence.asked}
    settled, uncertain, attempts = Counter[str](), Counter[str](), Counter[str]()
    for attempt in evidence.observations[-1].journal.attempts.values():
        body = body_of[attempt.digest]
        attempts[body] += 1
        settled[body] += attempt.nano_usd if attempt.outcome == "answered" else 0
        uncertain[body] += attempt.nano_usd if attempt.outcome == "uncertain" else 0
    billed, arrived = Counter[str](), Counter[str]()
    for line in evidence.bill:
        billed[line.body_sha256] += line.nano_usd
        arrived[line.body_sha256] += 1
    for body, times in (arrived - attempts).items():
        yield f"request {body} arrived {times} times without an intent"
    for body, amount in billed.items():
        if not settled[body] <= amount <= settled[body] + uncertain[body]:
            yield f"request {body}: {amount} billed, {settled[body]} settled, {uncertain[body]} uncertain"
    yield from _answers_off_the_bill(evidence, body_of)


def _answers_off_the_bill(evidence: Evidence, body_of: dict[bytes, str]) -> Iterator[str]:
    line_of = {line.id: line for line in evidence.bill}
    for number, attempt in evidence.observations[-1].journal.answered.items():
        line = line_of.get(attempt.message_id or "")
        if line is None or (line.body_sha256, line.nano_usd) != (body_of[attempt.digest], attempt.nano_usd):
            yield f"attempt {number} doesn't match its line of the bill: {line}"


def _double_sends(evidence: Evidence) -> int:
    """Arrivals of a request after the arrival whose answer is in the journal."""
    journaled = _journaled_ids(evidence.observations[-1].journal)
    answered: set[str] = set()
    again = 0
    for line in evidence.bill:
        again += line.body_sha256 in answered
        if line.id in journaled:
            answered.add(line.body_sha256)
    return again


def _missing_answers(evidence: Evidence) -> tuple[int, int]:
    """Complete responses on the bill that the journal lacks: lost ones, and ones that a kill explains."""
    journal = evidence.observations[-1].journal
    journaled = _journaled_ids(journal)
    digest_of = {asked.body_sha256: asked.digest for asked in evidence.asked}
    in_doubt = Counter(a.digest for a in journal.attempts.values() if a.error_code in _KILLED)
    missing = Counter(
        digest_of[line.body_sha256]
        for line in evidence.bill
        if line.nano_usd and line.fault is None and line.id not in journaled
    )
    lost = sum((missing - in_doubt).values())
    for seen in evidence.observations:
        lost += len(_journaled_ids(seen.journal) - journaled)
    return lost, sum((missing & in_doubt).values())


def _journaled_ids(journal: Snapshot) -> set[str]:
    return {attempt.message_id for attempt in journal.answered.values() if attempt.message_id is not None}


def _rows_lost(evidence: Evidence) -> int:
    """Rows that are missing, out of order, or whose status and answer are not what the journal says."""
    given, output = evidence.input, evidence.output
    if len(given) != len(output):
        return abs(len(given) - len(output))
    wrong = [
        a != b for a, b in zip(given.to_pylist(), output.select(given.column_names).to_pylist(), strict=True)
    ]
    attempts = defaultdict(list)
    for attempt in evidence.observations[-1].journal.attempts.values():
        attempts[attempt.digest].append(attempt)
    rows = zip(evidence.asked, output["status"].to_pylist(), output["response_id"].to_pylist(), strict=True)
    for row, (asked, status, response_id) in enumerate(rows):
        wrong[row] |= (status, response_id) != _expected(attempts[asked.digest], evidence.plan.in_doubt)
    return sum(wrong)


def _expected(attempts: list[Attempt], in_doubt: str) -> tuple[str, str | None]:
    """The status of a row and the id of its answer, by the attempts of its request."""
    for attempt in attempts:
        if attempt.outcome == "answered":
            return "ok", attempt.message_id
    left = in_doubt == "leave" and any(attempt.outcome == "uncertain" for attempt in attempts)
    return "failed" if left else "pending", None
