"""Refusals that have nothing to do with the pace, told from those of a limit. In virtual time."""

from collections.abc import Callable

import pytest

from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.refusals import LEAST_SENT, SHORTEST_RUN, Event, RefusalJudge
from batchrun.engine.limits.send_order import MOST_PATIENCE, SendOrder, Sent
from benchmarks.limit_servers import Bucket, Outage, Random, Server, Window
from benchmarks.limit_simulation import Case, Result, Simulation
from tests.limits.virtual import rate_limited


def result(make: Callable[[int], Server], seconds: float, seed: int = 11, given: int | None = None) -> Result:
    return Simulation(Case("", make, seconds, given), in_flight=32, latency=0.2, seed=seed).run()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("wait", [None, 1.0])
def test_random_refusals_cost_their_own_share(share: float, wait: float | None) -> None:
    """145 a second are to be had; cut at each refusal, the run would make some 10 a second, or fewer."""
    made = result(lambda seed: Random(share, wait, Server(), seed), 60.0)
    assert made.goodput >= 0.75
    assert made.refused <= share + 0.02
    assert made.stall <= 2.0


def test_a_refusal_in_a_hundred_that_names_a_long_wait_holds_its_own_row_alone() -> None:
    made = result(lambda seed: Random(0.01, 30.0, Server(), seed), 200.0)
    assert made.goodput >= 0.75
    assert made.stall <= 31.0


def test_half_of_all_refused_is_lived_with() -> None:
    made = result(lambda seed: Random(0.5, None, Server(), seed), 60.0)
    assert made.goodput >= 0.4
    assert made.refused <= 0.6


def test_a_given_limit_is_used_beside_random_refusals() -> None:
    made = result(lambda seed: Random(0.05, 1.0, Server(), seed), 100.0, given=3_000)
    assert made.goodput >= 0.8


@pytest.mark.parametrize(
    ("share", "rows", "in_flight", "possible"), [(0.2, 500, 64, 10.0), (0.01, 3_000, 100, 4.4)]
)
def test_a_run_with_random_refusals_takes_twice_its_time_at_most(
    share: float, rows: int, in_flight: int, possible: float
) -> None:
    """From its first request to its last row. One in ten begins with refusals that look like a limit."""
    took = []
    for seed in range(10):
        case = Case("", lambda seed: Random(share, 1.0, Server(), seed), 200.0, rows=rows)
        took.append(Simulation(case, in_flight, 0.1, seed).run().took)
    assert sorted(took)[-2] <= 2 * possible


@pytest.mark.parametrize(
    "limit", [lambda: Window(20.0), lambda: Bucket(20.0, 10.0)], ids=["sliding window", "bucket"]
)
def test_a_limit_is_found_among_random_refusals(limit: Callable[[], Server]) -> None:
    made = result(lambda seed: Random(0.1, 1.0, limit(), seed), 300.0)
    assert made.goodput >= 0.8
    assert made.refused <= 0.2


def test_a_bucket_is_not_taken_for_noise() -> None:
    """At its edge it refuses in between what it accepts: a trial at less shows that they stop."""
    made = result(lambda _: Bucket(40.0, 5.0), 200.0)
    assert made.goodput >= 0.95
    assert made.refused <= 0.03


def test_an_outage_is_no_time_to_test_noise_again() -> None:
    """A trial at what got through in the outage would go on at one request in four seconds after it."""
    made = result(lambda seed: Outage(Random(0.2, 1.0, Window(10.0), seed), 20.0, 60.0), 140.0)
    assert made.goodput >= 0.9
    assert made.refused <= 0.3


# What the judge makes of requests in the order of sending.


def sent(judge: RefusalJudge, pattern: str, start: float = 0.0, epoch: int = 1) -> list[Event | None]:
    """Requests 0.1 s apart: `x` was refused, anything else was taken."""
    return [
        judge.settled(Sent(start + number / 10, epoch, below=True, refused=letter == "x"))
        for number, letter in enumerate(pattern)
    ]


def test_a_run_of_refusals_is_a_full_window() -> None:
    judge = RefusalJudge()
    assert sent(judge, "." * 200 + "x" * SHORTEST_RUN)[-1] == "run"


def test_a_run_must_be_longer_the_more_is_refused_anyway() -> None:
    judge = RefusalJudge()
    assert "run" not in sent(judge, "x." * 50 + "xxxxxx")
    assert "run" in sent(judge, "x" * 30)


def test_an_excess_is_followed_by_a_trial_whose_refusals_say_what_is_behind_it() -> None:
    for pattern, verdict in (("." * 80, "limit"), ("x..." * 20, "noise")):
        judge = RefusalJudge()
        assert sent(judge, "x..." * 5).count("excess") >= 1
        judge.begin_trial(2.0, epoch=2)
        found = sent(judge, pattern, 2.0, epoch=2)
        if verdict == "noise":
            assert "excess" in found, "a share that is new is tried twice"
            judge.begin_trial(12.0, epoch=3)
            found = sent(judge, pattern, 12.0, epoch=3)
        assert next(event for event in found if event) == verdict
        assert (judge.noise > 0.1) is (verdict == "noise")


def test_noise_is_not_called_on_fewer_requests_than_tell() -> None:
    judge = RefusalJudge()
    sent(judge, "x..." * 5)
    judge.begin_trial(2.0, epoch=2)
    assert not any(sent(judge, "x.x.x.x.x."[: LEAST_SENT - 2], 2.0, epoch=2))


def test_noise_falls_when_clearly_less_is_refused_and_not_by_chance() -> None:
    judge = RefusalJudge()
    sent(judge, "x..." * 5)
    for epoch in (2, 3):
        judge.begin_trial(2.0, epoch)
        sent(judge, "x..." * 20, 2.0, epoch)
    known = judge.noise
    sent(judge, "." * 8 + "x...x..." * 10)
    assert judge.noise == known > 0.2
    sent(judge, "." * 200)
    assert judge.noise < 0.8 * known


# The order of sending.


def test_a_request_that_is_out_for_longer_than_refusals_take_counts_as_taken() -> None:
    order = SendOrder()
    first, second = Sent(0.0, 0, below=False), Sent(0.05, 0, below=False)
    order.add(first)
    order.add(second)
    order.refused(second, 0.12, wait=1.0)
    assert not list(order.settled(0.12)), "the first may yet be refused"
    assert [each.refused for each in order.settled(0.3)] == [False, True]


def test_without_refusals_little_is_remembered() -> None:
    order = SendOrder()
    for number in range(1_000):
        order.add(Sent(float(number), 0, below=False))
        list(order.settled(float(number)))
    assert len(order._open) <= MOST_PATIENCE + 1  # its memory, which nothing else shows


def test_a_pause_ends_when_a_later_request_gets_through() -> None:
    """One of many is refused and told to wait for 30 s; the others show that nobody else has to."""
    limiter = Limiter()
    out = [limiter.admit(index / 100, 10) for index in range(40)]
    limiter.failed(out[20], 0.4, rate_limited(30.0))
    assert limiter.delay(0.4, 10) > 29
    for admission in [*out[:20], *out[21:]]:
        limiter.answered(admission, 0.5, 10, None)
    assert limiter.delay(0.5, 10) < 0.1
