"""Assembling a message from events, with the deviations of servers and proxies."""

import json
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.client.messages.message import MessageError
from batchrun.client.messages.response import answer_text, read_message, read_response
from batchrun.client.messages.stream import MessageAssembler, StreamedError

from .test_streaming import BLOCK, DELTAS, END, START, STREAM, event

STOP = event("message_stop")


def assembled(*chunks: bytes) -> bytes:
    assembler = MessageAssembler()
    for chunk in chunks:
        assembler.feed(chunk)
    return assembler.body()


def text_of(*chunks: bytes) -> str:
    return answer_text(read_message(assembled(*chunks))[0])


def text_delta(index: int, text: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def test_cost_stays_the_number_that_the_server_wrote() -> None:
    costly = STREAM.replace(b"0.00023", b"0.1234567890123456789")
    assert json.loads(assembled(costly), parse_float=Decimal)["estimated_cost_usd"] == Decimal(
        "0.1234567890123456789"
    )


@pytest.mark.parametrize(
    "end",
    [
        event("message_delta", delta={}, estimated_cost_usd=0.5) + STOP,
        event("message_delta", delta={}, usage={"output_tokens": 3, "estimated_cost_usd": 0.5}) + STOP,
        event("message_delta", delta={"estimated_cost_usd": 0.5}) + STOP,
        event("message_stop", estimated_cost_usd=0.5),
        event("message_delta", delta={}, estimated_cost_usd=0.1)
        + event("message_stop", estimated_cost_usd=0.5),
        event("message_delta", delta={}, estimated_cost_usd=0.5)
        + event("message_stop", remaining_credits=None),
    ],
)
def test_cost_is_found_wherever_the_server_puts_it(end: bytes) -> None:
    assert read_response(assembled(START + end), 0.0).cost_nano_usd == 500_000_000


def test_cost_in_message_start_counts_too() -> None:
    start = event("message_start", message={"type": "message", "estimated_cost_usd": 0.5})
    assert read_response(assembled(start + STOP), 0.0).cost_nano_usd == 500_000_000


def test_later_usage_wins_and_zeros_do_not_erase_it() -> None:
    later = event("message_delta", delta={}, usage={"input_tokens": 0, "output_tokens": 9, "x": None})
    answer = read_response(assembled(START + later + STOP), 0.0)
    assert (answer.input_tokens, answer.output_tokens) == (14, 9)


def test_usage_that_is_zero_throughout_is_zero() -> None:
    start = event("message_start", message={"type": "message", "usage": {"output_tokens": 0}})
    assert read_response(assembled(start + STOP), 0.0).output_tokens == 0


def test_message_that_is_started_twice_is_one_message() -> None:
    assert text_of(START + START + BLOCK + BLOCK + b"".join(DELTAS) + END) == "positive 🙂"


def test_second_start_after_text_is_refused_since_it_would_mix_two_answers() -> None:
    with pytest.raises(MessageError):
        text_of(START + BLOCK + DELTAS[0] + START + END)
    with pytest.raises(MessageError):
        text_of(START + BLOCK + DELTAS[0] + BLOCK + DELTAS[1] + END)


def test_unknown_events_fields_and_deltas_are_passed_over() -> None:
    noise = (
        b"event: keepalive\ndata: not json\n\n"
        b": comment\n\nevent: empty\n\n"
        + event("ping", x=1)
        + event("message_metrics", message=5)
        + b'data: {"type":"new_thing"}\n\n'
        + event("content_block_delta", index=0, delta={"type": "new_delta", "new": 1})
    )
    block = event("content_block_start", index=0, content_block={"type": "text", "text": ""}, extra=[1])
    stream = (
        noise.replace(b"content_block_delta", b"other") + START + noise.replace(b'"index": 0', b'"index": 1')
    )
    with pytest.raises(MessageError):
        text_of(stream)
    assert text_of(START + block + noise + b"".join(DELTAS) + noise + END + noise) == "positive 🙂"


def test_events_without_a_name_go_by_their_type() -> None:
    lines = STREAM.split(b"\n")
    assert text_of(b"\n".join(line for line in lines if not line.startswith(b"event:"))) == "positive 🙂"


def test_openai_style_end_marker_is_passed_over() -> None:
    assert text_of(STREAM + b"data: [DONE]\n\n") == "positive 🙂"
    assert text_of(STREAM[: -len(STOP)] + b"data: [DONE]\n\n" + STOP) == "positive 🙂"


def test_what_follows_message_stop_changes_nothing() -> None:
    assert text_of(STREAM + event("error", error={"type": "x"}) + text_delta(0, "more")) == "positive 🙂"


def test_blocks_come_in_the_order_of_their_indexes() -> None:
    blocks = b"".join(
        event("content_block_start", index=index, content_block={"type": "text", "text": text})
        + text_delta(index, "!")
        for index, text in ((2, "c"), (0, "a"), (1, "b"))
    )
    assert text_of(START + blocks + END) == "a!b!c!"


def test_other_kinds_of_blocks_are_kept_whole_and_out_of_the_text() -> None:
    events = [
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
        event("content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "input": {}}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a":'}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "0.1}"}),
    ]
    body = assembled(START, *events, END)
    assert json.loads(body)["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "tool_use", "id": "t", "input": {"a": 0.1}},
    ]
    assert answer_text(read_message(body)[0]) == ""


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(STOP, id="no start"),
        pytest.param(START + event("content_block_start", content_block={}) + END, id="block without text"),
        pytest.param(
            START + event("content_block_delta", delta={"type": "text_delta", "text": [1]}) + END,
            id="delta without a string",
        ),
        pytest.param(START + b"event: message_delta\ndata: {\n\n" + END, id="broken JSON"),
        pytest.param(START + b"data: {\n\n" + END, id="broken JSON without a name"),
        pytest.param(START + b"event: message_delta\ndata: []\n\n" + END, id="no object"),
        pytest.param(START + b"data: " + b"[" * 100_000 + b"\n\n" + END, id="deeply nested"),
        pytest.param(START + b"data: \xff\n\n" + END, id="not UTF-8"),
        pytest.param(event("message_start", message={"type": "x"}) + END, id="not a message"),
    ],
)
def test_stream_that_breaks_the_protocol_is_no_answer(stream: bytes) -> None:
    with pytest.raises(MessageError):
        read_message(assembled(stream))[0]


def test_tool_input_that_was_cut_off_stays_text() -> None:
    tool = event("content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "input": {}})
    delta = event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "{"})
    (block,) = json.loads(assembled(START, tool, delta, END))["content"]
    assert (block["id"], block["partial_json"]) == ("t", "{")


@pytest.mark.parametrize("depth", range(930, 1000, 3))
def test_block_at_the_depth_limit_of_json_is_an_answer_or_our_error(depth: int) -> None:
    """Put together, a message nests one level deeper than its events."""
    block = b'{"type":"x","x":' + b"[" * depth + b"]" * depth + b"}"
    start = b'data: {"type":"content_block_start","index":0,"content_block":' + block + b"}\n\n"
    try:
        read_message(assembled(START, start, END))[0]
    except MessageError:
        assert depth > 900


def test_error_event_is_raised_with_its_type_and_message() -> None:
    with pytest.raises(StreamedError, match="Overloaded") as raised:
        assembled(START + event("error", error={"type": "overloaded_error", "message": "Overloaded"}))
    assert raised.value.code == "overloaded_error"


@pytest.mark.parametrize(
    "error", [{}, {"error": None}, {"error": {"type": 5, "message": []}}, {"error": "x"}]
)
def test_error_event_of_any_shape_is_an_error(error: dict[str, object]) -> None:
    with pytest.raises(StreamedError):
        assembled(START + event("error", **error))


STATED = STREAM.rindex(b"}", 0, STREAM.rindex(b"event: message_stop"))


@given(st.integers(0, STATED))
def test_no_beginning_of_a_stream_is_taken_for_an_answer(length: int) -> None:
    with pytest.raises(MessageError):
        assembled(STREAM[:length])


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_answer_does_not_depend_on_the_cuts(cuts: list[int]) -> None:
    chunks = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert assembled(*chunks) == assembled(STREAM)


PIECES = [
    START,
    BLOCK,
    *DELTAS,
    END,
    STOP,
    event("ping"),
    event("error"),
    b"data: [DONE]\n\n",
    b"\n",
    b"data: {",
]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=8))
@example([START, BLOCK, END])
def test_any_pieces_are_an_answer_or_our_error(pieces: list[bytes]) -> None:
    try:
        message = read_message(assembled(*pieces))[0]
    except MessageError:
        return
    # Text is never invented, and an answer is never taken before its end.
    assert set(answer_text(message)) <= set("positive 🙂")
    assert b"message_stop" in b"".join(pieces) or b"stop_reason" in b"".join(pieces)


@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_a_changed_byte_is_an_answer_or_our_error(place: int, byte: int) -> None:
    with suppress(MessageError):
        read_message(assembled(STREAM[:place] + bytes([byte]) + STREAM[place + 1 :]))[0]
