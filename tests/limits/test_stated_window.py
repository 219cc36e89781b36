"""A limit that headers state without its window: a minute, unless responses contradict that plainly."""

import math
from collections.abc import Callable

import pytest

from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.stated_window import StatedWindow
from batchrun.exchange import RateLimits
from benchmarks.limit_servers import Bucket, Window
from benchmarks.limit_simulation import Case, Simulation

Seen = tuple[float, int, float]
"""When a response came, and what it said is left of ten requests, and the reset in seconds."""


def window(*responses: Seen) -> StatedWindow:
    """Before each response but the first, one request was sent."""
    found = StatedWindow()
    found.sent = 9
    for at, left, reset in responses:
        found.sent += 1
        found.see(RateLimits(10, left, reset), at)
    return found


@pytest.mark.parametrize(
    ("responses", "seconds"),
    [
        ([(0.2, 0, 1.0), (1.3, 9, 1.0)], 1.0),
        ([(0.2, 0, 0.4), (1.3, 9, 0.9)], 1.0),
        ([(0.2, 0, 10.0), (10.3, 9, 10.0)], 10.0),
        ([(0.2, 0, 2.5), (2.8, 9, 9.9)], 10.0),
        ([(0.2, 0, 1.0), (1.3, 9, 1.0), (2.0, 5, 7.2)], 8.0),
        ([(0.2, 0, 1.0), (1.3, 9, 1.0), (2.0, 5, 70.0)], 60.0),
    ],
    ids=["a second", "part of a second", "ten seconds", "the longer reset", "longer", "more than a minute"],
)
def test_a_window_that_is_plainly_shorter_is_as_long_as_its_longest_reset(
    responses: list[Seen], seconds: float
) -> None:
    assert window(*responses).seconds == seconds


@pytest.mark.parametrize(
    "responses",
    [
        [(0.2, 0, 1.0)],
        [(0.2, 0, 1.0), (1.3, 9, 59.9)],
        [(0.2, 0, 1.0), (1.3, 0, 6.0)],
        [(0.2, 0, 1.0), (1.3, 7, 1.0)],
        [(0.2, 0, 58.0), (58.3, 9, 6.0)],
        [(0.2, 0, 1.0), (40.0, 9, 6.0)],
        [(0.2, 9, 0.6), (0.9, 9, 6.0)],
        [(0.2, 0, 0.0), (0.4, 9, 0.0)],
    ],
    ids=[
        "one response",
        "a fixed minute's last second",
        "the time until one is free",
        "others use the key",
        "a bucket",
        "a bucket, much later",
        "a fraction of a request",
        "a clock that is behind",
    ],
)
def test_otherwise_it_is_a_minute(responses: list[Seen]) -> None:
    assert window(*responses).seconds == 60.0


def test_another_limit_is_per_minute_again() -> None:
    found = window((0.2, 0, 1.0), (1.3, 9, 1.0))
    found.see(RateLimits(20, 19, 1.0), 1.4)
    assert found.seconds == 60.0


def test_after_the_reset_one_request_goes_ahead_of_our_own_count_of_the_minute() -> None:
    found = window((0.2, 0, 1.0))
    assert found.probe_in(0.2, 59.8) == pytest.approx(1.0)
    found.sent += 1
    assert found.probe_in(1.3, 58.7) == 58.7, "one is enough"


def test_it_does_not_where_the_reset_is_about_what_a_minute_takes_or_has_turned_out_to_be_wrong() -> None:
    assert window((0.2, 9, 6.0)).probe_in(0.2, 6.0) == 6.0
    assert window((0.2, 0, 1.0), (1.3, 0, 1.0)).probe_in(1.3, 58.0) == 58.0


# Whole runs before a server that states the limit of its window.


class PerWindow(Window):
    def limits(self, now: float) -> RateLimits:
        left, reset = self.left(now)
        return RateLimits(int(self.rate(now) * self._seconds), left, math.ceil(reset))


class PerBucket(Bucket):
    def limits(self, now: float) -> RateLimits:
        left, reset = self.left(now)
        return RateLimits(int(self.rate(now) * self._burst), left, math.ceil(reset))


@pytest.mark.parametrize(
    ("make", "rate"),
    [
        (lambda: PerWindow(10.0, 1.0, fixed=True), 10.0),
        (lambda: PerWindow(100.0, 1.0, fixed=True), 100.0),
        (lambda: PerWindow(10.0, 10.0), 10.0),
        (lambda: PerBucket(1.0, 10.0), 1.0),
        (lambda: PerWindow(1.0, 60.0), 1.0),
        (lambda: PerWindow(1.0, 60.0, fixed=True), 1.0),
        (lambda: PerBucket(1.0, 60.0), 1.0),
    ],
    ids=["10/s", "100/s", "100 in 10 s", "bucket of 10", "60/min", "60/min fixed", "60/min bucket"],
)
def test_limits_of_any_window_are_used_and_kept(make: Callable[[], Window | Bucket], rate: float) -> None:
    seconds = 240.0 if rate <= 10 else 60.0
    run = Simulation(Case("", lambda _: make(), seconds), in_flight=64, latency=0.2, seed=1)
    result = run.run()
    assert result.per_second >= 0.9 * rate
    # A minute's limit of 60 is known only when the first responses come.
    assert result.refused <= 0.02


def test_a_limit_that_the_job_gives_is_kept_whatever_the_headers_say() -> None:
    limiter = Limiter(5)
    for number in range(5):
        now = 12.05 * number
        assert limiter.delay(now, 10) <= 0
        limiter.answered(limiter.admit(now, 10), now + 0.1, 10, RateLimits(10, 9 - number, 1.0))
    assert limiter.delay(48.4, 10) == pytest.approx(60.1 - 48.4, abs=1.0)
