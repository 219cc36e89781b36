"""Rows of several requests at a cap: what a request that follows another one counts as, and when it goes."""

import math
from collections import Counter, deque

import pytest
from msgspec.structs import replace

from batchrun.client.request import Request
from batchrun.engine.dispatcher import END, ReleasedRequest
from batchrun.engine.ledger import Cap
from batchrun.engine.prefetch import LEAST_PREPARED
from batchrun.engine.usefulness import IN_FLIGHT_BEFORE_FIRST_USABLE
from batchrun.exchange import Completion, FailureAction
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import LabelParser
from batchrun.rows.active import Row
from batchrun.rows.labelling import Labelling
from batchrun.rows.observer import Observer
from batchrun.rows.result import RowResult
from batchrun.stops import at_cap_of
from tests.money.dispatching import Desk
from tests.money.fanout import NANO_USD_PER_TOKEN, answer, failure, request

WORST_CASE = (100 + 20) * NANO_USD_PER_TOKEN


def votes(number: int) -> Labelling:
    return Labelling(LabelParser(lambda text, _: Label(text, text), ""), votes=number)


def test_a_row_counts_once_in_the_run_that_answers_it() -> None:
    """Also where another run has sent its first request: a cap on rows holds for what follows that, too."""
    desk = Desk(caps=[Cap("budget.rows", "rows", 1)], labelling=votes(2))
    rows = [request(number) for number in (1, 2, 3)]
    desk.dispatcher.feed([Row(n, row, ((row.digest, Completion("yes")),)) for n, row in enumerate(rows)])
    desk.dispatcher.feed(None)
    sent = []
    while desk.advance() != END:
        sent += desk.commit()
        desk.end()
    assert sent == [1]
    assert desk.ledger.settled.rows == 1
    assert desk.dispatcher.stopped_by == at_cap_of("budget.rows")


def test_a_row_whose_first_vote_fails_counts_when_another_vote_is_answered() -> None:
    desk = Desk(rows=3, caps=[Cap("budget.rows", "rows", 1)], labelling=votes(2))
    desk.advance()
    sent = desk.commit()
    assert sent == [1, 1]
    desk.end(failure(FailureAction.FAIL_ROW))
    desk.end(answer())
    while desk.advance() != END:
        sent += desk.commit()
        desk.end()
    assert sent == [1, 1]
    assert desk.dispatcher.stopped_by == at_cap_of("budget.rows")


def test_rows_that_were_put_aside_do_not_give_way_to_each_other_for_ever() -> None:
    desk = Desk(caps=[Cap("budget.usd", "nano_usd", 4 * WORST_CASE - 1)], labelling=votes(3))
    desk.dispatcher._prefetch.most = 8
    marked = [replace(request(number), cached="5m", beginning=b"a") for number in range(2, 8)]
    desk.dispatcher.feed([Row(number, row) for number, row in enumerate([request(1), *marked])])
    desk.dispatcher.feed(None)
    assert desk.advance() == math.inf
    assert desk.commit() == [1, 1, 2], "the others wait for the first with their beginning"
    desk.dispatcher.begun(desk.sent[2])
    for text in ("yes", "no"):
        desk.end(answer(1, 1, completion=Completion(text)))
    sent = []
    while desk.advance() != END:
        sent += desk.commit()
        desk.end(answer(1, 1))
    assert sorted(sent) == [1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]


class Rows(Observer):
    """Notes in which order rows end, and how many requests each has taken."""

    def __init__(self) -> None:
        self.ended: list[bytes] = []

    def row_ended(self, request: Request, result: RowResult) -> None:
        assert request.row not in self.ended
        self.ended.append(request.row)


def run_invalid(desk: Desk, rows: int) -> tuple[list[bytes], int]:
    """Sends to a model that never gives a valid label; the rows in order, and the most open at a time."""
    ends = Rows()
    dispatcher = desk.dispatcher
    dispatcher._observer = dispatcher._scheduler._observer = ends
    body = b'{"messages": [{"role": "user", "content": "Which?"}]}'
    dispatcher.feed([Row(n, replace(request(n + 1), body=body)) for n in range(rows)])
    dispatcher.feed(None)
    invalid = answer(completion=Completion("hm", "end_turn"))
    sent: list[bytes] = []
    in_flight: deque[ReleasedRequest] = deque()
    most_open, now = 0, 0.0
    while dispatcher.advance(now) != END:
        intents, desk.log.uncommitted = desk.log.uncommitted, 0
        released = dispatcher.committed(intents, frozenset(), now) if intents else []
        if not released:
            released = dispatcher.completed(in_flight.popleft(), invalid, now)
        for each in released:
            dispatcher.sent(each)
            sent.append(each.active.request.row)
        in_flight.extend(released)
        most_open = max(most_open, len(set(sent)) - len(ends.ended))
        now += 0.01
    return sent, most_open


def never_valid(votes: int, repair: int) -> Labelling:
    reader = LabelParser(lambda text, _: InvalidLabel("choice", "it is none of the choices"), "")
    return Labelling(reader, votes=votes, repair=repair)


@pytest.mark.parametrize("concurrency", [1, 4, 32])
def test_rows_are_finished_before_others_are_begun_where_no_answer_is_valid(concurrency: int) -> None:
    """Three votes with two repairs each are nine requests. Each row takes two places at first."""
    desk = Desk(concurrency=concurrency, labelling=never_valid(3, 2))
    sent, most_open = run_invalid(desk, 200)
    assert list(Counter(sent).values()) == [9] * 200
    assert most_open <= concurrency + LEAST_PREPARED + 1
    places = {row: [place for place, each in enumerate(sent) if each == row] for row in set(sent)}
    far = 9 * (concurrency + LEAST_PREPARED + 1)
    assert max(own[-1] - own[0] for own in places.values()) <= far, "a row waits for others that came later"


def test_a_run_whose_votes_and_repairs_never_give_a_label_stops_after_so_many_rows() -> None:
    """It has bought 25 rows in full, and begun hardly any others."""
    desk = Desk(concurrency=64, labelling=never_valid(3, 2), useless_rows=25)
    sent, _ = run_invalid(desk, 1_000)
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert stop.exit_code == 5
    assert "not valid labels" in stop.reason
    whole = sum(count == 9 for count in Counter(sent).values())
    assert 25 <= whole <= 25 + IN_FLIGHT_BEFORE_FIRST_USABLE
    assert len(set(sent)) <= 25 + IN_FLIGHT_BEFORE_FIRST_USABLE + LEAST_PREPARED
    assert len(sent) < 1.5 * 9 * 25


def test_under_a_cap_most_of_what_is_spent_on_invalid_rows_finishes_them() -> None:
    """The cap is reached after some 40 of 100 rows: only those in progress then stay unfinished."""
    cap = Cap("budget.usd", "nano_usd", 30_000 * NANO_USD_PER_TOKEN)
    desk = Desk(concurrency=8, labelling=never_valid(3, 2), caps=[cap])
    sent, _ = run_invalid(desk, 100)
    counts = Counter(sent)
    whole = sum(count == 9 for count in counts.values())
    assert desk.dispatcher.stopped_by == at_cap_of("budget.usd")
    assert whole >= 30
    assert len(counts) - whole <= 8 + LEAST_PREPARED
