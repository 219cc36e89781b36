"""Rows of several requests under a budget: repairs and votes are paid from it, and bought once."""

import random
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import anyio
import msgspec
import pytest

from batchrun.engine import Rules
from batchrun.exchange import Answer, Failure
from batchrun.job.labels import Labels
from batchrun.labelling import Labelling, Reply
from batchrun.labels.reading import make_reader
from batchrun.ledger import Cap
from batchrun.open_rows import Ended, OpenRows, Row
from batchrun.prompts import Request
from batchrun.row_records import row_records
from batchrun.wire.retry import RetryPolicy
from tests.money.fanout import NANO_USD_PER_TOKEN, Run, failure
from tests.money.journals import digest_of

pytestmark = pytest.mark.anyio

LABELLING = Labelling(make_reader(Labels(choices=("yes", "no"))), repair=1, votes=3)
WORST_CASE = (100 + 20) * NANO_USD_PER_TOKEN


def row(number: int) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": f"row {number}"}]}
    return Request(msgspec.json.encode(body), digest_of(number), 100, 20)


@dataclass
class Labeller:
    """Answers yes, no or neither, by row and by how often it was asked; a share of `troubles` fails."""

    draw: random.Random = field(default_factory=lambda: random.Random(5))
    bill: int = 0
    sent: Counter[bytes] = field(default_factory=Counter)
    troubles: float = 0.0

    async def send(self, body: bytes) -> Answer | Failure:
        await anyio.sleep(self.draw.uniform(0, 0.003))
        self.sent[body] += 1
        if self.draw.random() < self.troubles:
            return failure()
        nth = self.sent[body].to_bytes(2, "big")
        text = ("yes", "no", "Yes.", "either", "no")[blake2b(body + nth).digest()[0] % 5]
        message = {
            "type": "message",
            "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": 60, "output_tokens": 15},
        }
        cost = 75 * NANO_USD_PER_TOKEN
        self.bill += cost
        return Answer(msgspec.json.encode(message), 60, 15, cost)


class Hesitant(Labeller):
    """Gives a label to a second repair only; all answers take the same time."""

    async def send(self, body: bytes) -> Answer | Failure:
        await anyio.sleep(0.005)
        if self.draw.random() < self.troubles:
            return failure()
        text = "yes" if body.count(b"not a valid answer") == 2 else "either"
        message = {
            "type": "message",
            "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": 60, "output_tokens": 15},
        }
        cost = 75 * NANO_USD_PER_TOKEN
        self.bill += cost
        return Answer(msgspec.json.encode(message), 60, 15, cost)


def rules(concurrency: int) -> Rules:
    return Rules(concurrency, RetryPolicy(max_attempts=6, max_wait_seconds=0.01), labelling=LABELLING)


def decided(run: Run, rows: list[Request]) -> dict[bytes, bool]:
    """Which rows have come to their end, by the journal alone."""
    journal = run.journal()
    try:
        records = row_records(rows, journal, LABELLING)
    finally:
        journal.close()
    return {
        digest: record.standing is not None and record.standing.verdict is not None
        for digest, record in records.items()
    }


@pytest.mark.parametrize("concurrency", [1, 64, 1_000])
async def test_the_budget_holds_over_repairs_and_votes_and_is_used(tmp_path: Path, concurrency: int) -> None:
    """1,000 rows, room for a third of their requests: the cap is met to within one worst case of a repair."""
    cap = 1_000 * WORST_CASE
    run = Run(tmp_path / "journal.sqlite", (Cap("budget.usd", "nano_usd", cap),), rules=rules(concurrency))
    labeller = Labeller(troubles=0.05)
    stop = await run.asked(labeller, [row(number) for number in range(1_000)])  # type: ignore[arg-type]
    assert stop is not None
    assert stop.exit_code == 4
    assert 0.99 * cap <= labeller.bill <= cap
    assert run.ledger.settled.nano_usd == labeller.bill


async def test_rows_in_progress_go_before_new_ones_at_the_cap(tmp_path: Path) -> None:
    """What is begun is finished: of some 220 rows, forty would stand half done if new ones went first."""
    cap = 600 * WORST_CASE
    run = Run(tmp_path / "journal.sqlite", (Cap("budget.usd", "nano_usd", cap),), rules=rules(64))
    rows = [row(number) for number in range(1_000)]
    labeller = Labeller()
    await run.asked(labeller, rows)  # type: ignore[arg-type]
    begun = {body for body in labeller.sent if b"row" in body}
    ends = decided(run, rows)
    half_done = [one for one in rows if one.body in begun and not ends[one.digest]]
    assert len(half_done) <= 10


async def test_the_cap_on_rows_counts_rows_and_not_requests(tmp_path: Path) -> None:
    run = Run(tmp_path / "journal.sqlite", (Cap("budget.rows", "rows", 40),), rules=rules(8))
    rows = [row(number) for number in range(100)]
    labeller = Labeller()
    await run.asked(labeller, rows)  # type: ignore[arg-type]
    assert sum(decided(run, rows).values()) == 40
    assert labeller.sent.total() > 80


@pytest.mark.parametrize("concurrency", [4, 8, 50])
async def test_rows_in_progress_go_on_when_no_new_row_may_begin(tmp_path: Path, concurrency: int) -> None:
    """Also where all of them wait for a repair at the moment at which the cap is met."""
    labelling = Labelling(make_reader(Labels(choices=("yes", "no"))), repair=2)
    policy = RetryPolicy(max_attempts=6, max_wait_seconds=0.01)
    run = Run(
        tmp_path / "journal.sqlite",
        (Cap("budget.rows", "rows", 4),),
        rules=Rules(concurrency, policy, labelling=labelling),
    )
    labeller = Hesitant(troubles=0.2)
    stop = await run.asked(labeller, [row(number) for number in range(60)])  # type: ignore[arg-type]
    assert stop is not None
    assert stop.exit_code == 4
    assert run.progress.answers == 4
    assert run.ledger.settled.nano_usd == labeller.bill


async def test_every_row_comes_to_its_end_and_a_second_run_asks_for_nothing(tmp_path: Path) -> None:
    """In chunks with each row twice, and with failures on the way."""
    run = Run(tmp_path / "journal.sqlite", rules=rules(50))
    rows = [row(number % 150) for number in range(300)]
    labeller = Labeller(troubles=0.1)
    assert await run.asked(labeller, rows) is None  # type: ignore[arg-type]
    assert all(decided(run, rows).values())
    progress = run.progress
    assert progress.answers + progress.failed + progress.shared == 300
    before = labeller.sent.total()
    assert await run.asked(labeller, rows) is None  # type: ignore[arg-type]
    assert labeller.sent.total() == before


def test_the_end_of_a_request_whose_row_was_given_up_leads_to_nothing() -> None:
    """Where the endpoint refuses one vote for good, the others of its row may be on their way."""
    rows = OpenRows(LABELLING)
    requests = rows.begin(Row(0, row(0)))
    assert not isinstance(requests, Ended)
    first, second = requests
    rows.drop(first)
    assert rows.take(second, Reply("yes")) == []
    assert len(rows) == 0
