"""The table of odd bodies: what is read of each, and what it is booked at."""

import json

import pytest
from msgspec.structs import replace

from batchrun.client.messages.message import MessageError
from batchrun.client.messages.response import read_completion, read_response
from batchrun.client.messages.stream import MessageAssembler, read_whole
from batchrun.exchange import Response

from .cases import CASES, PRICES, RESERVED, Case


def streamed(body: bytes, size: int) -> bytes:
    assembler = MessageAssembler()
    for start in range(0, len(body), size):
        assembler.feed(body[start : start + size])
    return assembler.body()


def check(case: Case, response: Response) -> None:
    said = response.completion
    assert said.text == case.text
    assert (response.input_tokens, response.output_tokens) == case.tokens
    if case.text:
        assert PRICES.cost(response, RESERVED) == case.booked
    for word in (said.stop_reason, said.stop_sequence, said.response_id, said.response_model):
        assert word is None or word.encode()
    assert read_completion(response.body, 3) == replace(said, run=3), "the journal says the same"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("size", [None, 10**6, 7])
def test_what_can_be_read_is_read_and_booked(case: Case, size: int | None) -> None:
    """In one piece or as a stream, whichever of the two it is in truth."""

    def read() -> Response:
        return read_whole(case.body, 0.5) if size is None else read_response(streamed(case.body, size), 0.5)

    if case.text is None:
        with pytest.raises(MessageError) as raised:
            read()
        assert "yes" not in str(raised.value)
    else:
        check(case, read())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.startswith("stream")], ids=lambda c: c.name
)
def test_the_message_of_a_stream_is_json_for_any_reader(case: Case) -> None:
    if case.text is not None:
        assert json.loads(read_whole(case.body, 0.5).body)["type"] == "message"
