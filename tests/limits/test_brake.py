"""The outage brake: how many requests go out while an endpoint fails."""

import heapq
from itertools import count

import pytest

from batchrun.exchange import Billed, Failure, Remedy
from batchrun.limits.brake import FAILURES_OF_AN_OUTAGE, LONGEST_GAP, Brake
from tests.limits.virtual import rate_limited

OVERLOADED = Failure("http_529", "overloaded", Remedy.RETRY, Billed.NO, 529)
UNSENT = Failure("connection_refused", "nobody listens", Remedy.RETRY, Billed.NO)
TIMED_OUT = Failure("timeout", "no answer", Remedy.RETRY, Billed.UNKNOWN)
INVALID = Failure("invalid_parameter", "no such model", Remedy.FAIL_ROW, Billed.NO, 400)


def fail(brake: Brake, now: float, *, failed_before: bool = False) -> None:
    brake.sent(now)
    brake.failed(now, now, OVERLOADED, failed_before=failed_before)


def brought_down(now: float = 0.0) -> Brake:
    brake = Brake()
    for index in range(FAILURES_OF_AN_OUTAGE):
        fail(brake, now + index / 1_000)
    return brake


def requests_sent(
    seconds: float, fails_at: tuple[float, float], failing: int, in_flight: int = 16
) -> list[float]:
    """When requests go out that take 0.1 s, of which `failing` of 100 fail between two instants."""
    brake, numbers, now = Brake(), count(), 0.0
    ends: list[tuple[float, float]] = []
    sent = []
    while now < seconds:
        while len(ends) < in_flight and brake.delay(now) <= 0:
            brake.sent(now)
            sent.append(now)
            heapq.heappush(ends, (now + 0.1, now))
            now += 1e-6
        wake = now + brake.delay(now) if len(ends) < in_flight else float("inf")
        now = min(wake, ends[0][0] if ends else float("inf"))
        while ends and ends[0][0] <= now:
            _, sent_at = heapq.heappop(ends)
            if fails_at[0] <= sent_at < fails_at[1] and next(numbers) * 37 % 100 < failing:
                brake.failed(now, sent_at, OVERLOADED, failed_before=False)
            else:
                brake.succeeded(sent_at)
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
    brake = brought_down()
    gaps, now = [], 1.0
    for _ in range(6):
        gap = brake.delay(now)
        now += gap
        brake.sent(now)
        assert brake.delay(now + 1_000) == float("inf"), "while a probe is out, nothing else goes"
        brake.failed(now, now, OVERLOADED, failed_before=True)
        gaps.append(brake.delay(now))
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0, 4.0])


def test_a_probe_that_succeeds_ends_the_outage() -> None:
    brake = brought_down()
    brake.sent(5.0)
    brake.succeeded(5.0)
    assert not brake.is_down
    assert brake.outage(6.0) == 0
    assert brake.delay(10.0) <= 0


def test_a_429_for_a_probe_lets_the_next_one_go() -> None:
    brake = brought_down()
    brake.sent(5.0)
    brake.failed(5.0, 5.0, rate_limited(), failed_before=False)
    assert brake.is_down
    assert brake.delay(5.0) <= 0


def test_what_was_out_before_the_outage_is_no_probe() -> None:
    """Its late failure neither frees the probe's place nor makes the gap longer."""
    brake = Brake()
    brake.sent(-1.0)
    for index in range(FAILURES_OF_AN_OUTAGE):
        fail(brake, index / 1_000)
    brake.sent(1.0)
    brake.failed(1.5, -1.0, OVERLOADED, failed_before=False)
    assert brake.delay(2.0) == float("inf")
    brake.failed(2.0, 1.0, OVERLOADED, failed_before=False)
    assert brake.delay(2.0) == pytest.approx(1.0)


def test_rows_that_fail_again_and_again_are_no_outage() -> None:
    """The last rows of a run may be bad ones: their attempts must be used up, so that the run ends."""
    brake = Brake()
    for attempt in range(100):
        fail(brake, attempt * 10.0, failed_before=attempt >= FAILURES_OF_AN_OUTAGE - 1)
    assert not brake.is_down
    assert brake.delay(1_010.0) <= 0


def test_an_outage_is_as_long_as_its_failures() -> None:
    brake = brought_down(now=100.0)
    assert brake.outage(130.0) == pytest.approx(30.0)
    assert Brake().outage(130.0) == 0


def test_requests_that_can_not_be_sent_are_an_outage_whatever_rows_they_are_of() -> None:
    brake = Brake()
    for attempt in range(FAILURES_OF_AN_OUTAGE):
        assert not brake.failed(attempt, attempt, UNSENT, failed_before=attempt > 0)
    assert brake.is_down


def test_which_failures_use_up_an_attempt() -> None:
    """A 429 and what wasn't sent never, what may have been billed always, the rest unless down."""
    for brake, down in ((Brake(), False), (brought_down(), True)):
        uses = {
            failure.code: brake.failed(50.0, 40.0, failure, failed_before=True)
            for failure in (rate_limited(), UNSENT, TIMED_OUT, OVERLOADED)
        }
        assert uses == {
            "rate_limit_error": False,
            "connection_refused": False,
            "timeout": True,
            "http_529": not down,
        }


def test_an_endpoint_that_refuses_a_row_for_its_content_is_not_down() -> None:
    brake = brought_down()
    assert brake.failed(50.0, 40.0, INVALID, failed_before=False)
    assert not brake.is_down
