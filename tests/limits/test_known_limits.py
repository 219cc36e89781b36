"""Limits that are given, or that headers state: never passed, and used to the full."""

import pytest

from batchrun.engine.limits.limiter import Limiter
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits
from tests.limits.virtual import Log, SlidingWindow, TokenBucket, World, rate_limited, simulate

NO_LIMIT = 10**9


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 6_000, 30_000])
def test_given_requests_are_never_passed_and_used_to_99_percent(per_minute: int) -> None:
    """No 60 seconds hold more than the limit; from the second minute on, 99 % of it is used."""
    minutes = 60 if per_minute < 100 else 3 if per_minute < 30_000 else 2
    log = simulate(Limiter(per_minute), SlidingWindow(per_minute), 60.0 * minutes, World(concurrency=4_000))
    assert log.refused == []
    assert log.fullest_minute() <= per_minute
    used = log.used(60, 60.0 * minutes) / (minutes - 1)
    assert used >= 0.99 * per_minute - (1 if per_minute < 100 else 0)


def test_given_requests_are_spread_from_the_first_second_on() -> None:
    """A server whose bucket holds a fifth of a second refuses nothing, at the start neither."""
    log = simulate(Limiter(6_000), TokenBucket(6_000, burst=20), 120.0)
    assert log.refused == []
    assert log.used(0, 10) >= 0.99 * 1_000


@pytest.mark.parametrize(
    ("per_minute", "tokens", "spare", "latency", "share"),
    [
        (60_000, (20, 60), 1_000, 0.01, 0.99),
        (60_000, (20, 60), 200, 2.0, 0.99),
        (60_000, (5, 500), 1_000, 0.01, 0.99),
        (2_000_000, (10, 500), 1_000, 2.0, 0.99),
        (2_000_000, (10, 2_000), 4_000, 2.0, 0.99),
        # Room is kept for requests that use more than expected: large ones and slow ones cost some.
        (60_000, (5, 500), 1_000, 2.0, 0.97),
        (2_000_000, (10, 2_000), 4_000, 8.0, 0.97),
    ],
)
def test_given_tokens_are_never_passed_and_used_to_the_full(
    per_minute: int, tokens: tuple[int, int], spare: int, latency: float, share: float
) -> None:
    """Sizes differ by a factor of up to 200, and worst cases are up to 25 times what is used."""
    world = World(concurrency=4_000, latency=latency, tokens=tokens, spare_tokens=spare)
    server = SlidingWindow(per_minute, counts_tokens=True)
    log = simulate(Limiter(None, per_minute), server, 240.0, world)
    assert log.refused == []
    assert log.fullest_minute(tokens=True) <= per_minute
    assert log.used_tokens(60, 240) / 3 >= share * per_minute


def test_both_limits_hold_at_once() -> None:
    """The scarcer one is used to the full, and the other is not passed."""
    server = SlidingWindow(NO_LIMIT)
    scarce_tokens = simulate(Limiter(6_000, 60_000), server, 300.0, World(tokens=(20, 60)))
    assert scarce_tokens.fullest_minute(tokens=True) <= 60_000
    assert scarce_tokens.used_tokens(60, 300) / 4 >= 0.99 * 60_000
    scarce_requests = simulate(Limiter(600, 60_000), SlidingWindow(NO_LIMIT), 300.0, World(tokens=(20, 60)))
    assert scarce_requests.fullest_minute() <= 600
    assert scarce_requests.used(60, 300) / 4 >= 0.99 * 600


def test_a_large_request_is_not_overtaken() -> None:
    """While the first in line waits for tokens, its delay shrinks to 0 whatever small ones would fit."""
    limiter = Limiter(None, 1_000)
    first = limiter.admit(0.0, 600)
    limiter.answered(first, 0.1, 600, None)
    wait = limiter.delay(40.0, 600)
    assert wait == pytest.approx(60.1 - 40, abs=0.2)
    assert limiter.delay(40.0 + wait, 600) <= 0


def test_a_request_larger_than_the_limit_goes_when_the_minute_is_empty() -> None:
    """The server has to say what it thinks of it; a run must not hang on it."""
    limiter = Limiter(None, 1_000)
    assert limiter.delay(0.0, 50_000) <= 0
    limiter.answered(limiter.admit(0.0, 100), 0.1, 100, None)
    assert 0 < limiter.delay(0.2, 50_000) < 61
    assert limiter.delay(61.0, 50_000) <= 0


def test_what_an_answer_did_not_use_is_given_back() -> None:
    """10 tokens instead of 900 make room for the next request at once, or nearly."""
    limiter = Limiter(None, 1_000)
    admission = limiter.admit(0.0, 900)
    assert limiter.delay(0.1, 900) > 50
    limiter.answered(admission, 0.1, 10, None)
    assert limiter.delay(0.1, 900) < 1


def test_an_unbilled_failure_gives_its_tokens_back_and_an_uncertain_one_does_not() -> None:
    for billed, most in ((BillingStatus.NO, 1.0), (BillingStatus.UNKNOWN, 61.0)):
        limiter = Limiter(None, 1_000)
        failure = Failure("http_503", "overloaded", FailureAction.RETRY, billed, 503)
        limiter.failed(limiter.admit(0.0, 900), 0.1, failure)
        assert most - 10 < limiter.delay(0.1, 900) < most


def test_limits_in_headers_take_the_place_of_a_search() -> None:
    """The first answer names the limit; requests that are out already count against it."""
    log = simulate(Limiter(), SlidingWindow(6_000), 300.0, World(states_limit=True))
    assert log.refused == []
    assert log.used(60, 300) / 4 >= 0.99 * 6_000


def test_limits_in_headers_are_followed_down_and_up() -> None:
    """At a drop to 40 % one burst is refused; then the new limit is used, and the old one again."""
    world = World(states_limit=True, changes=((200, 2_400), (500, 6_000)))
    log = simulate(Limiter(), SlidingWindow(6_000), 800.0, world)
    assert len(log.refused) <= 10
    assert len(log.pauses) <= 1
    assert log.used(300, 500) / 200 >= 0.99 * 40
    assert log.used(600, 800) / 200 >= 0.99 * 100


def test_headers_that_waver_do_not_loosen_the_pace() -> None:
    """Two servers behind one address may state limits that differ by a little."""
    limiter, sent = Limiter(), 0
    for millisecond in range(10_000):
        now = millisecond / 1_000
        if limiter.delay(now, 100) <= 0:
            sent += 1
            limiter.answered(limiter.admit(now, 100), now, 100, RateLimits(limit_requests=600 - sent % 2))
    assert 99 <= sent <= 102


def test_refusals_by_a_window_that_a_lower_limit_finds_too_full_cut_no_rate() -> None:
    """For 3 seconds nothing fits. The few that get through by and by don't measure what the server takes."""
    world = World(states_limit=True, latency=0.1, changes=((6, 2_400),))
    log = simulate(Limiter(5_400), SlidingWindow(6_000, seconds=5.0), 13.0, world)
    assert log.used(9, 13) / 4 >= 0.95 * 40
    assert len(log.refused) <= 20


def test_a_refusal_at_a_limit_that_was_kept_for_long_cuts_little() -> None:
    """The server counts 2 seconds and not minutes: a late wake-up is enough to pass the limit there."""
    log = simulate(Limiter(6_000), SlidingWindow(6_000, seconds=2.0), 120.0, World(latency=0.1))
    assert 0 < len(log.refused) <= 20
    assert log.used(0, 120) / 120 >= 0.86 * 100


def test_the_lower_of_a_given_and_a_stated_limit_counts() -> None:
    limiter = Limiter(600)
    assert (limiter.pace.requests_per_minute, limiter.pace.source) == (600, "given")
    limiter.answered(limiter.admit(0.0, 1), 0.1, 1, RateLimits(limit_requests=300))
    assert (limiter.pace.requests_per_minute, limiter.pace.source) == (300, "headers")
    limiter.answered(limiter.admit(1.0, 1), 1.1, 1, RateLimits(limit_requests=6_000))
    assert (limiter.pace.requests_per_minute, limiter.pace.source) == (600, "given")


def test_a_given_limit_that_is_too_high_yields_to_429s() -> None:
    """6,000 are given where the server takes 600: the search finds what it takes."""
    log = simulate(Limiter(6_000), SlidingWindow(600), 600.0)
    assert log.refused_share() <= 0.02
    assert log.used(0, 600) / 10 >= 0.95 * 600


def test_answers_that_suddenly_grow_are_counted_at_their_worst_again() -> None:
    """Estimates learned from short answers are dropped when a 429 shows that they were too low."""
    limiter = Limiter(None, 60_000)
    now = 0.0
    for _ in range(200):
        now += max(0.0, limiter.delay(now, 1_000))
        limiter.answered(limiter.admit(now, 1_000), now, 10, None)
    out = [limiter.admit(now, 1_000) for _ in range(60)]
    assert limiter.delay(now + 5, 1_000) <= 0, "60 requests out, at 10 tokens each"
    limiter.failed(out.pop(), now, rate_limited(1.0))
    assert limiter.delay(now + 5, 1_000) > 30, "59 requests out, at 1,000 tokens each"


def test_a_log_sees_the_fullest_minute() -> None:
    """The yardstick of these tests: a burst across a minute's boundary is noticed."""
    log = Log(accepted=[(59.0, 5), (61.0, 5), (118.9, 5), (119.1, 5)])
    assert log.fullest_minute() == 3
    assert log.fullest_minute(tokens=True) == 15
