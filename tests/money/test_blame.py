"""Whose fault a failure is, the row's or the run's: the dispatcher on values, in virtual time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from batchrun.engine.dispatcher import END
from batchrun.engine.limits.refused_rows import MOST_IN_DOUBT, MOST_UNANSWERED, RefusedRows
from batchrun.exchange import BillingStatus, Failure, FailureAction
from tests.money.dispatching import Desk, row_of
from tests.money.fanout import answer, failure

FORBIDDEN = failure(FailureAction.REFUSE, status=403)
OUTAGE = replace(failure(status=503), told_not_to_retry=True)


@dataclass
class Ended:
    """`requests` are the rows' numbers in the order in which they were sent."""

    desk: Desk
    requests: list[int]
    seconds: float

    @property
    def counts(self) -> tuple[int, int]:
        """Rows that were answered, and rows that failed."""
        return self.desk.log.count("answered"), len(self.desk.log.finals)

    @property
    def reason(self) -> str | None:
        stop = self.desk.dispatcher.stopped_by
        assert stop is None or stop.exit_code == 5
        return None if stop is None else stop.reason


def run(
    desk: Desk,
    fails: Callable[[int, float], Failure | None],
    seconds: Callable[[bool], float] = lambda _: 0.1,
) -> Ended:
    """Sends all rows to a server that takes `seconds(failed)` for each, until nothing is left to do."""
    now, requests, ends = 1.0, [], {}
    while (need := desk.advance(now)) != END:
        desk.commit(now)
        desk.send(desk.dispatcher.release(now))
        for each in desk.sent:
            if each.active.attempt not in ends:
                requests.append(row_of(each.active.request))
                failed = fails(requests[-1], now)
                ends[each.active.attempt] = now + seconds(failed is not None), failed or answer()
        hold = desk.dispatcher.hold(now) if desk.dispatcher.sendable else math.inf
        wait = need if isinstance(need, float) else math.inf
        ends_at = [ends[each.active.attempt][0] for each in desk.sent]
        now = max(now + 1e-6, min([now + hold, now + wait, *ends_at]))
        for each in [each for each in desk.sent if ends.get(each.active.attempt, (math.inf,))[0] <= now]:
            desk.end(ends[each.active.attempt][1], now, desk.sent.index(each))
    return Ended(desk, requests, now)


def only(*rows: int) -> Callable[[int, float], Failure | None]:
    return lambda row, _: FORBIDDEN if row in rows else None


# Refusals: 403, 404, 405.


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("bad", [(500,), (1,), (1, 2), (3_000,), (5, 6, 7), (100, 1_000, 2_000, 2_999)])
def test_a_row_that_is_refused_among_good_ones_fails_alone(bad: tuple[int, ...], concurrency: int) -> None:
    """It is sent once more, after new rows."""
    ended = run(Desk(rows=3_000, concurrency=concurrency), only(*bad))
    assert ended.reason is None
    assert ended.counts == (3_000 - len(bad), len(bad))
    assert len(ended.requests) == 3_000 + len(bad)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_endpoint_that_refuses_everybody_ends_the_run_at_once(concurrency: int) -> None:
    ended = run(Desk(rows=300, concurrency=concurrency), lambda *_: FORBIDDEN)
    assert ended.counts == (0, 0)
    assert len(ended.requests) < MOST_UNANSWERED + 2 * concurrency
    assert ended.reason is not None
    assert "POST model.test/v1/messages answered 403 for row " in ended.reason
    assert ended.reason.endswith(": It failed.")


@pytest.mark.parametrize("rows", [1, 2])
def test_rows_of_which_none_was_ever_answered_stay_pending(rows: int) -> None:
    ended = run(Desk(rows=rows), lambda *_: FORBIDDEN)
    assert ended.counts == (0, 0)
    assert ended.reason is not None


@pytest.mark.parametrize("rows", [112, 120, 300])
def test_a_permission_that_is_withdrawn_ends_the_run_and_fails_no_row(rows: int) -> None:
    ended = run(Desk(rows=rows, concurrency=4), lambda row, _: FORBIDDEN if row > 100 else None)
    assert ended.counts == (100, 0)
    assert ended.reason is not None
    assert len(ended.requests) <= 100 + 2 * MOST_IN_DOUBT + 8


def test_refused_rows_all_over_a_run_are_rows_that_fail() -> None:
    ended = run(Desk(rows=1_000, concurrency=16), lambda row, _: FORBIDDEN if row % 3 == 0 else None)
    assert ended.reason is None
    assert ended.counts == (667, 333)


def test_a_refusal_that_passes_costs_no_row() -> None:
    refused: list[int] = []

    def once(row: int, _: float) -> Failure | None:
        if row % 10 or row in refused:
            return None
        refused.append(row)
        return FORBIDDEN

    ended = run(Desk(rows=100), once)
    assert ended.counts == (100, 0)


def test_with_one_attempt_a_refused_row_is_not_sent_again() -> None:
    ended = run(Desk(rows=40, max_attempts=1), only(20))
    assert (ended.counts, len(ended.requests)) == ((39, 1), 40)
    assert run(Desk(rows=1, max_attempts=1), only(1)).requests == [1]


def test_an_answer_that_was_under_way_says_nothing_about_a_refused_row() -> None:
    rows = RefusedRows(may_repeat=True)
    assert rows.refused(b"1", 5.0, at_the_end=False) is FailureAction.REFUSE
    rows.answered(4.0)
    doubts = [rows.in_doubt]
    assert rows.refused(b"1", 6.0, at_the_end=False) is FailureAction.REFUSE
    rows.answered(5.5)
    doubts.append(rows.in_doubt)
    assert doubts == [True, False]
    assert rows.refused(b"1", 7.0, at_the_end=False) is FailureAction.FAIL_ROW


# `x-should-retry: false`.


@pytest.mark.parametrize("rows", [12, 20, 100])
def test_an_outage_fails_no_row_whatever_the_server_says_about_retries(rows: int) -> None:
    ended = run(Desk(rows=rows, outage_seconds=60.0), lambda row, now: OUTAGE if now > 1.2 else None)
    assert ended.reason is not None
    assert ended.reason.startswith("The endpoint has let nothing through for 6")
    assert "answered 503 for row " in ended.reason
    assert not ended.desk.log.finals
    assert 60 < ended.seconds < 75


def test_an_outage_that_ends_costs_no_row() -> None:
    ended = run(Desk(rows=100), lambda row, now: OUTAGE if 1.5 < now < 30 else None)
    assert ended.counts == (100, 0)


def test_a_row_that_is_not_to_be_retried_has_one_more_attempt_while_others_get_through() -> None:
    ended = run(Desk(rows=100, max_attempts=6), lambda row, _: OUTAGE if row == 50 else None)
    assert ended.counts == (99, 1)
    assert ended.requests.count(50) == 2


def test_a_lost_response_has_its_attempts_whatever_is_said_about_retries() -> None:
    lost = replace(OUTAGE, billing=BillingStatus.UNKNOWN)
    ended = run(Desk(rows=30), lambda row, _: lost if row == 5 else None)
    assert ended.requests.count(5) == 3


# Reasons.


def test_the_reason_of_every_stop_names_status_address_and_row() -> None:
    for stopping in (
        failure(FailureAction.STOP_RUN, status=401),
        failure(FailureAction.SLOW_DOWN, status=401, retry_after=3_600),
    ):
        reason = run(Desk(rows=30, concurrency=1), lambda row, _, f=stopping: f if row == 7 else None).reason  # type: ignore[misc]
        assert reason is not None
        assert reason.endswith("POST model.test/v1/messages answered 401 for row 7: It failed.")
    unsent = Failure("untrusted_certificate", "Self-signed.", FailureAction.STOP_RUN, BillingStatus.NO)
    reason = run(Desk(rows=3), lambda *_: unsent).reason
    assert reason == "POST model.test/v1/messages failed for row 1: Self-signed."
