"""Rate limits: exact over every window of 60 seconds, told in headers, changed while the sandbox runs."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sandbox import Settings, SettingsError
from batchrun.sandbox.limits import MINUTE, Limits, UsageWindow
from tests.sandbox.conftest import Start, body

gaps_and_tokens = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 50)), max_size=60)


@given(gaps_and_tokens, st.integers(1, 5), st.integers(50, 120))
def test_no_window_of_60_seconds_ever_holds_more_than_the_limits(
    arrivals: list[tuple[float, int]], rpm: int, tpm: int
) -> None:
    """Whatever arrives when: the grants within any 60 seconds stay within both limits."""
    window, limits, now = UsageWindow(), Limits(rpm, tpm), 0.0
    granted: list[tuple[float, int]] = []
    for gap, tokens in arrivals:
        now += gap
        if not window.wait(limits, now, tokens):
            window.grant(now, tokens)
            granted.append((now, tokens))
        recent = [each for at, each in granted if at > now - MINUTE]
        assert len(recent) <= rpm
        assert sum(recent) <= tpm


@given(gaps_and_tokens, st.integers(1, 5), st.integers(50, 120), st.integers(1, 50))
def test_who_waits_as_told_is_admitted_and_who_waits_less_is_not(
    arrivals: list[tuple[float, int]], rpm: int, tpm: int, tokens: int
) -> None:
    """The wait is the shortest one that is long enough."""
    window, limits, now = UsageWindow(), Limits(rpm, tpm), 0.0
    for gap, each in arrivals:
        now += gap
        if not window.wait(limits, now, each):
            window.grant(now, each)
    wait = window.wait(limits, now, tokens)
    assert 0 <= wait <= MINUTE
    if wait > 0.002:
        assert window.wait(limits, now + wait - 0.001, tokens) > 0
    assert window.wait(limits, now + wait + 0.001, tokens) == 0


def test_requests_over_the_limit_are_429_with_headers_that_say_all(start: Start) -> None:
    sandbox = start(rpm=2, tpm=10_000)
    begun = datetime.now(UTC)
    answers = [sandbox.ask(body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[2].headers["x-ratelimit-limit-tokens"] == "10000"
    used = sum(sum(answer.json()["usage"].values()) for answer in answers[:2])
    assert answers[2].headers["x-ratelimit-remaining-tokens"] == str(10_000 - used)
    reset = answers[2].headers["x-ratelimit-reset-requests"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reset)
    assert 60 <= (datetime.fromisoformat(reset) - begun).total_seconds() <= 75
    assert 50 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].json()["error"]["type"] == "rate_limit_error"


def test_limits_count_for_each_key_alone(start: Start) -> None:
    sandbox = start(rpm=1)
    assert [sandbox.ask(body(), key=key).status_code for key in ("a", "b", "a")] == [200, 200, 429]


def test_refused_requests_use_up_nothing(start: Start) -> None:
    sandbox = start(rpm=1)
    assert sandbox.ask(body(max_tokens=0)).status_code == 400
    assert sandbox.ask(body()).status_code == 200


def test_tokens_over_the_limit_are_429_and_what_never_fits_is_400(start: Start) -> None:
    sandbox = start(tpm=100)
    assert sandbox.ask(body("word " * 60, max_tokens=5)).status_code == 200
    refused = sandbox.ask(body("word " * 60, max_tokens=5))
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    never = sandbox.ask(body("word " * 200))
    assert (never.status_code, never.json()["error"]["code"]) == (400, "tokens_over_limit")


def test_limit_headers_can_be_left_out(start: Start) -> None:
    answer = start(rpm=5, limit_headers=False).ask(body())
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


def test_without_limits_there_are_no_limit_headers(start: Start) -> None:
    assert not [name for name in start().ask(body()).headers if name.startswith("x-ratelimit")]


def test_retry_after_can_be_a_date(start: Start) -> None:
    sandbox = start(rpm=1, retry_after_date=True)
    sandbox.ask(body())
    date = parsedate_to_datetime(sandbox.ask(body()).headers["retry-after"])
    assert 50 <= date.timestamp() - time.time() <= 62


def test_limits_change_while_it_runs(start: Start) -> None:
    """What isn't named stays, null lifts a limit."""
    sandbox = start(rpm=1)
    sandbox.ask(body())
    assert sandbox.ask(body()).status_code == 429
    assert sandbox.client.post("/sandbox/limits", json={"rpm": 2}).json() == {"rpm": 2, "tpm": None}
    assert sandbox.ask(body()).status_code == 200
    assert sandbox.ask(body()).status_code == 429
    assert sandbox.client.post("/sandbox/limits", json={"rpm": None, "tpm": 9}).json() == {
        "rpm": None,
        "tpm": 9,
    }


@pytest.mark.parametrize("change", [{"rpm": 0}, {"rpm": "2"}, {"rps": 2}, [], 7])
def test_a_senseless_change_of_limits_is_refused(start: Start, change: object) -> None:
    response = start().client.post("/sandbox/limits", json=change)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_limits_may_be_counted_over_a_second(start: Start) -> None:
    """120 a minute are then 2 in any second; the headers still name the minute's limit."""
    sandbox = start(rpm=120, limit_window=1.0)
    answers = [sandbox.ask(body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "120"
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert answers[2].headers["retry-after"] == "1"
    time.sleep(1.01)
    assert sandbox.ask(body()).status_code == 200


def test_limits_may_be_counted_over_an_hour(start: Start) -> None:
    """One a minute is then 60 in any hour, all of them at once if need be."""
    sandbox = start(rpm=1, limit_window=3_600.0)
    answers = [sandbox.ask(body()) for _ in range(61)]
    assert [answer.status_code for answer in answers] == [200] * 60 + [429]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "59"
    assert 3_500 < int(answers[60].headers["retry-after"]) <= 3_600


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_window_is_longer_than_nothing_and_has_an_end(seconds: float) -> None:
    with pytest.raises(SettingsError, match="limit_window"):
        Settings(limit_window=seconds)


# A bound on requests at a time.


def test_one_request_more_than_the_concurrency_is_a_429_without_a_wait(start: Start) -> None:
    """Two hang, so that the third is one too many; another key is no way around the bound."""
    sandbox = start(concurrency=2, faults={"hang": 1.0})
    with sandbox.raw(body()), sandbox.raw(body()):
        until(lambda: len(sandbox.sandbox.bill()["requests"]) == 2)
        refused = sandbox.ask(body(), key="another")
        assert (refused.status_code, "retry-after" in refused.headers) == (429, False)
        assert refused.json()["error"]["message"] == "over the limit of 2 requests at a time"
        assert sandbox.total()["billed_requests"] == 2


def test_a_place_is_free_again_once_its_response_is_sent_or_its_client_has_left(start: Start) -> None:
    sandbox = start(concurrency=1, faults={"hang": 1.0})
    with sandbox.raw(body()):
        until(lambda: sandbox.sandbox.provider.open_requests == 1)
    until(lambda: sandbox.sandbox.provider.open_requests == 0)
    sandbox.client.post("/sandbox/faults", json={})
    assert [sandbox.ask(body()).status_code for _ in range(3)] == [200, 200, 200]


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)
