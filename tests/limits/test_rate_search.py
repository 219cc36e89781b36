"""Limits that nobody names: found from 429s, and followed when they change."""

from collections.abc import Callable

import pytest

from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.rate_search import FIRST_RATE, STEP, TICK, RateSearch, recovery
from batchrun.exchange import BillingStatus, Failure, FailureAction
from tests.limits.virtual import Server, SlidingWindow, TokenBucket, World, rate_limited, simulate

SERVERS: dict[str, Callable[[int], Server]] = {
    "sliding window": SlidingWindow,
    "bucket of a minute": lambda per_minute: TokenBucket(per_minute, per_minute),
    "bucket of 5 seconds": lambda per_minute: TokenBucket(per_minute, per_minute / 12),
}


@pytest.mark.parametrize(("per_minute", "seed"), [(600, 1), (600, 2), (600, 3), (6_000, 1)])
@pytest.mark.parametrize("server", SERVERS)
def test_an_unknown_limit_is_found(server: str, per_minute: int, seed: int) -> None:
    """At least 97 % of it is used, the first minute included, with at most 2 % of 429s."""
    log = simulate(Limiter(), SERVERS[server](per_minute), 300.0, World(seed=seed))
    assert log.used(0, 300) / 5 >= 0.97 * per_minute
    assert log.refused_share() <= 0.02


@pytest.mark.parametrize("server", SERVERS)
def test_a_low_limit_is_found(server: str) -> None:
    """One request a second: the start costs more than 2 % of the first minutes, and no more later."""
    log = simulate(Limiter(), SERVERS[server](60), 1_800.0)
    assert log.used(120, 1_800) / 28 >= 0.97 * 60
    assert log.refused_share(120) <= 0.02
    assert log.refused_share(0, 60) <= 0.2


@pytest.mark.parametrize("server", SERVERS)
def test_a_limit_is_found_without_retry_after(server: str) -> None:
    """Where 429s name no wait, the run waits by itself, longer as long as nothing comes through."""
    log = simulate(Limiter(), SERVERS[server](3_000), 600.0, World(states_wait=False))
    assert log.used(0, 600) / 10 >= 0.95 * 3_000
    assert log.refused_share() <= 0.02


@pytest.mark.parametrize("per_minute", [1_200, 6_000])
@pytest.mark.parametrize("latency", [0.05, 0.5])
def test_a_limit_that_counts_by_the_second_is_found_without_retry_after(
    per_minute: int, latency: float
) -> None:
    """The window is full until its second is over, and empty then."""
    world = World(latency=latency, states_wait=False)
    log = simulate(Limiter(), SlidingWindow(per_minute, seconds=1.0), 120.0, world)
    assert log.refused_share(0, 60) <= 0.05
    assert log.refused_share(60, 120) <= 0.01
    assert log.used(20, 120) / 100 >= 0.88 * per_minute / 60


@pytest.mark.parametrize("server", SERVERS)
def test_a_limit_that_drops_to_40_percent_and_comes_back_is_followed(server: str) -> None:
    world = World(changes=((200, 1_200), (500, 3_000)))
    log = simulate(Limiter(), SERVERS[server](3_000), 900.0, world)
    assert log.used(300, 500) / 200 >= 0.97 * 20
    assert log.used(620, 900) / 280 >= 0.97 * 50
    assert log.refused_share(200, 900) <= 0.02


def test_long_latencies_do_not_hinder_the_search() -> None:
    """Answers take 8 s, refusals a round trip."""
    log = simulate(Limiter(), SlidingWindow(600), 900.0, World(latency=8.0))
    assert log.used(0, 900) / 15 >= 0.97 * 600
    assert log.refused_share() <= 0.02


def test_a_burst_of_429s_makes_one_pause_and_one_cut() -> None:
    """Of 50 requests that were out together, the first 429 lowers the rate, the others change nothing."""
    limiter = Limiter()
    admissions = [limiter.admit(index / 100, 10) for index in range(60)]
    for admission in admissions[:10]:
        limiter.answered(admission, 0.6, 10, None)
    limiter.failed(admissions[10], 0.7, rate_limited(2.0))
    rate, until = limiter.pace.requests_per_minute, limiter.paused_until
    assert rate is not None
    assert rate < FIRST_RATE * 60
    assert until == 2.7
    for admission in admissions[11:]:
        limiter.failed(admission, 0.7, rate_limited(2.0))
    assert (limiter.pace.requests_per_minute, limiter.paused_until) == (rate, until)


def test_sending_resumes_after_a_pause_at_the_cut_rate() -> None:
    """No storm at the end of a pause: the requests that waited go one by one."""
    limiter = Limiter()
    admissions = [limiter.admit(index / 100, 10) for index in range(100)]
    for admission in admissions[:-1]:
        limiter.answered(admission, 1.0, 10, None)
    limiter.failed(admissions[-1], 1.0, rate_limited(9.0))
    assert limiter.delay(1.0, 10) == 9.0
    sent, now = 0, 10.0
    while now < 11:
        now += max(limiter.delay(now, 10), 0.001)
        limiter.answered(limiter.admit(now, 10), now, 10, None)
        sent += 1
    assert sent <= 12


def test_without_429s_the_rate_doubles_and_soon_hinders_nobody() -> None:
    """A server without limits that answers 5,000 a second reaches that within 2 seconds."""
    sent = [at for at, _ in simulate(Limiter(), SlidingWindow(10**9), 4.0, FAST).accepted]
    assert sum(2 < at <= 3 for at in sent) >= 0.95 * sum(3 < at <= 4 for at in sent)
    assert sum(at <= 0.2 for at in sent) <= 2 * FIRST_RATE * TICK


FAST = World(concurrency=64, latency=0.01, round_trip=0.002)


def test_trouble_stops_growth() -> None:
    """While 5xx and time-outs come in, neither the start nor the recovery raises the rate."""
    trouble = Failure("http_503", "overloaded", FailureAction.RETRY, BillingStatus.NO, 503)
    for cut in (False, True):
        limiter = Limiter()
        now = 0.0
        if cut:
            limiter.failed(limiter.admit(now, 10), now, rate_limited())
        before = limiter.pace.requests_per_minute
        for _ in range(100):
            now += max(limiter.delay(now, 10), 0.01)
            limiter.failed(limiter.admit(now, 10), now, trouble)
        assert limiter.pace.requests_per_minute == before


def test_growth_is_bounded_by_twice_what_is_sent() -> None:
    """A run that sends 5 a second, long after a cut, isn't let loose at any rate."""
    search = RateSearch()
    search.cut(accepted=50.0, seconds=60.0, since_cut=60.0, begins=0.0)
    for tenth in range(0, 6_000, 2):
        search.admit(tenth / 10)
    assert search.rate is not None
    assert search.rate <= 50.0


def test_a_rate_that_rises_again_does_not_wait_the_time_of_the_low_one() -> None:
    search = RateSearch()
    search.start_slowly(0.0)
    search.admit(0.0)
    assert search.delay(0.0) > 0.9
    search.restore(100.0, None, 0.1)
    assert search.delay(0.1) <= 0.01


def test_recovery_reaches_its_ceiling_at_the_plateau_and_goes_beyond() -> None:
    """Below: ceiling (1 - depth (1 - t/K)^3). Above: ceiling (1 + STEP (t/K - 1)^3)."""
    way = recovery(rate=400.0, accepted=100.0, seconds=5.0, since_cut=5.0, begins=10.0)
    assert way.rate(0.0) == way.rate(10.0) == pytest.approx(85.0)
    assert way.rate(12.5) == pytest.approx(100 * (1 - 0.15 / 8))
    assert way.rate(15.0) == pytest.approx(100.0)
    assert way.rate(20.0) == pytest.approx(100 * (1 + STEP))


def test_a_cut_is_small_when_the_rate_was_steady_and_deepens_when_it_comes_at_once_again() -> None:
    assert recovery(None, 100.0, 60.0, since_cut=60.0, begins=0.0).rate(0.0) == pytest.approx(95.0)
    again = recovery(95.0, 100.0, 60.0, since_cut=1.0, begins=0.0)
    assert again.rate(0.0) == pytest.approx(0.85 * 95)
    assert again.ceiling == 100.0


def test_a_rate_of_nothing_accepted_still_probes() -> None:
    """A first request that is refused leads to a low rate, not to none."""
    limiter = Limiter()
    limiter.failed(limiter.admit(0.0, 10), 0.1, rate_limited(1.0))
    assert 0 < limiter.delay(0.2, 10) < 15


def test_a_refusal_at_the_very_time_at_which_trouble_ends_is_counted() -> None:
    limiter = Limiter()
    for sent_at in range(3):
        first = limiter.admit(float(sent_at), 10)
    limiter.failed(first, 3.0, Failure("overloaded", "", FailureAction.RETRY, BillingStatus.NO))
    second, third = limiter.admit(20.0, 10), limiter.admit(20.1, 10)
    limiter.answered(second, 21.0, 10, None)
    limiter.failed(third, 21.0, rate_limited(2.0))
    assert 0 < limiter.delay(21.0, 10) <= 4.0
