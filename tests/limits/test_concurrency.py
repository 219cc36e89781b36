"""A server's bound on concurrent requests, found from its refusals alone. In virtual time."""

from collections.abc import Callable, Iterator

import pytest

from batchrun.engine.limits.concurrency import AGAINST, ConcurrencySearch, best_threshold
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.send_order import Sent
from benchmarks.limit_servers import Bucket, Random, Server, Slots, Window
from benchmarks.limit_simulation import Case, Result, Simulation
from tests.limits.virtual import rate_limited


def simulation(make: Callable[[int], Server], seconds: float, in_flight: int = 64) -> Simulation:
    return Simulation(Case("", make, seconds), in_flight, latency=0.2, seed=5)


def result(make: Callable[[int], Server], seconds: float, in_flight: int = 64) -> Result:
    return simulation(make, seconds, in_flight).run()


@pytest.mark.parametrize(
    ("slots", "waits", "goodput"),
    [(3, True, 0.6), (3, False, 0.87), (8, True, 0.7), (8, False, 0.87), (100, False, 0.87)],
)
def test_as_many_are_in_flight_as_the_server_holds(slots: int, waits: bool, goodput: float) -> None:
    """90 % are to be had: a slot is empty for the round trip between two requests, a tenth of the time here.

    With `Retry-After` the bound is found late, as the rate is cut first. `flight` is that of the second half.
    """
    made = result(lambda _: Slots(slots, waits=waits), 60.0, in_flight=200)
    assert made.goodput >= goodput
    assert made.refused <= 0.05
    assert 0.8 * slots <= made.flight <= slots


def test_a_bound_that_grows_and_falls_is_followed() -> None:
    made = simulation(lambda _: Slots(8), 180.0)
    server = made.server
    assert isinstance(server, Slots)
    found: list[int | None] = []

    def change(at: Simulation, now: float) -> None:
        server.slots = 8 if now < 60 or now > 120 else 24
        if len(found) < now // 58:
            found.append(at.limiter.pace.in_flight)

    made.trace = change
    made.run()
    assert found[0] == 8
    assert found[1] is not None
    assert 20 <= found[1] <= 27
    assert found[2] is not None
    assert 7 <= found[2] <= 10


@pytest.mark.parametrize(
    "make",
    [
        lambda _: Bucket(10.0, 1.0),
        lambda _: Window(10.0, 1.0),
        lambda _: Window(10.0),
        lambda seed: Random(0.2, 1.0, Server(), seed),
    ],
    ids=["bucket", "window of a second", "window of a minute", "random"],
)
def test_other_refusals_are_not_taken_for_a_bound(make: Callable[[int], Server]) -> None:
    """Those that look like one at first cost a few refusals more."""
    made = simulation(make, 100.0)
    made.run()
    assert made.limiter.pace.in_flight is None


# What is made of requests in the order of sending.


def requests(pattern: str, others: int) -> Iterator[Sent]:
    """Requests sent with `others` in flight, 0.1 s apart: `x` was refused at once."""
    for number, letter in enumerate(pattern):
        at = number / 10
        yield Sent(at, 0, below=False, refused=letter == "x", back=at + 0.01, others=others)


def settled(search: ConcurrencySearch, pattern: str, others: int) -> list[str | None]:
    return [search.settled(sent) for sent in requests(pattern, others)]


def test_a_threshold_is_where_most_are_refused_and_hardly_any_below() -> None:
    assert best_threshold({8: 3}, dict.fromkeys(range(8), 5))[0] == 8
    assert best_threshold({8: 3, 9: 2}, {5: 20, 8: 1})[0] == 8
    assert best_threshold({}, {3: 10}) == (0, 0.0)


def test_refusals_at_any_number_in_flight_have_no_threshold() -> None:
    _, ratio = best_threshold(dict.fromkeys(range(10), 2), dict.fromkeys(range(10), 8))
    assert ratio < 1


def test_two_refusals_at_the_same_number_are_enough_for_a_try_after_many_below() -> None:
    search = ConcurrencySearch()
    assert settled(search, "." * 50, 4) == [None] * 50
    assert "found" in settled(search, "xx", 8)
    assert search.most == 8


def test_a_bound_is_dropped_when_requests_below_it_are_refused() -> None:
    search = ConcurrencySearch()
    settled(search, "." * 50, 4)
    settled(search, "xx", 8)
    assert settled(search, "x" * int(AGAINST), 5)[-1] == "dropped"
    assert search.most is None


def test_a_stray_refusal_below_a_bound_is_no_evidence_against_it() -> None:
    search = ConcurrencySearch()
    settled(search, "." * 50, 4)
    settled(search, "xx", 8)
    assert "dropped" not in settled(search, "x......." * 20, 5)


def test_one_more_is_tried_and_the_bound_grows_once_enough_were_taken() -> None:
    search = ConcurrencySearch()
    settled(search, "." * 50, 4)
    settled(search, "xx", 8)
    settled(search, "." * 40, 7)
    assert search.most == 9
    settled(search, "." * 10, 8)
    assert search.most == 11, "9 are in use, and the next try is larger"


def test_a_try_that_is_refused_ends_at_once() -> None:
    search = ConcurrencySearch()
    settled(search, "." * 50, 4)
    settled(search, "xx", 8)
    settled(search, "." * 40, 7)
    settled(search, "x", 8)
    assert search.most == 8


def test_a_bound_of_one_never_falls_to_none() -> None:
    """With none in flight, no end would ever come that raises the bound: the run would wait for ever."""
    search = ConcurrencySearch()
    settled(search, "." * 50, 0)
    settled(search, "xxxx", 1)
    assert search.most == 1
    assert not search.lower(10.0)
    assert search.most == 1
    assert search.delay == 0.0


def test_no_request_goes_while_as_many_are_in_flight_as_the_server_holds() -> None:
    """Eight are taken together, and the next four are refused: then eight may be out at a time."""
    limiter = Limiter()
    for index in range(40):
        limiter.answered(limiter.admit(index / 100, 10), index / 100 + 0.005, 10, None)
    out = [limiter.admit(0.4 + index / 100, 10) for index in range(12)]
    for admission in out[8:]:
        limiter.failed(admission, admission.sent_at + 0.02, rate_limited())
    assert limiter.delay(0.6, 10) == float("inf")
    assert limiter.pace.in_flight == 8
    limiter.answered(out[0], 0.7, 10, None)
    assert limiter.delay(0.7, 10) <= 0
