"""Failures as values: action, billing, code and words; and the waits between attempts."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.error_body import error_object, read_error_body
from batchrun.client.redaction import Private
from batchrun.client.retry import RetryPolicy, classify_status, stated_failure
from batchrun.exchange import BillingStatus, Failure, FailureAction

STATED = json.dumps({"type": "error", "error": {"type": "some_error", "message": "said so"}}).encode()
PAGE = b"<html><head><title>502 Bad &amp; Gateway</title></head><body><h1>nginx</h1></body></html>"

ROW, RUN, DOUBT, SLOW, RETRY = (
    FailureAction.FAIL_ROW,
    FailureAction.STOP_RUN,
    FailureAction.REFUSE,
    FailureAction.SLOW_DOWN,
    FailureAction.RETRY,
)
NO, UNKNOWN = BillingStatus.NO, BillingStatus.UNKNOWN


def classified(status: int, body: bytes = STATED, key: str | None = None, **headers: str) -> Failure:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify_status(status, names, body, now=0.0, private=Private(key))


@pytest.mark.parametrize(
    ("status", "action", "billing", "billed_behind_a_proxy"),
    [
        (301, RUN, NO, NO),
        (302, RUN, NO, NO),
        (308, RUN, NO, NO),
        (400, ROW, NO, NO),
        (401, RUN, NO, NO),
        (402, RUN, NO, NO),
        (403, DOUBT, NO, NO),
        (404, DOUBT, NO, NO),
        (405, DOUBT, NO, NO),
        (406, DOUBT, NO, NO),
        (407, RUN, NO, NO),
        (408, RETRY, UNKNOWN, UNKNOWN),
        (409, RETRY, NO, NO),
        (413, ROW, NO, NO),
        (418, ROW, NO, NO),
        (422, ROW, NO, NO),
        (425, RETRY, NO, NO),
        (426, RUN, NO, NO),
        (429, SLOW, NO, NO),
        (451, DOUBT, NO, NO),
        (499, ROW, UNKNOWN, UNKNOWN),
        (500, RETRY, NO, UNKNOWN),
        (501, RUN, NO, UNKNOWN),
        (502, RETRY, UNKNOWN, UNKNOWN),
        (503, RETRY, NO, UNKNOWN),
        (504, RETRY, UNKNOWN, UNKNOWN),
        (511, RUN, UNKNOWN, UNKNOWN),
        (520, RETRY, UNKNOWN, UNKNOWN),
        (527, RETRY, UNKNOWN, UNKNOWN),
        (529, RETRY, NO, UNKNOWN),
        (599, RETRY, UNKNOWN, UNKNOWN),
    ],
)
def test_each_status_has_its_action_and_its_billing(
    status: int, action: FailureAction, billing: BillingStatus, billed_behind_a_proxy: BillingStatus
) -> None:
    stated, page = classified(status), classified(status, PAGE)
    assert (stated.action, stated.billing, stated.status) == (action, billing, status)
    assert (page.action, page.billing) == (action, billed_behind_a_proxy)


@pytest.mark.parametrize(
    ("status", "told", "action"),
    [
        (500, "false", RETRY),
        (503, "false", RETRY),
        (429, "false", SLOW),
        (409, "false", RETRY),
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
def test_server_may_say_whether_to_retry(status: int, told: str, action: FailureAction) -> None:
    assert classified(status, x_should_retry=told).action is action


def test_a_server_that_says_not_to_retry_is_heard() -> None:
    """An outage fails no row all the same: the dispatcher decides, which hears of other rows."""
    assert classified(503, x_should_retry="false").told_not_to_retry
    assert not classified(503, x_should_retry="true").told_not_to_retry
    assert not classified(503).told_not_to_retry


def stated(message: str, **fields: object) -> bytes:
    return json.dumps({"type": "error", "error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize("status", [400, 403, 422])
@pytest.mark.parametrize(
    "message",
    [
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
        "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
        "Billing hard limit has been reached",
        "Monthly spending limit reached",
        "Insufficient credits",
        "Your team has either used all available credits or reached its limit.",
        "You exceeded your current quota",
        "This organization has been disabled.",
        "Please check your billing details.",
        "account balance is insufficient",
    ],
)
def test_a_refusal_that_speaks_of_the_account_stops_the_run_as_402_does(status: int, message: str) -> None:
    assert classified(status, stated(message, type="invalid_request_error")).action is RUN


@pytest.mark.parametrize(
    "message",
    [
        "metadata.billing_address: Extra inputs are not permitted",
        "metadata.billing: Extra inputs are not permitted",
        "unknown field 'billing'",
        "max_tokens: 9000 > 8192, the limit of this model",
        "temperature exceeds its limit",
        "the prompt is too long",
    ],
)
def test_a_refusal_that_names_a_field_is_the_rows(message: str) -> None:
    assert classified(400, stated(message)).action is ROW


@pytest.mark.parametrize("code", ["billing_error", "insufficient_quota", "billing_hard_limit_reached"])
@pytest.mark.parametrize("status", [400, 403, 429])
def test_a_code_of_the_account_stops_the_run_under_any_status(status: int, code: str) -> None:
    assert classified(status, stated("no", code=code)).action is RUN
    assert classified(status, stated("no", type=code)).action is RUN


def test_a_429_whose_sentence_speaks_of_a_quota_is_a_429() -> None:
    """Rates are called quotas, too."""
    assert classified(429, stated("You exceeded your current quota, see your billing details")).action is SLOW


@pytest.mark.parametrize(
    "body",
    [
        stated("unexpected end of JSON input"),
        stated("Unterminated string starting at: line 1 column 80 (char 79)"),
        stated("EOF while parsing a string at line 1 column 300"),
        stated("We could not parse the JSON body of your request."),
        stated("Failed to parse the request body as JSON: messages[0]: EOF"),
        stated("The request body is not valid JSON: unexpected end of data"),
        stated("invalid JSON"),
        b'{"detail":[{"type":"json_invalid","loc":["body",90],"msg":"JSON decode error","input":{}}]}',
        b"Unexpected end of JSON input",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_body_that_was_cut_in_transit_is_sent_again(status: int, body: bytes) -> None:
    failure = classified(status, body)
    assert (failure.action, failure.billing) == (RETRY, NO)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid JSON schema for tools.0",
        'Invalid JSON payload received. Unknown name "x"',
        "messages: too long",
    ],
)
def test_a_body_that_was_understood_is_not_sent_again(message: str) -> None:
    assert classified(400, stated(message)).action is ROW


def test_of_a_list_of_details_only_where_and_what_is_said() -> None:
    details = [
        {"type": "x", "loc": ["body", "messages"], "msg": "too long", "input": {"messages": "private"}},
        {"loc": ["body", "messages", 0, "role"], "msg": "wrong", "ctx": {"given": "private"}},
        "odd",
        None,
    ]
    failure = classified(422, json.dumps({"detail": details}).encode())
    assert failure.message == "messages: too long; messages.0.role: wrong; odd"


@pytest.mark.parametrize(
    ("error", "action", "billing"),
    [
        ({"type": "authentication_error"}, RUN, NO),
        ({"type": "billing_error"}, RUN, NO),
        ({"type": "x", "message": "Insufficient credits"}, RUN, NO),
        ({"type": "permission_error"}, DOUBT, NO),
        ({"type": "not_found_error"}, DOUBT, NO),
        ({"type": "invalid_request_error"}, ROW, NO),
        ({"type": "rate_limit_error"}, SLOW, NO),
        ({"type": "overloaded_error"}, RETRY, NO),
        ({"type": "api_error"}, RETRY, NO),
        ({"type": "timeout_error"}, RETRY, UNKNOWN),
        ({"code": 401}, RUN, NO),
        ({"code": "429"}, SLOW, NO),
        ({"code": 502}, RETRY, UNKNOWN),
        ({"code": 7, "type": "new"}, RETRY, UNKNOWN),
        ({}, RETRY, UNKNOWN),
    ],
)
def test_an_error_with_a_good_status_counts_as_its_status_would(
    error: dict[str, object], action: FailureAction, billing: BillingStatus
) -> None:
    said = error_object({"message": "said so", **error})
    failure = stated_failure(said, 200, 0.5)
    assert (failure.action, failure.billing, failure.status) == (action, billing, 200)
    midst = stated_failure(said, 200, 0.5, begun=True)
    assert midst.action is (RETRY if action is SLOW else action), "what may be billed uses up an attempt"
    assert midst.billing is UNKNOWN


def test_quota_that_is_used_up_for_good_stops_the_run() -> None:
    body = b'{"error":{"type":"quota","message":"You exceeded your quota","code":"insufficient_quota"}}'
    assert classified(429, body).action is RUN


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
    assert "endpoint.base_url" in classified(404, PAGE).message
    assert classified(405, b"").message == "is endpoint.base_url right? an empty body"


def test_redirect_names_its_target_without_the_key() -> None:
    failure = classified(302, b"", key="sk-1", location="https://user:pw@elsewhere.test/sk-1?key=other")
    assert "redirects to https://elsewhere.test/[key]. " in failure.message
    assert "an unnamed place" in classified(302, b"").message


@given(
    st.binary(max_size=60), st.integers(100, 999), st.dictionaries(st.text(max_size=5), st.text(max_size=5))
)
def test_any_refusal_is_a_failure_that_can_be_shown(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    failure = classify_status(status, headers, body, now=0.0)
    assert failure.message.isprintable()
    assert 0 < len(failure.message) <= 300
    assert failure.code.isascii()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 100_000])
def test_nested_error_body_is_no_error_object(body: bytes) -> None:
    assert not read_error_body(body).stated


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is as long as its jitter lets it be."""
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


def failure_with(action: FailureAction, retry_after: float | None = None) -> Failure:
    return Failure("code", "message", action, BillingStatus.NO, retry_after=retry_after)


@pytest.mark.usefixtures("longest_waits")
def test_bound_of_the_wait_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=10, max_wait_seconds=20)
    bounds = [policy.delay(failure_with(RETRY), attempts) for attempts in range(1, 11)]
    assert bounds == [1, 2, 4, 8, 16, 20, 20, 20, 20, None]


def test_jitter_is_full_and_can_be_seeded() -> None:
    def waits_of(seed: int) -> list[float]:
        random.seed(seed)
        return [RetryPolicy().delay(failure_with(RETRY), 4) or 0.0 for _ in range(400)]

    waits = waits_of(1)
    assert waits == waits_of(1) != waits_of(2)
    assert 0 <= min(waits) < 0.5
    assert 7.5 < max(waits) <= 8
    assert 3.5 < sum(waits) / len(waits) < 4.5


def test_wait_until_a_date_counts_from_the_date_of_the_response() -> None:
    """The server's clock is 600 s ahead of this machine's."""
    until, sent = "Thu, 01 Jan 1970 00:10:07 GMT", "Thu, 01 Jan 1970 00:10:00 GMT"
    assert classified(429, retry_after=until, date=sent).retry_after == 7.0
    assert classified(429, retry_after=until, date="yesterday").retry_after == 607.0
    assert classified(429, retry_after=sent, date=until).retry_after == 0.0


@pytest.mark.parametrize("action", [ROW, RUN])
def test_what_no_wait_can_mend_is_not_sent_again(action: FailureAction) -> None:
    assert RetryPolicy().delay(failure_with(action, retry_after=1.0), 1) is None


@pytest.mark.usefixtures("longest_waits")
def test_slowing_down_uses_up_no_attempts() -> None:
    assert RetryPolicy(max_attempts=2).delay(failure_with(SLOW), 50) == 120.0
    assert RetryPolicy(max_attempts=2).delay(failure_with(SLOW), 0) == 1.0


def test_a_longest_wait_of_nothing_is_no_wait() -> None:
    assert RetryPolicy(max_wait_seconds=0.0).delay(failure_with(RETRY), 1) == 0.0


@given(st.floats(0, 1e6), st.integers(1, 5), st.sampled_from([RETRY, SLOW]))
def test_wait_that_was_asked_for_is_a_minimum_without_a_maximum(
    asked: float, attempts: int, action: FailureAction
) -> None:
    wait = RetryPolicy().delay(failure_with(action, asked), attempts)
    assert wait is not None
    assert asked <= wait <= max(asked, 16.0)


def test_one_attempt_means_no_retry() -> None:
    assert RetryPolicy(max_attempts=1).delay(failure_with(RETRY), 1) is None
