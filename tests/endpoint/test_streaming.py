"""Streams over the wire: time-outs, first tokens, and what a stream must be to count as an answer."""

import gzip
import json

import anyio
import pytest

from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.exchange import BillingStatus, Failure, FailureAction, Response

from .wire_server import (
    MESSAGE,
    REQUEST,
    Connection,
    always,
    answer_from,
    failure_from,
    response,
    wire_server,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]


def event(name: str, **fields: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "abliterated-model",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 14, "output_tokens": 1},
    },
)
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
DELTAS = [
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    for text in ("pos", "itive 🙂")
]
END = (
    event("content_block_stop", index=0)
    + event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 32},
        estimated_cost_usd=0.00023,
        remaining_credits=487,
        estimated_credits_used=1,
    )
    + event("message_stop")
)
STREAM = START + event("ping") + BLOCK + b"".join(DELTAS) + END
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streams(*pieces: bytes, pause: float = 0.0, last: bytes = LAST_CHUNK) -> object:
    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.write(HEAD)
            for piece in pieces:
                await connection.write(chunk(piece))
                await anyio.sleep(pause)
            await connection.write(last)

    return script


async def streamed_answer(*pieces: bytes, pause: float = 0.0, **settings: object) -> Response:
    return await answer_from(streams(*pieces, pause=pause), stream=True, **settings)  # type: ignore[arg-type]


async def streamed_failure(*pieces: bytes, pause: float = 0.0, **settings: object) -> Failure:
    return await failure_from(streams(*pieces, pause=pause), stream=True, **settings)  # type: ignore[arg-type]


async def test_streamed_answer_is_one_message_with_the_last_usage_and_the_cost() -> None:
    answer = await streamed_answer(STREAM)
    message = json.loads(answer.body)
    assert message["content"] == [{"type": "text", "text": "positive 🙂"}]
    assert (message["type"], message["id"], message["stop_reason"]) == ("message", "msg_1", "end_turn")
    assert (answer.input_tokens, answer.output_tokens, answer.cost_nano_usd) == (14, 32, 230_000)
    assert (answer.credits_used, answer.remaining_credits) == (1, 487)


async def test_stream_in_pieces_of_one_byte_is_the_same_answer() -> None:
    pieces = [STREAM[i : i + 1] for i in range(len(STREAM))]
    assert (await streamed_answer(*pieces)).body == (await streamed_answer(STREAM)).body


async def test_first_token_is_timed_apart_from_the_whole() -> None:
    answer = await streamed_answer(START + BLOCK, DELTAS[0], DELTAS[1] + END, pause=0.15)
    assert answer.first_token_latency is not None
    assert 0.14 < answer.first_token_latency < answer.latency - 0.1


async def test_silence_within_a_stream_times_out() -> None:
    failure = await streamed_failure(START, BLOCK + DELTAS[0], pause=5, idle_timeout=0.2, timeout=10)
    assert (failure.code, failure.billing, failure.action) == (
        "idle_timeout",
        BillingStatus.UNKNOWN,
        FailureAction.RETRY,
    )
    assert failure.latency < 2
    assert "endpoint.idle_timeout_seconds = 0.2" in failure.message


async def test_pings_keep_a_stream_alive_longer_than_the_idle_time_out() -> None:
    pieces = [START, *[event("ping")] * 5, BLOCK + b"".join(DELTAS) + END]
    answer = await streamed_answer(*pieces, pause=0.1, idle_timeout=0.3)
    assert answer.latency > 0.5


async def test_pings_do_not_keep_a_stream_alive_longer_than_the_whole_time_out() -> None:
    failure = await streamed_failure(START, *[event("ping")] * 50, pause=0.1, idle_timeout=0.3, timeout=0.5)
    assert failure.code == "timeout"
    assert failure.latency < 2


async def test_first_event_may_take_longer_than_the_idle_time_out() -> None:
    async def think(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(HEAD)
        await anyio.sleep(0.4)
        await connection.write(chunk(STREAM) + LAST_CHUNK)

    assert (await answer_from(think, stream=True, idle_timeout=0.1)).output_tokens == 32


@pytest.mark.parametrize(
    "events", [b"", START, START + BLOCK + DELTAS[0], STREAM[: STREAM.rindex(b"event: message_delta")]]
)
async def test_stream_without_its_stop_reason_is_never_an_answer(events: bytes) -> None:
    failure = await streamed_failure(events or b": hello\n\n")
    assert (failure.code, failure.billing, failure.action) == (
        "stream_ended_early",
        BillingStatus.UNKNOWN,
        FailureAction.RETRY,
    )


@pytest.mark.parametrize("left", [1, 5, len(event("message_stop")), len(event("message_stop")) + 1])
async def test_stream_that_has_given_its_stop_reason_is_whole(left: int) -> None:
    assert (await streamed_answer(STREAM[:-left])).output_tokens == 32


async def test_connection_lost_after_the_stop_reason_changes_nothing() -> None:
    async def lose(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(HEAD + chunk(STREAM[: -len(event("message_stop"))]))

    assert (await answer_from(lose, stream=True)).output_tokens == 32


async def test_connection_lost_in_a_stream_is_never_an_answer() -> None:
    async def lose(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(HEAD + chunk(START + BLOCK + DELTAS[0]))

    failure = await failure_from(lose, stream=True)
    assert (failure.code, failure.billing) == ("connection_lost", BillingStatus.UNKNOWN)


async def test_error_event_carries_the_servers_words() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded, sk-test-key"})
    failure = await streamed_failure(START + BLOCK + DELTAS[0] + error)
    assert (failure.code, failure.message) == ("overloaded_error", "Overloaded, [key]")
    assert (failure.billing, failure.action) == (BillingStatus.UNKNOWN, FailureAction.RETRY)


async def test_plain_message_where_a_stream_was_asked_for_is_taken() -> None:
    answer = await answer_from(always(response(MESSAGE, b"content-type: application/json\r\n")), stream=True)
    assert answer.body == MESSAGE


async def test_stream_beyond_the_bound_is_given_up() -> None:
    failure = await streamed_failure(START + BLOCK, *DELTAS * 100, max_answer_bytes=2000)
    assert (failure.code, failure.action) == ("answer_too_large", FailureAction.FAIL_ROW)


@pytest.mark.parametrize("last", [LAST_CHUNK, b""], ids=["ended", "left open"])
async def test_answer_counts_from_message_stop_on(last: bytes) -> None:
    """A server that never ends its stream delays nothing that is measured, and loses no answer."""
    script = streams(STREAM, last=last)
    answer = await answer_from(script, stream=True, timeout=5)  # type: ignore[arg-type]
    assert answer.latency < 0.4


async def test_connection_is_kept_after_a_stream() -> None:
    """Also where the stream's end comes after message_stop, in a packet of its own."""
    async with (
        wire_server(streams(STREAM, pause=0.02)) as server,  # type: ignore[arg-type]
        open_endpoint(EndpointSettings(server.url, stream=True)) as endpoint,
    ):
        for _ in range(5):
            assert isinstance(await endpoint.send(REQUEST), Response)
        assert server.connections == 1


async def test_compressed_stream_is_decoded() -> None:
    headers = b"content-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
    answer = await answer_from(always(response(gzip.compress(STREAM, mtime=0), headers)), stream=True)
    assert answer.output_tokens == 32


async def test_answer_that_is_whole_outlives_a_cancellation() -> None:
    """The message is whole, its stream still open, and the run is stopped: the answer is kept."""
    outcome: Response | Failure | None = None
    async with (
        wire_server(streams(STREAM, last=b"")) as server,  # type: ignore[arg-type]
        open_endpoint(EndpointSettings(server.url, stream=True)) as endpoint,
    ):
        with anyio.move_on_after(0.3):
            outcome = await endpoint.send(REQUEST)
    assert isinstance(outcome, Response)


async def test_a_sender_hears_that_a_response_begins_before_it_ends() -> None:
    begins = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        whole = response(STREAM, b"content-type: text/event-stream\r\n")
        head = whole.index(b"\r\n\r\n") + 4
        await connection.write(whole[:head])
        await begins.wait()
        await connection.write(whole[head:])

    async with (
        wire_server(script) as server,
        open_endpoint(EndpointSettings(server.url, stream=True)) as endpoint,
    ):
        with anyio.fail_after(5):
            assert isinstance(await endpoint.send(REQUEST, begins.set), Response)


async def test_a_refusal_does_not_begin_a_response() -> None:
    begun: list[bool] = []
    async with (
        wire_server(always(response(b"{}", status=b"503 Busy"))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        assert isinstance(await endpoint.send(REQUEST, lambda: begun.append(True)), Failure)
    assert not begun
