"""Rows that always get a 429 cost their own attempts, and the others little. In virtual time."""

import random

import pytest

from batchrun.exchange import Failure, FailureAction
from tests.limits.virtual import SlidingWindow
from tests.money.dispatching import Desk
from tests.money.fanout import failure
from tests.money.test_blame import Ended, run

LATENCY, ROUND_TRIP = 0.3, 0.02


@pytest.fixture(autouse=True)
def same_waits() -> None:
    """The retries' jitter comes from Python's random numbers."""
    random.seed(1)


def refused(retry_after: float | None = None) -> Failure:
    return failure(FailureAction.SLOW_DOWN, status=429, retry_after=retry_after)


def searching(rows: int, concurrency: int = 256) -> Desk:
    """A desk that knows no limit, with the default of six attempts."""
    return Desk(
        rows=rows,
        concurrency=concurrency,
        max_attempts=6,
        requests_per_minute=None,
        max_wait_seconds=120.0,
    )


def run_with(
    *bad: int, rows: int, concurrency: int = 256, retry_after: float | None = None
) -> tuple[Ended, float]:
    """Returns the end of a run whose rows `bad` always get a 429, and when the others were answered."""
    answered = [0.0]

    def fails(row: int, now: float) -> Failure | None:
        if row in bad:
            return refused(retry_after)
        answered.append(now + LATENCY)
        return None

    return run(searching(rows, concurrency), fails, took), max(answered)


def took(failed: bool) -> float:
    return ROUND_TRIP if failed else LATENCY


@pytest.mark.parametrize("retry_after", [None, 2.0])
@pytest.mark.parametrize("concurrency", [1, 256])
@pytest.mark.parametrize(("rows", "bad"), [(2, 1), (6, 3), (6, 6), (20, 10), (60, 30), (300, 300)])
def test_a_row_that_is_always_refused_fails_a_minute_after_the_others_ended_at_the_latest(
    rows: int, bad: int, concurrency: int, retry_after: float | None
) -> None:
    """The last attempt waits for a minute, the longest window of a limit."""
    ended, answered = run_with(bad, rows=rows, concurrency=concurrency, retry_after=retry_after)
    assert ended.counts == (rows - 1, 1)
    assert ended.reason is None
    assert 60 <= ended.seconds <= answered + 85
    assert 6 <= ended.requests.count(bad) <= 35


@pytest.mark.parametrize("concurrency", [1, 8, 256])
@pytest.mark.parametrize("rows", [60, 300, 1_500])
def test_a_refused_row_amid_a_run_hardly_slows_the_others(rows: int, concurrency: int) -> None:
    _, without = run_with(rows=rows, concurrency=concurrency)
    _, answered = run_with(rows // 2, rows=rows, concurrency=concurrency)
    assert answered <= 2 * without


@pytest.mark.parametrize("concurrency", [1, 256])
@pytest.mark.parametrize("retry_after", [None, 2.0])
def test_a_run_that_begins_with_a_refused_row_gains_pace_again(
    concurrency: int, retry_after: float | None
) -> None:
    """One request at a time takes 90 s without the row."""
    _, answered = run_with(1, rows=300, concurrency=concurrency, retry_after=retry_after)
    assert answered <= (150 if concurrency == 1 else 60)


def test_several_refused_rows_at_the_end_fail_a_minute_each_after_the_others() -> None:
    ended, _ = run_with(58, 59, 60, rows=60)
    assert ended.counts == (57, 3)
    assert 3 * 60 <= ended.seconds <= 230


def test_waits_of_a_minute_that_the_server_demands_are_enough() -> None:
    """Six attempts take five minutes, and more would bring no certainty."""
    ended, _ = run_with(3, rows=6, retry_after=60.0)
    assert ended.counts == (5, 1)
    assert ended.seconds <= 8 * 60


def test_a_large_row_that_waits_for_a_window_is_answered() -> None:
    """While the window of a minute is full, small rows get through and this one does not."""
    fits_at = 50.0

    def fails(row: int, now: float) -> Failure | None:
        return refused() if row == 3 and now < fits_at else None

    assert run(searching(30), fails, took).counts == (30, 0)


def test_a_limit_of_the_whole_account_fails_no_row() -> None:
    """At 30 requests in any minute, rows are refused again and again, at the end too."""
    window = SlidingWindow(30)

    def fails(row: int, now: float) -> Failure | None:
        wait = window.arrive(now, 1)
        return None if wait is None else refused(wait)

    assert run(searching(100), fails, took).counts == (100, 0)


def test_refusals_at_random_fail_no_row() -> None:
    """Half of all requests, the last rows' too."""
    draws = random.Random(7)
    ended = run(searching(200, 16), lambda *_: refused() if draws.random() < 0.5 else None, took)
    assert ended.counts == (200, 0)


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("concurrency", [1, 8, 256])
@pytest.mark.parametrize("bad", [2, 7, 50])
def test_a_row_that_is_refused_early_hardly_slows_the_others(
    bad: int, concurrency: int, retry_after: float | None
) -> None:
    """Its second 429, after which others got through, shows that the first one told nothing of the pace."""
    _, without = run_with(rows=300, concurrency=concurrency)
    _, answered = run_with(bad, rows=300, concurrency=concurrency, retry_after=retry_after)
    assert answered <= 1.1 * without + 3.5
