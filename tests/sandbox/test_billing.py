"""Keys, credits, prices and the bill that adds up."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sandbox import Settings, background
from batchrun.sandbox.bill import NO_CHARGE, Arrival, Bill, charge_for
from batchrun.sandbox.wire import exact_usd
from tests.sandbox.conftest import Connected, Start, body

EXAMPLE = {
    "model": "abliterated-model",
    "messages": [{"role": "user", "content": "Write one sentence about Stonehenge."}],
    "max_tokens": 256,
}

EXAMPLE_ANSWER = """{
  "type": "message",
  "role": "assistant",
  "model": "abliterated-model",
  "content": [
    {
      "type": "text",
      "text": "Stonehenge is a prehistoric monument in Wiltshire, England, consisting of a ring of standing \
stones dating back to around 3000 BCE."
    }
  ],
  "stop_reason": "end_turn",
  "stop_sequence": null,
  "usage": {
    "input_tokens": 14,
    "output_tokens": 32
  },
  "remaining_credits": 487,
  "estimated_credits_used": 1,
  "estimated_cost_usd": 0.00023
}"""


def test_the_reference_pages_example_comes_out_to_the_last_character(start: Start) -> None:
    answer = start(credits=488).ask(EXAMPLE)
    message = answer.json()
    identifier = message.pop("id")
    assert json.dumps(message, indent=2) == EXAMPLE_ANSWER
    assert '"estimated_cost_usd":0.00023}' in answer.text
    assert identifier.startswith("msg_01")
    assert len(identifier) == len("msg_01XFDUDYJgAACzvnptvVoYEL")


@pytest.mark.parametrize(
    ("nano_usd", "written"),
    [
        (0, "0"),
        (5_000, "0.000005"),
        (230_000, "0.00023"),
        (10**9, "1"),
        (10 * 10**9, "10"),
        (1, "0.000000001"),
    ],
)
def test_usd_are_written_as_the_shortest_exact_decimal(nano_usd: int, written: str) -> None:
    assert exact_usd(nano_usd) == written


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_credit_is_a_thousand_tokens_begun_and_a_token_costs_5000_nano_usd(given: int, made: int) -> None:
    charge = charge_for(given, made)
    assert charge.nano_usd == 5_000 * (given + made)
    assert (charge.credits - 1) * 1000 < max(1, given + made) <= charge.credits * 1000


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "missing_api_key"),
        ({"Authorization": "Bearer"}, 401, "missing_api_key"),
        ({"Authorization": "Basic good"}, 401, "missing_api_key"),
        ({"Authorization": "Bearer bad"}, 401, "invalid_api_key"),
        ({"X-Api-Key": "bad"}, 401, "invalid_api_key"),
        ({"X-Free-Tier": "yes"}, 400, "invalid_parameter"),
        ({"Authorization": "Bearer good"}, 200, None),
        ({"authorization": "bearer good"}, 200, None),
        ({"X-Api-Key": "good"}, 200, None),
    ],
)
def test_named_keys_alone_are_accepted(
    start: Start, headers: dict[str, str], status: int, code: str | None
) -> None:
    response = start(keys=("good", "better")).ask(body(), key=None, **headers)
    assert response.status_code == status
    assert response.json().get("error", {}).get("code") == code


def test_one_anonymous_request_is_free_and_the_next_is_a_401(start: Start) -> None:
    """An invalid request doesn't use the free one up; the free one costs nothing."""
    sandbox = start(keys=("good",), credits=5)
    free = {"X-Free-Tier": "true"}
    assert sandbox.ask(body(max_tokens=0), key=None, **free).status_code == 400
    message = sandbox.ask(body(), key=None, **free).json()
    assert (message["estimated_credits_used"], message["estimated_cost_usd"]) == (0, 0)
    assert message["remaining_credits"] is None
    refused = sandbox.ask(body(), key=None, **free)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "free_tier_used")
    assert sandbox.total()["billed_requests"] == 0


def test_credits_run_out_before_anything_is_generated_and_can_be_topped_up(start: Start) -> None:
    sandbox = start(credits=2)
    assert [sandbox.ask(body()).json()["remaining_credits"] for _ in range(2)] == [1, 0]
    refused = sandbox.ask(body())
    assert refused.status_code == 402
    assert refused.json()["error"]["type"] == "billing_error"
    assert refused.json()["error"]["code"] == "insufficient_credits"
    assert sandbox.total()["credits"] == 2
    assert sandbox.ask(body(), key="another").json()["remaining_credits"] == 1
    assert sandbox.client.post("/sandbox/credits", json={"credits": 9}).status_code == 200
    assert sandbox.ask(body()).json()["remaining_credits"] == 8
    assert sandbox.client.post("/sandbox/credits", json={"credits": -1}).status_code == 400


def test_a_request_of_several_credits_is_refused_when_fewer_are_left(start: Start) -> None:
    sandbox = start(credits=2)
    assert sandbox.ask(body("word " * 2500)).status_code == 402
    assert sandbox.ask(body("word " * 1500)).json()["remaining_credits"] == 0


def test_without_credits_no_balance_is_told(plain: Connected) -> None:
    assert plain.ask(body()).json()["remaining_credits"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_cost_fields_can_be_null_or_absent(start: Start, stream: bool) -> None:
    null = start(cost_fields="null", credits=5).ask(body(stream=stream)).text
    assert '"remaining_credits":null,"estimated_credits_used":null,"estimated_cost_usd":null' in null
    absent = start(cost_fields="absent", credits=5).ask(body(stream=stream)).text
    assert "credits" not in absent
    assert "estimated" not in absent


def test_the_bill_adds_up(start: Start) -> None:
    """Sums equal what the answers said; refused requests stand in it with nothing; keys are not shown."""
    sandbox = start(keys=("secret-a", "secret-b"))
    answers = [
        sandbox.ask(body(f"Question {n}", stream=False), key=f"secret-{'ab'[n % 2]}") for n in range(10)
    ]
    sandbox.ask(body(temperature=9), key="secret-a")
    sandbox.ask(body(), key="stranger")
    bill = sandbox.client.get("/sandbox/bill").json()
    usage = [answer.json()["usage"] for answer in answers]
    total = bill["total"]
    assert (total["requests"], total["billed_requests"]) == (12, 10)
    assert total["input_tokens"] == sum(each["input_tokens"] for each in usage)
    assert total["output_tokens"] == sum(each["output_tokens"] for each in usage)
    assert total["nano_usd"] == 5_000 * (total["input_tokens"] + total["output_tokens"])
    assert total["usd"] == total["nano_usd"] / 1e9
    for name, amount in total.items():
        if name != "usd":
            assert sum(tally[name] for tally in bill["by_key"].values()) == amount
            if name in bill["requests"][0]:
                assert sum(entry[name] for entry in bill["requests"]) == amount
    assert [entry["id"] for entry in bill["requests"][:10]] == [answer.json()["id"] for answer in answers]
    assert bill["requests"][0]["body_sha256"] == hashlib.sha256(answers[0].request.content).hexdigest()
    assert [entry["status"] for entry in bill["requests"][-2:]] == [400, 401]
    assert [entry["billed"] for entry in bill["requests"]] == [True] * 10 + [False] * 2
    assert "secret" not in json.dumps(bill)
    assert bill == sandbox.sandbox.bill()


def test_the_bill_without_requests(plain: Connected) -> None:
    assert set(plain.client.get("/sandbox/bill?requests=0").json()) == {"total", "by_key"}


def test_the_list_is_bounded_and_the_sums_are_not() -> None:
    bill = Bill(max_requests=3)
    for number in range(1, 11):
        bill.record(Arrival(number, "key", bytes(32), 0.0), 200, charge_for(10, 10), None)
    statement = bill.statement()
    assert statement["total"]["requests"] == 10
    assert len(statement["requests"]) == 3
    assert len({entry["id"] for entry in statement["requests"]}) == 3


def test_a_charge_of_nothing_is_not_billed() -> None:
    bill = Bill(max_requests=1)
    bill.record(Arrival(1, "key", None, 0.0), 413, NO_CHARGE, None)
    (entry,) = bill.statement()["requests"]
    assert (entry["billed"], entry["body_sha256"], entry["nano_usd"]) == (False, None, 0)


def test_the_bill_can_be_read_after_the_end() -> None:
    with background(Settings()) as sandbox:
        pass
    assert sandbox.bill()["total"]["requests"] == 0


def test_health(plain: Connected) -> None:
    assert plain.client.get("/sandbox/health").json() == {"status": "ok"}
