"""The outage brake: how many requests go out while an endpoint fails."""

import heapq
from itertools import count

import pytest

from batchrun.engine.limits.circuit_breaker import FAILURES_OF_AN_OUTAGE, FEW, LONGEST_GAP, CircuitBreaker
from batchrun.exchange import BillingStatus, Failure, FailureAction
from tests.limits.virtual import rate_limited

OVERLOADED = Failure("http_529", "overloaded", FailureAction.RETRY, BillingStatus.NO, 529)
UNSENT = Failure("connection_refused", "nobody listens", FailureAction.RETRY, BillingStatus.NO)
TIMED_OUT = Failure("timeout", "no answer", FailureAction.RETRY, BillingStatus.UNKNOWN)
INVALID = Failure("invalid_parameter", "no such model", FailureAction.FAIL_ROW, BillingStatus.NO, 400)


PATIENCE = 900.0


def fail(
    breaker: CircuitBreaker,
    now: float,
    failure: Failure = OVERLOADED,
    *,
    first_failed: float | None = None,
    is_last: bool = False,
    at_the_end: bool = False,
) -> bool:
    """A request goes and fails at once; whether that uses up an attempt of its row."""
    breaker.sent(now)
    return breaker.failed(
        now, now, failure, first_failed=first_failed, is_last=is_last, at_the_end=at_the_end
    )


def answer(breaker: CircuitBreaker, now: float) -> None:
    breaker.sent(now)
    breaker.succeeded(now)


def brought_down(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(PATIENCE)
    for index in range(FAILURES_OF_AN_OUTAGE):
        fail(breaker, now + index / 1_000)
    return breaker


def requests_sent(
    seconds: float, fails_at: tuple[float, float], failing: int, in_flight: int = 16
) -> list[float]:
    """When requests go out that take 0.1 s, of which `failing` of 100 fail between two instants."""
    breaker, numbers, now = CircuitBreaker(PATIENCE), count(), 0.0
    ends: list[tuple[float, float]] = []
    sent = []
    while now < seconds:
        while len(ends) < in_flight and breaker.delay(now) <= 0:
            breaker.sent(now)
            sent.append(now)
            heapq.heappush(ends, (now + 0.1, now))
            now += 1e-6
        wake = now + breaker.delay(now) if len(ends) < in_flight else float("inf")
        now = min(wake, ends[0][0] if ends else float("inf"))
        while ends and ends[0][0] <= now:
            _, sent_at = heapq.heappop(ends)
            if fails_at[0] <= sent_at < fails_at[1] and next(numbers) * 37 % 100 < failing:
                breaker.failed(now, sent_at, OVERLOADED, first_failed=None, is_last=False, at_the_end=False)
            else:
                breaker.succeeded(sent_at)
    return sent


def between(sent: list[float], begin: float, end: float) -> int:
    return sum(begin <= at < end for at in sent)


def test_without_failures_nothing_is_held_back() -> None:
    sent = requests_sent(10.0, (0, 0), failing=0)
    assert len(sent) == pytest.approx(16 * 100, rel=0.02)


def test_a_fifth_of_failures_is_no_reason_to_brake() -> None:
    """K = 2: throttling begins when fewer than half of the requests succeed."""
    assert between(requests_sent(10.0, (0, 10), failing=20), 0, 10) >= 0.95 * 1_600


def test_the_more_attempts_fail_the_fewer_go_out() -> None:
    sent = [between(requests_sent(20.0, (0, 20), failing), 5, 20) for failing in (0, 60, 75, 90, 100)]
    assert sent == sorted(sent, reverse=True)
    assert sent[1] < 0.8 * sent[0]
    assert sent[4] < 10


def test_an_outage_of_20_seconds_meets_a_few_probes() -> None:
    """Half a second after the endpoint is back, at the next probe, sending begins again."""
    sent = requests_sent(40.0, (5, 25), failing=100)
    assert between(sent, 5, 25) < 50
    assert between(sent, 7, 25) < 10
    assert between(sent, 25 + LONGEST_GAP + 4, 40) > 100 * (11 - LONGEST_GAP)


def test_one_probe_at_a_time_goes_out_with_growing_gaps() -> None:
    breaker = brought_down()
    gaps, now = [], 1.0
    for _ in range(6):
        gap = breaker.delay(now)
        now += gap
        breaker.sent(now)
        assert breaker.delay(now + 1_000) == float("inf"), "while a probe is out, nothing else goes"
        breaker.failed(now, now, OVERLOADED, first_failed=0.0, is_last=False, at_the_end=False)
        gaps.append(breaker.delay(now))
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0, 4.0])


def test_a_probe_that_succeeds_ends_the_outage() -> None:
    breaker = brought_down()
    breaker.sent(5.0)
    breaker.succeeded(5.0)
    assert not breaker.is_down
    assert breaker.outage(6.0) == 0
    assert breaker.delay(10.0) <= 0


def test_a_429_for_a_probe_lets_the_next_one_go() -> None:
    breaker = brought_down()
    fail(breaker, 5.0, rate_limited())
    assert breaker.is_down
    assert breaker.delay(5.0) <= 0


def test_what_was_out_before_the_outage_is_no_probe() -> None:
    """Its late failure neither frees the probe's place nor makes the gap longer."""
    breaker = CircuitBreaker(PATIENCE)
    breaker.sent(-1.0)
    for index in range(FAILURES_OF_AN_OUTAGE):
        fail(breaker, index / 1_000)
    breaker.sent(1.0)
    breaker.failed(1.5, -1.0, OVERLOADED, first_failed=None, is_last=False, at_the_end=False)
    assert breaker.delay(2.0) == float("inf")
    breaker.failed(2.0, 1.0, OVERLOADED, first_failed=None, is_last=False, at_the_end=False)
    assert breaker.delay(2.0) == pytest.approx(1.0)


def test_a_row_is_to_blame_when_a_later_request_gets_through() -> None:
    """Each of its failures uses up an attempt, the last one too, and none of them is a sign of an outage."""
    breaker = CircuitBreaker(PATIENCE)
    assert fail(breaker, 0.0)
    answer(breaker, 1.0)
    for attempt in range(100):
        assert fail(breaker, 2.0 + attempt, first_failed=0.0, is_last=True)
    assert not breaker.is_down


def test_an_answer_to_an_earlier_request_says_nothing_about_a_row() -> None:
    """The endpoint may have gone down in between: the answer was on its way before the row was sent."""
    breaker = CircuitBreaker(PATIENCE)
    breaker.sent(0.0)
    fail(breaker, 1.0)
    breaker.succeeded(0.0)
    assert not fail(breaker, 2.0, first_failed=1.0, is_last=True)


def test_few_rows_in_an_outage_keep_their_last_attempt() -> None:
    """Three rows are all there is, and everything fails: whether they or the endpoint, nothing tells."""
    breaker = CircuitBreaker(PATIENCE)
    used = [1 + fail(breaker, row / 10) for row in range(3)]
    for attempt in range(1, 50):
        for row in range(3):
            used[row] += fail(
                breaker, attempt * 4.0 + row, first_failed=row / 10, is_last=used[row] == 5, at_the_end=True
            )
    assert max(used) <= 5
    assert breaker.is_down
    assert breaker.outage(300.0) == pytest.approx(300.0)


def test_a_policy_of_one_attempt_allows_no_second_one() -> None:
    """A first failure is the row's until an outage is known."""
    assert fail(CircuitBreaker(PATIENCE), 0.0, is_last=True)
    assert not fail(brought_down(), 1.0, is_last=True)


@pytest.mark.parametrize(("answered", "rows"), [(1, 1), (20, 2), (200, 10), (1_000, FEW)])
def test_the_last_rows_are_to_blame_when_they_are_few_and_fail_for_long(answered: int, rows: int) -> None:
    """A tenth of the patience for each row: until then nothing is used up, afterwards every failure is."""
    breaker = CircuitBreaker(PATIENCE)
    for index in range(answered):
        answer(breaker, index / 1_000)
    doubt = PATIENCE * min(1.0, rows / FAILURES_OF_AN_OUTAGE)
    for row in range(rows):
        fail(breaker, 10.0 + row / 1_000, at_the_end=True)
    for attempt in range(1, 40):
        assert not fail(
            breaker, 10.0 + attempt * doubt / 41, first_failed=10.0, is_last=True, at_the_end=True
        )
    assert breaker.outage(10.0 + doubt) == 0, "the run doesn't end on their account"
    assert fail(breaker, 10.0 + doubt, first_failed=10.0, is_last=True, at_the_end=True)
    assert not breaker.is_down


@pytest.mark.parametrize(("answered", "rows"), [(0, 1), (0, 10), (1, 2), (20, 3), (100_000, FEW + 1)])
def test_more_rows_than_few_at_the_end_are_an_outage(answered: int, rows: int) -> None:
    """Whoever waits for them gets them back as pending, not as failed."""
    breaker = CircuitBreaker(PATIENCE)
    for index in range(answered):
        answer(breaker, index / 100_000)
    for row in range(rows):
        fail(breaker, 10.0 + row / 1_000, at_the_end=True)
    for attempt in range(1, 20):
        now = 10.0 + 100.0 * attempt
        assert not fail(breaker, now, first_failed=10.0, is_last=True, at_the_end=True)
    assert breaker.outage(2_000.0) == pytest.approx(1_990.0)


def test_rows_in_the_middle_of_a_run_are_never_few() -> None:
    """Others are left to ask, and they will tell."""
    breaker = CircuitBreaker(PATIENCE)
    for index in range(1_000):
        answer(breaker, index / 1_000)
    fail(breaker, 10.0)
    for attempt in range(1, 40):
        assert not fail(breaker, 10.0 + 100 * attempt, first_failed=10.0, is_last=True)
    assert breaker.outage(3_000.0) > PATIENCE


def test_an_outage_is_as_long_as_its_failures() -> None:
    breaker = brought_down(now=100.0)
    assert breaker.outage(130.0) == pytest.approx(30.0)
    assert CircuitBreaker(PATIENCE).outage(130.0) == 0


def test_requests_that_can_not_be_sent_are_an_outage_whatever_rows_they_are_of() -> None:
    """At the end of a run too: the rows are never to blame for that."""
    breaker = CircuitBreaker(PATIENCE)
    answer(breaker, 0.0)
    for attempt in range(FAILURES_OF_AN_OUTAGE):
        assert not fail(
            breaker, 1.0 + attempt, UNSENT, first_failed=1.0 if attempt else None, at_the_end=True
        )
    assert breaker.is_down
    assert breaker.outage(1_001.0) == pytest.approx(1_000.0)


def test_which_failures_use_up_an_attempt() -> None:
    """A 429 and what wasn't sent never, what may have been billed always, the rest unless down."""
    for breaker, down in ((CircuitBreaker(PATIENCE), False), (brought_down(), True)):
        uses = {
            failure.code: fail(breaker, 50.0, failure)
            for failure in (rate_limited(), UNSENT, TIMED_OUT, OVERLOADED)
        }
        assert uses == {
            "rate_limit_error": False,
            "connection_refused": False,
            "timeout": True,
            "http_529": not down,
        }


def test_an_endpoint_that_refuses_a_row_for_its_content_is_not_down() -> None:
    breaker = brought_down()
    assert fail(breaker, 50.0, INVALID)
    assert not breaker.is_down
