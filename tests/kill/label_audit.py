"""Holds a campaign of labelled rows against the promises: each request follows from the answers before it."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from batchrun.client.request import Request
from batchrun.exchange import Completion
from batchrun.job.file import load_job
from batchrun.rows.dataset import open_dataset
from batchrun.rows.labelling import Labelling, LabelResult
from tests.kill.audit import broken_at, broken_between
from tests.kill.campaign import Evidence


@dataclass(frozen=True, slots=True)
class Asked:
    """Hashes of all bodies that rows take, by digest; and what each row has come to (None: not yet)."""

    body_of: dict[bytes, str]
    verdicts: list[LabelResult | None]


def label_promises_broken(evidence: Evidence, folder: Path) -> list[str]:
    """A sentence for each promise that didn't hold. The bill is the judge, not the journal."""
    asked = _asked(folder)
    return [
        *(text for seen in evidence.observations for text in broken_at(seen)),
        *broken_between(evidence),
        *_broken_by_body(evidence, asked),
        *_sent_again(evidence),
        *_lost_answers(evidence, asked),
        *_broken_rows(evidence, asked),
    ]


def _asked(folder: Path) -> Asked:
    dataset = open_dataset(load_job(folder / "job.toml"), sandbox=False)
    assert dataset.labelling is not None
    known = _replies(folder / "answers.run" / "journal.sqlite")
    body_of: dict[bytes, str] = {}
    verdicts = [
        _play(request, dataset.labelling, known, body_of)
        for chunk in dataset.chunks([])
        for request in chunk.requests
        if isinstance(request, Request)
    ]
    return Asked(body_of, verdicts)


def _play(
    request: Request, labelling: Labelling, known: dict[bytes, Completion], body_of: dict[bytes, str]
) -> LabelResult | None:
    """Takes the row's answers one after the other, in the order in which they became possible."""
    told: dict[bytes, Completion] = {}
    while True:
        state = labelling.state(request, told.get)
        body_of.update((each.digest, sha256(each.body).hexdigest()) for each in state.open)
        new = {each.digest: known[each.digest] for each in state.open if each.digest in known}
        if not new:
            return state.label_result
        told |= new


def _replies(journal: Path) -> dict[bytes, Completion]:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        answers = connection.execute("SELECT digest, body FROM attempts JOIN responses USING (attempt)")
        replies = {digest: Completion(_text(body)) for digest, body in answers}
        failed = connection.execute("SELECT digest FROM attempts WHERE final AND outcome <> 'answered'")
        return {digest: Completion(None) for (digest,) in failed} | replies


def _text(body: bytes) -> str:
    return "".join(block["text"] for block in json.loads(body)["content"])


def _broken_by_body(evidence: Evidence, asked: Asked) -> Iterator[str]:
    """Votes have one body, so that the bill tells the sums over them."""
    settled, uncertain, attempts = Counter[str](), Counter[str](), Counter[str]()
    for number, attempt in evidence.observations[-1].journal.attempts.items():
        body = asked.body_of.get(attempt.digest)
        if body is None:
            yield f"attempt {number} was of a request that no row takes"
            continue
        attempts[body] += 1
        settled[body] += attempt.nano_usd if attempt.outcome == "answered" else 0
        uncertain[body] += attempt.nano_usd if attempt.outcome == "uncertain" else 0
    billed, arrived = Counter[str](), Counter[str]()
    for line in evidence.bill:
        billed[line.body_sha256] += line.nano_usd
        arrived[line.body_sha256] += 1
    for body, times in (arrived - attempts).items():
        yield f"request {body} arrived {times} times without an intent"
    for body in billed.keys() | settled.keys():
        least, most = settled[body], settled[body] + uncertain[body]
        if not least <= billed[body] <= most:
            yield f"request {body}: {billed[body]} billed, not from {least} to {most}"


def _sent_again(evidence: Evidence) -> Iterator[str]:
    answered: set[bytes] = set()
    for number, attempt in sorted(evidence.observations[-1].journal.attempts.items()):
        if attempt.digest in answered:
            yield f"attempt {number} was of a request that had its answer"
        if attempt.outcome == "answered":
            answered.add(attempt.digest)


def _lost_answers(evidence: Evidence, asked: Asked) -> Iterator[str]:
    """Complete responses on the bill that the journal lacks are lost, unless a kill explains them."""
    journal = evidence.observations[-1].journal
    journaled = {attempt.message_id for attempt in journal.answered.values()}
    in_doubt = Counter(
        asked.body_of.get(attempt.digest, "")
        for attempt in journal.attempts.values()
        if attempt.error_code == "in_doubt"
    )
    missing = Counter(
        line.body_sha256
        for line in evidence.bill
        if line.nano_usd and line.fault is None and line.id not in journaled
    )
    for body, number in (missing - in_doubt).items():
        yield f"{number} paid answers of request {body} were lost"


def _broken_rows(evidence: Evidence, asked: Asked) -> Iterator[str]:
    given, output = evidence.input, evidence.output
    if output.select(given.column_names).to_pylist() != given.to_pylist():
        yield f"{len(given)} rows went in, and {len(output)} or others came out"
        return
    columns = zip(*(output[name].to_pylist() for name in ("status", "label", "agreement")), strict=True)
    for row, (label_result, found) in enumerate(zip(asked.verdicts, columns, strict=True)):
        expected: tuple[str, str | None, float | None] = ("pending", None, None)
        if label_result is not None and label_result.label is not None:
            expected = ("ok", label_result.label.text, label_result.agreement)
        elif label_result is not None:
            expected = ("invalid" if label_result.answered else "failed", None, None)
        if found != expected:
            yield f"row {row} is {found}, and its answers come to {expected}"
