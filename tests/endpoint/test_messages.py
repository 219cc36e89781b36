"""Decoding of plain responses: exact about money, and whatever can be read of the rest is read."""

import json
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.client.messages.message import MessageError
from batchrun.client.messages.response import answer_text, cost_nano_usd, read_message, read_response

from .wire_server import MESSAGE

WHOLE: dict[str, Any] = json.loads(MESSAGE)


def encoded(**changes: object) -> bytes:
    return json.dumps({**WHOLE, **changes}).encode()


def test_text_is_that_of_the_text_blocks_in_order() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "text": "not this"},
        {"type": "text", "text": "a", "citations": None},
        {"type": "tool_use", "id": "t", "input": {"text": 1}, "text": {"odd": True}},
        {"type": "text", "text": "b"},
    ]
    assert answer_text(read_message(encoded(content=content))[0]) == "ab"


def test_answer_without_blocks_is_an_empty_text() -> None:
    assert answer_text(read_message(encoded(content=[]))[0]) == ""


@pytest.mark.parametrize("missing", [name for name in WHOLE if name not in ("type", "content")])
@pytest.mark.parametrize("null", [False, True])
def test_all_but_type_and_content_may_be_missing_or_null(missing: str, null: bool) -> None:
    message = {name: value for name, value in WHOLE.items() if name != missing}
    read_message(json.dumps({**message, **({missing: None} if null else {})}).encode())[0]


def test_what_was_not_stated_is_none_and_not_zero() -> None:
    answer = read_response(b'{"type":"message","content":[]}', 0.5)
    assert (answer.input_tokens, answer.output_tokens, answer.cost_nano_usd) == (None, None, None)
    assert (answer.credits_used, answer.remaining_credits) == (None, None)
    assert read_response(encoded(usage={"output_tokens": 0}), 0.5).input_tokens is None


def test_cache_reads_and_writes_are_input_tokens() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}
    assert read_response(encoded(usage=usage), 0.0).input_tokens == 125
    assert read_response(encoded(usage={"cache_read_input_tokens": 7}), 0.0).input_tokens == 7


def test_fractions_of_credits_are_rounded_against_the_run() -> None:
    answer = read_response(encoded(estimated_credits_used=0.25, remaining_credits=9.75), 0.0)
    assert (answer.credits_used, answer.remaining_credits) == (1, 9)


def test_balance_may_be_overdrawn() -> None:
    assert read_response(encoded(remaining_credits=-3), 0.0).remaining_credits == -3


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "error"},
        {"type": "pong", "content": []},
        {"content": 5},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": None}]},
        {"content": [{"type": "text", "text": ["a"]}]},
        {"content": [5]},
    ],
)
def test_a_message_whose_text_cannot_be_found_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        read_message(encoded(**changes))[0]


@pytest.mark.parametrize("number", [b"1e999999999", b"-1e-9", b"1" * 5000, b"1e1000000000000"])
def test_cost_beyond_measure_is_not_stated(number: bytes) -> None:
    assert read_message(MESSAGE.replace(b"0.00023", number))[0].estimated_cost_usd is None


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"type":"message","content":[],"x":' + b"[" * 100_000]
)
def test_deeply_nested_json_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        read_message(body)[0]


def test_error_does_not_quote_the_answer() -> None:
    with pytest.raises(MessageError) as raised:
        read_message(encoded(content=[{"type": "text", "text": ["private"]}]))[0]
    assert "private" not in str(raised.value)


@pytest.mark.parametrize(
    ("stated", "nano_usd"),
    [
        ("0.00023", 230_000),
        ("2.3e-4", 230_000),
        ("0.00022999999999999998", 230_000),
        ("0.00023000000000000003", 230_000),
        ("0", 0),
        ("-0.0", 0),
        ("1e-9", 1),
        ("0.0000000001", 1),
        ("0.0000000004", 1),
        ("1e-30", 0),
        ("0.1", 100_000_000),
        ("1000000", 10**15),
        ("0.123456789", 123_456_789),
        ("0.1234567891", 123_456_790),
    ],
)
def test_cost_is_exact_and_rounded_up_once_float_noise_is_gone(stated: str, nano_usd: int) -> None:
    assert cost_nano_usd(Decimal(stated)) == nano_usd
    assert read_response(MESSAGE.replace(b"0.00023", stated.encode()), 0.0).cost_nano_usd == nano_usd


@given(st.integers(0, 10**15))
def test_cost_survives_a_servers_binary_float(nano_usd: int) -> None:
    """A whole number of nano-USD that went through a double (15 digits) comes back as it was."""
    assert cost_nano_usd(Decimal(repr(nano_usd / 1e9))) == nano_usd


@given(st.decimals(0, 10**6, places=15))
def test_cost_is_never_understated_by_more_than_noise(cost: Decimal) -> None:
    exact = Fraction(cost) * 10**9
    assert exact - Fraction(1, 2000) <= cost_nano_usd(cost) < exact + 1 + Fraction(1, 2000)


@given(st.integers(0, len(MESSAGE) - 1))
def test_no_beginning_of_a_message_is_taken_for_it(length: int) -> None:
    with pytest.raises(MessageError):
        read_message(MESSAGE[:length])[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WHOLE, "text", "input_tokens"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    st.binary(max_size=50)
    | st.dictionaries(st.sampled_from([*WHOLE]), JSON).map(
        lambda changes: json.dumps({**WHOLE, **changes}).encode()
    )
)
@example(b"\xef\xbb\xbf" + MESSAGE)
@example(MESSAGE + MESSAGE)
@example(MESSAGE.replace(b"msg_1", b"\xed\xa0\x80"))
def test_any_bytes_are_a_message_or_our_error(body: bytes) -> None:
    try:
        answer = read_response(body, 0.0)
    except MessageError:
        return
    assert answer.cost_nano_usd is None or 0 <= answer.cost_nano_usd <= 10**15


@given(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_a_message_or_our_error(place: int, byte: int) -> None:
    body = MESSAGE[:place] + bytes([byte]) + MESSAGE[place + 1 :]
    with suppress(MessageError):
        read_message(body)[0]
