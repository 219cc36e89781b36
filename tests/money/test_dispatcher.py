"""The dispatcher on values: what it prepares, sends, retries and gives up, and in which order."""

import math

import msgspec
import pytest

from batchrun.amounts import NOTHING, Amount
from batchrun.engine.dispatcher import END, ROWS
from batchrun.engine.ledger import Cap
from batchrun.exchange import BillingStatus, Completion, FailureAction, RateLimits
from batchrun.rows.active import Row
from batchrun.stops import Stop
from tests.money.dispatching import Desk
from tests.money.fanout import NANO_USD_PER_TOKEN, answer, failure, request

WORST_CASE = (100 + 20) * NANO_USD_PER_TOKEN
STOP = Stop(130, "Interrupted.", "go on")


# Order, and how much is prepared ahead.


def test_nothing_is_sent_before_its_intent_is_durable() -> None:
    desk = Desk(rows=2)
    assert desk.advance() == math.inf
    assert desk.log.records == [("intent", 1), ("intent", 2)]
    assert desk.dispatcher.release(0.0) == []
    assert desk.commit() == [1, 2]


def test_rows_are_sent_in_their_order_and_no_more_than_the_concurrency_at_once() -> None:
    desk = Desk(rows=20, concurrency=3)
    sent, most = [], 0
    while desk.advance() != END:
        sent += desk.commit()
        most = max(most, len(desk.sent))
        sent += desk.end()
    assert sent == list(range(1, 21))
    assert most == 3
    assert desk.log.count("answered") == 20
    assert desk.ledger.reserved == NOTHING


def test_rows_are_asked_for_when_the_last_one_is_prepared() -> None:
    desk = Desk()
    desk.dispatcher.feed([Row(1, request(1))])
    assert desk.advance() == ROWS
    desk.dispatcher.feed(None)
    assert desk.advance() == math.inf
    desk.commit()
    desk.end()
    assert desk.advance() == END


def test_few_requests_are_prepared_at_first_and_twice_as_many_when_these_were_not_enough() -> None:
    desk = Desk(rows=100, concurrency=16)
    prepared = []
    for _ in range(5):
        desk.advance()
        prepared.append(desk.log.uncommitted)
        desk.commit()
        while desk.sent:
            desk.end()
    assert prepared == [2, 4, 8, 16, 16]


def test_a_held_request_keeps_further_ones_from_being_prepared() -> None:
    """What is prepared is uncertain after a crash: no more of it than the pace has use for."""
    desk = Desk(rows=100, concurrency=64, requests_per_minute=60)
    desk.advance()
    assert desk.commit() == [1]
    desk.advance()
    assert desk.log.uncommitted == 1
    hold = desk.dispatcher.hold(0.0)
    assert 0.9 < hold < 1.1
    assert desk.dispatcher.sendable
    assert desk.dispatcher.release(hold / 2) == []
    assert desk.send(desk.dispatcher.release(hold)) == [2]


# The journal's word.


def test_a_request_that_the_journal_refuses_is_not_sent_and_frees_its_reservation() -> None:
    desk = Desk(rows=2)
    desk.advance()
    assert desk.commit(refused=[1]) == [2]
    assert desk.progress.shared == 1
    assert desk.ledger.reserved == Amount(nano_usd=WORST_CASE, tokens=120, rows=1)
    desk.end()
    assert desk.advance() == END
    assert desk.log.records == [("intent", 1), ("intent", 2), ("answered", 2)]


def test_an_end_is_in_the_journal_before_the_intent_that_uses_what_it_left() -> None:
    desk = Desk(rows=2, caps=[Cap("budget.usd", "nano_usd", WORST_CASE * 2 - 1)])
    assert desk.advance() == math.inf
    assert desk.progress.blocked_by == "budget.usd"
    desk.commit()
    desk.end(answer(10, 1))
    desk.advance()
    assert desk.log.records == [("intent", 1), ("answered", 1), ("intent", 2)]


def test_a_cap_without_room_ends_the_run_once_nothing_in_flight_could_make_any() -> None:
    desk = Desk(rows=5, caps=[Cap("budget.rows", "rows", 1)])
    assert desk.advance() == math.inf
    desk.commit()
    assert desk.advance() == math.inf, "it could fail, and free its place"
    desk.end()
    assert desk.advance() == END
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert "budget.rows" in stop.reason


# Retries.


def test_a_retry_comes_when_it_is_due_and_before_new_rows() -> None:
    """Row 3 was the next one before row 1 failed. The backoff after a first failure is a second at most."""
    desk = Desk(rows=9, concurrency=1)
    desk.advance()
    desk.commit()
    assert desk.end(failure(), now=5.0) == [2]
    desk.end(now=5.0)
    desk.advance(now=6.1)
    assert desk.commit(now=6.1) == [3]
    assert desk.end(now=6.1) == [1]


def test_new_rows_go_before_a_retry_while_everything_fails() -> None:
    """They tell a bad endpoint from a bad row. Row 3 was the next one before row 1 failed."""
    desk = Desk(rows=9, concurrency=1)
    desk.advance()
    desk.commit()
    assert desk.end(failure(), now=5.0) == [2]
    desk.advance(now=6.1)
    desk.end(now=6.2)
    assert desk.commit(now=6.2) == [3]
    assert desk.end(now=6.2) == [4]


def test_the_wait_for_the_only_retry_is_what_it_takes_to_go_on() -> None:
    desk = Desk(rows=1)
    desk.advance()
    desk.commit()
    desk.end(failure(retry_after=7.0), now=100.0)
    assert desk.advance(now=100.0) == 7.0
    assert desk.advance(now=103.0) == 4.0
    assert desk.log.uncommitted == 0
    assert desk.advance(now=107.0) == math.inf
    assert desk.commit(now=107.0) == [1]


def test_the_last_attempt_is_final() -> None:
    desk = Desk(rows=1)
    now = 0.0
    for _ in range(3):
        now += 100.0
        desk.advance(now)
        desk.commit(now)
        desk.end(failure(billing=BillingStatus.UNKNOWN), now)
    assert desk.advance(now) == END
    assert desk.log.finals == {3}
    assert desk.ledger.uncertain.nano_usd == 3 * WORST_CASE
    assert desk.progress.failed == 1


def test_a_lost_response_ends_its_row_where_the_rules_say_so() -> None:
    desk = Desk(rows=1, leave_in_doubt=True)
    desk.advance()
    desk.commit()
    desk.end(failure(billing=BillingStatus.UNKNOWN))
    assert desk.advance() == END
    assert desk.log.finals == {1}


def test_a_wait_beyond_the_patience_ends_the_run_and_keeps_the_row() -> None:
    desk = Desk(rows=1)
    desk.advance()
    desk.commit()
    desk.end(failure(FailureAction.SLOW_DOWN, status=429, retry_after=3_600.0))
    assert desk.advance() == END
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert stop.exit_code == 5
    assert not desk.log.finals


def test_an_endpoint_that_refuses_everything_for_too_long_ends_the_run() -> None:
    desk = Desk(rows=1, outage_seconds=60.0)
    now = 1.0
    while desk.advance(now) != END:
        desk.commit(now)
        if desk.sent:
            desk.end(failure(FailureAction.SLOW_DOWN, status=429), now)
        now += 5.0
        desk.send(desk.dispatcher.release(now))
    assert 60.0 < now < 80.0
    assert not desk.log.finals


def test_responses_between_the_refusals_keep_the_patience() -> None:
    desk = Desk(rows=40, concurrency=1, outage_seconds=20.0)
    desk.advance(1.0)
    desk.commit(1.0)
    for turn in range(1, 60):
        now = 1.0 + 4.0 * turn
        desk.send(desk.dispatcher.release(now))
        if desk.sent:
            desk.end(answer() if turn % 3 == 0 else failure(FailureAction.SLOW_DOWN, status=429), now)
        assert desk.advance(now) != END
        desk.commit(now)


def test_the_limiter_hears_of_every_end(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(rows=2)
    heard: list[object] = []
    monkeypatch.setattr(desk.limiter, "failed", lambda _admission, *told: heard.append(told))
    desk.advance()
    desk.commit()
    refusal = failure(FailureAction.SLOW_DOWN, status=429)
    desk.end(refusal, now=1.0)
    assert heard == [(1.0, refusal, None)]
    desk.end(msgspec.structs.replace(answer(), limits=RateLimits(limit_requests=60)), now=2.0)
    assert desk.limiter.pace.requests_per_minute == 60


def test_a_failure_that_concerns_every_request_ends_the_run_and_keeps_the_row() -> None:
    desk = Desk(rows=9)
    desk.advance()
    desk.commit()
    desk.end(failure(FailureAction.STOP_RUN, status=401))
    desk.end()
    assert desk.advance() == END
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert stop.exit_code == 5
    assert not desk.log.finals


@pytest.mark.parametrize("leave", [True, False])
def test_a_failure_that_ends_the_run_leaves_a_row_in_doubt_where_the_rules_say_so(leave: bool) -> None:
    desk = Desk(rows=1, leave_in_doubt=leave)
    desk.advance()
    desk.commit()
    desk.end(failure(FailureAction.STOP_RUN, BillingStatus.UNKNOWN, status=200))
    assert desk.advance() == END
    assert desk.log.finals == ({1} if leave else set())
    assert desk.dispatcher.stopped_by is not None


# The end.


def mixed_desk(*, leave_in_doubt: bool = False) -> Desk:
    """Attempt 1 is on the wire, 2 released, 3 durable, 4 and 5 uncommitted."""
    desk = Desk(rows=9, concurrency=2, leave_in_doubt=leave_in_doubt)
    desk.dispatcher._prefetch.most = 3
    desk.advance()
    first, second = desk.dispatcher.committed(3, frozenset(), 0.0)
    desk.send([first])
    desk.dispatcher._prefetch.most = 3
    desk.advance()
    desk.log.uncommitted = 2
    assert len(desk.log.open_intents) == 5
    assert desk.dispatcher._released.keys() == {second.active.attempt}
    return desk


def test_a_stop_cancels_what_nobody_sends_and_waits_for_the_rest() -> None:
    desk = mixed_desk()
    desk.dispatcher.stop(STOP)
    assert desk.log.records[-1] == ("cancelled", 3)
    assert desk.advance() == math.inf
    assert desk.commit() == [], "what becomes durable afterwards is cancelled"
    assert desk.log.count("cancelled") == 3
    assert desk.end() == []
    assert desk.log.open_intents == {2}
    assert desk.advance() == math.inf, "the sender has it"


def test_a_stop_waits_for_the_journal_alone_too() -> None:
    """Its word on an intent is needed to cancel it."""
    desk = Desk(rows=1)
    desk.advance()
    desk.dispatcher.stop(STOP)
    assert desk.advance() == math.inf
    assert desk.commit() == []
    assert desk.advance() == END
    assert desk.log.records == [("intent", 1), ("cancelled", 1)]


def test_enough_stops_the_run_wherever_a_row_ends() -> None:
    """With a response, with another row's that the journal has, or before this run."""
    ended: list[int] = []
    answered = Desk(rows=9, concurrency=1, enough=lambda: STOP if ended else None)
    answered.advance()
    answered.commit()
    ended.append(1)
    assert answered.end() == []
    assert answered.log.records[-1] == ("cancelled", 2)

    shared = Desk(rows=9, enough=lambda: STOP if shared.progress.shared else None)
    shared.advance()
    assert shared.commit(refused=[1]) == []
    assert shared.advance() == END

    known = Desk(enough=lambda: STOP)
    known.dispatcher.feed([Row(1, request(1), ((request(1).digest, Completion("yes")),)), Row(2, request(2))])
    assert known.advance() == END
    assert not known.log.records


def test_a_drain_has_its_time_and_no_more() -> None:
    desk = mixed_desk()
    desk.dispatcher.stop(STOP, drain_until=30.0)
    assert desk.advance(now=10.0) == 20.0
    assert desk.advance(now=30.0) == END
    desk.dispatcher.abandon()
    assert desk.dispatcher.stopped_by == STOP


def test_the_first_reason_to_stop_counts_and_an_abort_has_its_own() -> None:
    desk = Desk()
    desk.dispatcher.stop(STOP)
    desk.dispatcher.stop(Stop(4, "Another.", "go on"))
    assert desk.dispatcher.stopped_by == STOP
    at_once = Stop(130, "Ended at once.", "go on", immediate=True)
    desk.dispatcher.abort(stop=at_once)
    assert desk.dispatcher.stopped_by == at_once


@pytest.mark.parametrize("leave", [False, True])
def test_what_is_abandoned_on_the_wire_is_uncertain_and_the_rest_is_cancelled(leave: bool) -> None:
    desk = mixed_desk(leave_in_doubt=leave)
    desk.dispatcher.abort(OSError("the disk is gone"))
    desk.dispatcher.abandon()
    assert desk.log.records[5:] == [
        ("cancelled", 3),
        ("uncertain", 1),
        ("cancelled", 2),
        ("cancelled", 4),
        ("cancelled", 5),
    ]
    assert desk.ledger.uncertain.nano_usd == WORST_CASE
    assert desk.ledger.reserved == NOTHING
    assert desk.log.finals == ({1} if leave else set())
    with pytest.raises(OSError, match="the disk is gone"):
        _ = desk.dispatcher.stopped_by


def test_a_response_that_comes_with_an_abort_is_kept_and_releases_nothing() -> None:
    desk = Desk(rows=9, concurrency=1)
    desk.advance()
    desk.commit()
    desk.dispatcher.abort()
    assert desk.end() == []
    desk.dispatcher.abandon()
    assert desk.log.records[2:] == [("cancelled", 2), ("answered", 1)]


def test_a_fault_at_one_request_drains_the_others() -> None:
    desk = Desk(rows=9)
    desk.advance()
    desk.commit()
    desk.dispatcher.faulted(desk.sent.pop(0), AttributeError("a mistake"))
    assert desk.ledger.uncertain.nano_usd == WORST_CASE
    assert desk.advance() == math.inf
    assert desk.end() == []
    assert desk.advance() == END
    with pytest.raises(AttributeError, match="a mistake"):
        _ = desk.dispatcher.stopped_by
