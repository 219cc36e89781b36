"""Lengths that a server states: true ones spare a call, wrong ones cost no answer and hide no refusal."""

from collections.abc import Callable

import pytest

from batchrun.exchange import BillingStatus, FailureAction

from .test_streaming import STREAM
from .wire_server import MESSAGE, Connection, Script, always, answer_from, failure_from, once

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]

EVENTS = b"content-type: text/event-stream\r\n"


def head(status: bytes, headers: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\n%b\r\n" % (status, headers)


def with_length(body: bytes, length: int, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return head(status, b"%bcontent-length: %d\r\n" % (headers, length)) + body


def then_silent(raw: bytes) -> Script:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(raw)
        await connection.wait_for_end()

    return script


@pytest.mark.parametrize("ending", [once, then_silent])
async def test_stream_that_is_shorter_than_its_length_counts_from_message_stop_on(
    ending: Callable[[bytes], Script],
) -> None:
    raw = with_length(STREAM, len(STREAM) + 10, EVENTS)
    answer = await answer_from(ending(raw), stream=True, timeout=5)
    assert answer.output_tokens
    assert answer.latency < 0.4


async def test_stream_of_known_length_is_read_as_it_comes() -> None:
    raw = with_length(STREAM, len(STREAM), EVENTS)
    failure = await failure_from(then_silent(raw[:-200]), stream=True, timeout=5, idle_timeout=0.2)
    assert failure.code == "idle_timeout"
    assert (await answer_from(always(raw), stream=True)).output_tokens


@pytest.mark.parametrize("length", [b"10", b"9" * 5_000, b"\xff", b"14, 14", b""])
async def test_length_that_chunks_override_means_nothing(length: bytes) -> None:
    headers = b"content-length: %b\r\ntransfer-encoding: chunked\r\n" % length
    raw = head(b"200 OK", headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(MESSAGE), MESSAGE)
    assert (await answer_from(always(raw))).body == MESSAGE


async def test_endless_chunks_beside_a_short_length_are_cut_at_the_bound() -> None:
    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(head(b"200 OK", b"content-length: 10\r\ntransfer-encoding: chunked\r\n"))
        while True:
            await connection.write(b"10000\r\n%b\r\n" % (b" " * 65_536))

    failure = await failure_from(endless, max_answer_bytes=2**20, timeout=20)
    assert failure.code == "answer_too_large"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", [once, then_silent])
async def test_refusal_that_is_shorter_than_its_length_is_taken_at_its_word(
    ending: Callable[[bytes], Script], stream: bool
) -> None:
    page = b'{"type":"error","error":{"type":"api_error","message":"try later"}}'
    raw = with_length(page, len(page) + 50, status=b"503 Service Unavailable")
    failure = await failure_from(ending(raw), timeout=1, stream=stream)
    assert (failure.action, failure.billing, failure.message) == (
        FailureAction.RETRY,
        BillingStatus.NO,
        "try later",
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_refusal_whose_page_never_ends_is_heeded_long_before_the_time_out(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("batchrun.client.endpoint._ERROR_SECONDS", 0.2)
    raw = with_length(b"slow", 500, b"retry-after: 7\r\n", b"429 Too Many Requests")
    failure = await failure_from(then_silent(raw), timeout=20, stream=stream)
    assert (failure.action, failure.retry_after) == (FailureAction.SLOW_DOWN, 7)
    assert failure.latency < 2


async def test_whole_answer_is_one_however_long_its_length_says_that_it_is() -> None:
    assert (await answer_from(once(with_length(MESSAGE, len(MESSAGE) + 50)))).body == MESSAGE


async def test_whole_answer_without_its_last_chunk_is_one() -> None:
    chunks = head(b"200 OK", b"transfer-encoding: chunked\r\n") + b"%x\r\n%b\r\n" % (len(MESSAGE), MESSAGE)
    assert (await answer_from(once(chunks))).body == MESSAGE
