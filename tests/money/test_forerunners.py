"""Requests that share a marked beginning: one goes ahead of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from batchrun.client.builder import RequestBuilder
from batchrun.client.request import Request
from batchrun.engine import forerunners
from batchrun.engine.accounting import ActiveRequest
from batchrun.engine.dispatcher import END
from batchrun.engine.ledger import Cap
from batchrun.job.file import make_job
from batchrun.rows.active import Row
from batchrun.rows.labelling import PLAIN, Labelling
from batchrun.stops import at_cap_of
from tests.money.dispatching import Desk
from tests.money.fanout import answer, failure, request
from tests.money.test_follow_ups import votes


def desk(
    beginnings: Sequence[bytes | None],
    concurrency: int = 4,
    caps: Sequence[Cap] = (),
    labelling: Labelling = PLAIN,
) -> Desk:
    made = Desk(concurrency=concurrency, caps=caps, labelling=labelling)
    rows = [
        Row(place, replace(request(place + 1), cached="5m", beginning=beginning))
        for place, beginning in enumerate(beginnings)
    ]
    made.dispatcher.feed(rows)
    made.dispatcher.feed(None)
    return made


def sent(made: Desk, now: float = 0.0) -> list[int]:
    """What is sent now, over as many commits as it takes."""
    rows: list[int] = []
    while made.advance(now) != END and made.log.uncommitted:
        rows += made.commit(now)
    return rows


def test_the_others_are_sent_once_the_first_has_its_response() -> None:
    made = desk([b"a", b"a", b"a", None, b"b"])
    assert sent(made) == [1, 4, 5], "rows with another beginning, or none, do not wait"
    assert sent(made) == []
    made.end(answer(), place=1)
    assert sent(made) == [], "the response was another row's"
    made.end(answer())
    assert sent(made) == [2, 3]


def test_the_others_are_sent_once_the_response_to_the_first_begins() -> None:
    made = desk([b"a", b"a", b"a"])
    assert sent(made) == [1]
    made.dispatcher.begun(made.sent[0])
    assert sent(made) == [2, 3]
    made.end(failure())
    assert made.ledger.in_flight == 2


def test_where_the_first_fails_the_next_one_goes_ahead() -> None:
    made = desk([b"a", b"a", b"a"])
    assert sent(made) == [1]
    made.end(failure())
    assert sent(made, now=50.0) == [2]
    made.end(answer(), now=50.0)
    assert sorted(sent(made, now=100.0)) == [1, 3]
    made.end(answer(), now=100.0)
    made.end(answer(), now=100.0)
    assert made.advance(100.0) == END


def test_a_new_row_with_a_known_beginning_does_not_wait() -> None:
    made = desk([b"a"] * 5, concurrency=2)
    assert sent(made) == [1]
    made.end(answer())
    assert sent(made) == [2, 3]
    assert [*made.end(answer()), *made.end(answer())] == [4, 5]


def test_more_rows_than_can_be_put_aside_are_all_sent(monkeypatch: Any) -> None:
    monkeypatch.setattr(forerunners, "MOST_ASIDE", 2)
    made = desk([b"a"] * 6, concurrency=8)
    assert sent(made) == [1]
    made.end(answer())
    rows = sent(made)
    while made.sent:
        rows += made.end(answer())
        rows += sent(made)
    assert sorted(rows) == [2, 3, 4, 5, 6]
    assert made.advance() == END


def test_rows_that_wait_hold_no_part_of_the_budget() -> None:
    made = desk([b"a"] * 3, caps=(Cap("budget.usd", "nano_usd", 700_000),))
    assert sent(made) == [1]
    assert made.ledger.in_flight == 1
    made.end(answer())
    assert sent(made) == []
    assert made.advance() == END, "no room for another worst case"
    assert made.log.open_intents == set()


def built(template: str, row: str, **tables: Any) -> Request:
    whole = {
        "input": {"path": "in.csv"},
        "output": {"path": "out.parquet"},
        "request": {"model": "m", "max_tokens": 5},
        **tables,
    }
    whole["prompt"] = {"template": template, **tables.get("prompt", {})}
    made = RequestBuilder(make_job(whole, Path()), ["x"], "").build({"x": row})
    assert isinstance(made, Request)
    return made


def test_a_beginning_ends_with_the_first_mark() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    shared = {"prompt": {"system": [{"type": "text", "text": "Be brief.", **mark}]}}
    by_row = {"prompt": {"system": [{"type": "text", "text": "About {{ x }}.", **mark}]}}
    assert built("{{ x }}", "a", **shared).beginning == built("{{ x }}", "b", **shared).beginning
    assert built("{{ x }}", "a", **by_row).beginning != built("{{ x }}", "b", **by_row).beginning
    tools = {"request": {"model": "m", "max_tokens": 5, "extra": {"tools": [{"name": "t", **mark}]}}}
    of_tools = built("{{ x }}", "a", **tools, prompt={"system": "One."}).beginning
    assert of_tools == built("{{ x }}", "b", **tools, prompt={"system": "Two."}).beginning is not None
    at_the_top = {"request": {"model": "m", "max_tokens": 5, "extra": mark}}
    assert built("{{ x }}", "a", **at_the_top).beginning is None
    assert built("{{ x }}", "a").beginning is None


def test_a_row_that_does_not_begin_at_a_cap_has_none_of_its_votes_sent() -> None:
    made = desk([b"a", b"a", b"a"], caps=[Cap("budget.rows", "rows", 1)], labelling=votes(2))
    rows = sent(made)
    while made.advance() != END:
        made.end(answer())
        rows += sent(made)
    assert rows == [1, 1]
    assert made.dispatcher.stopped_by == at_cap_of("budget.rows")


def test_no_vote_of_a_row_goes_before_the_one_that_begins_the_row() -> None:
    one, row = (replace(request(number), beginning=b"a") for number in (1, 2))
    ahead, first = ActiveRequest(one), ActiveRequest(row)
    second, third = ActiveRequest(row, begins=False), ActiveRequest(row, begins=False)
    made = forerunners.Forerunners()
    made.prepared(ahead)
    assert made.put_aside(first)
    assert made.put_aside(second)
    made.ended(ahead, answered=True)
    assert made.let_its_row_begin(third)
    assert [made.next(), made.next(), made.next(), made.next()] == [first, second, third, None]
    assert not made.let_its_row_begin(third)
