"""Failures as values: remedy, billing, code and words; and the waits between attempts."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.exchange import Billed, Failure, Remedy
from batchrun.wire.error_body import read_error_body
from batchrun.wire.retry import RetryPolicy, classify_status

URL = "https://model.test/v1/messages"
STATED = json.dumps({"type": "error", "error": {"type": "some_error", "message": "said so"}}).encode()
PAGE = b"<html><head><title>502 Bad &amp; Gateway</title></head><body><h1>nginx</h1></body></html>"

ROW, RUN, SLOW, RETRY = Remedy.FAIL_ROW, Remedy.STOP_RUN, Remedy.SLOW_DOWN, Remedy.RETRY
NO, UNKNOWN = Billed.NO, Billed.UNKNOWN


def classified(status: int, body: bytes = STATED, key: str | None = None, **headers: str) -> Failure:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify_status(status, names, body, url=URL, now=0.0, key=key)


@pytest.mark.parametrize(
    ("status", "remedy", "billed", "billed_behind_a_proxy"),
    [
        (301, RUN, NO, NO),
        (302, RUN, NO, NO),
        (308, RUN, NO, NO),
        (400, ROW, NO, NO),
        (401, RUN, NO, NO),
        (402, RUN, NO, NO),
        (403, RUN, NO, NO),
        (404, RUN, NO, NO),
        (405, RUN, NO, NO),
        (408, RETRY, UNKNOWN, UNKNOWN),
        (409, RETRY, NO, NO),
        (413, ROW, NO, NO),
        (418, ROW, NO, NO),
        (422, ROW, NO, NO),
        (429, SLOW, NO, NO),
        (499, ROW, UNKNOWN, UNKNOWN),
        (500, RETRY, NO, UNKNOWN),
        (501, RETRY, UNKNOWN, UNKNOWN),
        (502, RETRY, UNKNOWN, UNKNOWN),
        (503, RETRY, NO, UNKNOWN),
        (504, RETRY, UNKNOWN, UNKNOWN),
        (520, RETRY, UNKNOWN, UNKNOWN),
        (527, RETRY, UNKNOWN, UNKNOWN),
        (529, RETRY, NO, UNKNOWN),
        (599, RETRY, UNKNOWN, UNKNOWN),
    ],
)
def test_each_status_has_its_remedy_and_its_billing(
    status: int, remedy: Remedy, billed: Billed, billed_behind_a_proxy: Billed
) -> None:
    stated, page = classified(status), classified(status, PAGE)
    assert (stated.remedy, stated.billed, stated.status) == (remedy, billed, status)
    assert (page.remedy, page.billed) == (remedy, billed_behind_a_proxy)


@pytest.mark.parametrize(
    ("status", "told", "remedy"),
    [
        (500, "false", ROW),
        (429, "false", ROW),
        (409, "false", ROW),
        (400, "true", RETRY),
        (422, "true", RETRY),
        (403, "true", RETRY),
        (429, "true", SLOW),
        (401, "false", RUN),
        (302, "true", RUN),
        (500, "true", RETRY),
        (500, "perhaps", RETRY),
    ],
)
def test_server_may_say_whether_to_retry(status: int, told: str, remedy: Remedy) -> None:
    assert classified(status, x_should_retry=told).remedy is remedy


def test_quota_that_is_used_up_for_good_stops_the_run() -> None:
    body = b'{"error":{"type":"quota","message":"You exceeded your quota","code":"insufficient_quota"}}'
    assert classified(429, body).remedy is RUN


@pytest.mark.parametrize("status", [429, 503, 529])
def test_wait_that_the_server_asks_for_is_kept(status: int) -> None:
    assert classified(status, retry_after="12").retry_after == 12.0


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(
            b'{"type":"error","error":{"type":"authentication_error","message":"bad","code":"invalid_api_key"}}',
            "invalid_api_key",
            "bad",
            id="the provider's",
        ),
        pytest.param(
            b'{"type":"error","error":{"type":"not_found_error","message":"bad"}}',
            "not_found_error",
            "bad",
            id="Anthropic's",
        ),
        pytest.param(
            b'{"error":{"code":500,"message":"bad","type":"server_error"}}',
            "server_error",
            "bad",
            id="llama.cpp",
        ),
        pytest.param(
            b'{"error":{"message":"bad","type":"None","param":"None","code":"429"}}',
            "http_500",
            "bad",
            id="LiteLLM",
        ),
        pytest.param(b'{"error":"bad"}', "http_500", "bad", id="Ollama"),
        pytest.param(b'{"detail":"bad"}', "http_500", "bad", id="FastAPI"),
        pytest.param(b'{"message":"bad"}', "http_500", "bad", id="gateways"),
        pytest.param(PAGE, "http_500", "502 Bad & Gateway", id="a page with a title"),
        pytest.param(b"<p>down<br>for <b>repair</b>", "http_500", "down for repair", id="a page without"),
        pytest.param(b"upstream  down\n", "http_500", "upstream down", id="text"),
        pytest.param(b'["down"]', "http_500", '["down"]', id="a list"),
        pytest.param(b"", "http_500", "status 500 with an empty body", id="empty"),
        pytest.param(b'{"error":{}}', "http_500", "status 500 with an empty body", id="an empty object"),
        pytest.param(
            b'{"error":{"message":null,"code":"a b"}}', "http_500", "status 500 with an empty body", id="odd"
        ),
        pytest.param(b"\xff\xfe", "http_500", "\ufffd\ufffd", id="no text"),
    ],
)
def test_error_bodies_of_all_servers(body: bytes, code: str, message: str) -> None:
    failure = classified(500, body)
    assert (failure.code, failure.message) == (code, message)


def test_message_is_short_printable_and_without_the_key() -> None:
    text = "key sk-1 \x1b[31m\x00\u202e" + "x" * 400
    failure = classified(400, json.dumps({"error": {"message": text}}).encode(), key="sk-1")
    assert failure.message.startswith("key [key] [31m x")
    assert (len(failure.message), failure.message[-1]) == (300, "…")


def test_wrong_address_is_named() -> None:
    assert URL in classified(404, PAGE).message
    assert "endpoint.base_url" in classified(405, b"").message


def test_redirect_names_its_target_without_the_key() -> None:
    failure = classified(302, b"", key="sk-1", location="https://elsewhere.test/?key=sk-1")
    assert "https://elsewhere.test/?key=[key]" in failure.message
    assert "an unnamed place" in classified(302, b"").message


@given(
    st.binary(max_size=60), st.integers(100, 999), st.dictionaries(st.text(max_size=5), st.text(max_size=5))
)
def test_any_refusal_is_a_failure_that_can_be_shown(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    failure = classify_status(status, headers, body, url=URL, now=0.0)
    assert failure.message.isprintable()
    assert 0 < len(failure.message) <= 300
    assert failure.code.isascii()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 100_000])
def test_nested_error_body_is_no_error_object(body: bytes) -> None:
    assert not read_error_body(body).stated


class Highest:
    def uniform(self, a: float, b: float, /) -> float:
        assert a == 0.0
        return b


def failure_with(remedy: Remedy, retry_after: float | None = None) -> Failure:
    return Failure("code", "message", remedy, Billed.NO, retry_after=retry_after)


def test_bound_of_the_wait_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=10, max_wait_seconds=20)
    bounds = [policy.delay(failure_with(RETRY), attempts, Highest()) for attempts in range(1, 11)]
    assert bounds == [1, 2, 4, 8, 16, 20, 20, 20, 20, None]


def test_jitter_is_full_and_can_be_seeded() -> None:
    policy = RetryPolicy()
    waits = [policy.delay(failure_with(RETRY), 4, random.Random(seed)) or 0.0 for seed in range(400)]
    assert waits[:9] == [policy.delay(failure_with(RETRY), 4, random.Random(seed)) for seed in range(9)]
    assert 0 <= min(waits) < 0.5
    assert 7.5 < max(waits) <= 8
    assert 3.5 < sum(waits) / len(waits) < 4.5


@pytest.mark.parametrize("remedy", [ROW, RUN])
def test_what_no_wait_can_mend_is_not_sent_again(remedy: Remedy) -> None:
    assert RetryPolicy().delay(failure_with(remedy, retry_after=1.0), 1) is None


def test_slowing_down_uses_up_no_attempts() -> None:
    assert RetryPolicy(max_attempts=2).delay(failure_with(SLOW), 50, Highest()) == 120.0
    assert RetryPolicy(max_attempts=2).delay(failure_with(SLOW), 0, Highest()) == 1.0


@given(st.floats(0, 1e6), st.integers(1, 5), st.sampled_from([RETRY, SLOW]))
def test_wait_that_was_asked_for_is_a_minimum_without_a_maximum(
    asked: float, attempts: int, remedy: Remedy
) -> None:
    wait = RetryPolicy().delay(failure_with(remedy, asked), attempts)
    assert wait is not None
    assert asked <= wait <= max(asked, 16.0)


def test_one_attempt_means_no_retry() -> None:
    assert RetryPolicy(max_attempts=1).delay(failure_with(RETRY), 1) is None
