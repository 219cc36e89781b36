"""Never sent, or sent and lost? Each way to lose a request, done by a real server."""

import asyncio
import gzip
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.exchange import BillingStatus, Failure, FailureAction, Response

from .certificates import self_signed
from .wire_server import (
    MESSAGE,
    REQUEST,
    Connection,
    always,
    failure_from,
    once,
    response,
    send_once,
    wire_server,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel leaves further ones without an answer."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def failure_at(url: str, **settings: float) -> Failure:
    outcome = await send_once(EndpointSettings(url, "sk-test-key", **settings))  # type: ignore[arg-type]
    assert isinstance(outcome, Failure)
    return outcome


async def test_refused_connection_was_never_sent(closed_port: int) -> None:
    failure = await failure_at(f"http://127.0.0.1:{closed_port}")
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.NO,
        FailureAction.RETRY,
        "connect_failed",
    )
    assert "127.0.0.1" in failure.message
    assert "refused" in failure.message


async def test_unknown_host_was_never_sent() -> None:
    # A label of more than 63 characters is no name: the resolver refuses it without asking anyone.
    failure = await failure_at(f"http://{'x' * 64}.invalid")
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.NO,
        FailureAction.RETRY,
        "connect_failed",
    )


async def test_connection_that_is_never_accepted_was_never_sent(full_port: int) -> None:
    failure = await failure_at(f"http://127.0.0.1:{full_port}", timeout=0.4)
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.NO,
        FailureAction.RETRY,
        "connect_timeout",
    )


async def test_self_signed_certificate_stops_the_run_unsent(tmp_path: Path) -> None:
    tls, _ = self_signed(tmp_path)
    async with wire_server(always(response(MESSAGE)), tls) as server:
        failure = await failure_at(server.url)
        assert server.requests == []
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.NO,
        FailureAction.STOP_RUN,
        "untrusted_certificate",
    )


async def reset_unread(connection: Connection) -> None:
    await asyncio.sleep(0.05)  # by then the request is in the kernel's hands
    connection.reset()


async def reset_after_reading(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def close_after_reading(connection: Connection) -> None:
    await connection.read_request()
    connection.close()


async def never_answer(connection: Connection) -> None:
    await connection.read_request()
    await connection.wait_for_end()


async def stop_in_the_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + MESSAGE[:100])
    await connection.wait_for_end()


CUT = MESSAGE[:-1]
CUT_BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n" + CUT
CUT_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(CUT), CUT)
BAD_GZIP = response(gzip.compress(MESSAGE, mtime=0)[:10] + b"\xff" * 200, b"content-encoding: gzip\r\n")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(reset_unread, id="reset before the server read"),
        pytest.param(reset_after_reading, id="reset after the server read"),
        pytest.param(close_after_reading, id="closed without an answer"),
        pytest.param(once(CUT_BODY), id="cut body, shorter than its content-length"),
        pytest.param(once(CUT_CHUNKS), id="cut body, chunked, without its last chunk"),
        pytest.param(once(BAD_GZIP), id="damaged gzip"),
        pytest.param(once(b"SSH-2.0-OpenSSH_9.9\r\n"), id="not HTTP at all"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 700_000 + b"\r\n\r\n"), id="endless headers"),
    ],
)
async def test_request_without_a_whole_answer_may_have_been_billed(script: object) -> None:
    failure = await failure_from(script)  # type: ignore[arg-type]
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.UNKNOWN,
        FailureAction.RETRY,
        "connection_lost",
    )


@pytest.mark.parametrize("script", [never_answer, stop_in_the_body])
@pytest.mark.parametrize("stream", [False, True])
async def test_time_out_after_sending_may_have_been_billed(script: object, stream: bool) -> None:
    failure = await failure_from(script, timeout=0.3, stream=stream)  # type: ignore[arg-type]
    assert (failure.billing, failure.action, failure.code) == (
        BillingStatus.UNKNOWN,
        FailureAction.RETRY,
        "timeout",
    )
    assert "endpoint.timeout_seconds = 0.3" in failure.message
    assert 0.25 < failure.latency < 2.0


async def test_connection_closed_between_requests_costs_no_attempt() -> None:
    """An idle connection that the server closed is not used again, and nothing is sent twice."""

    async def close_after_one(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(MESSAGE)
        connection.close()

    async with (
        wire_server(close_after_one) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        for _ in range(5):
            assert isinstance(await endpoint.send(REQUEST), Response)
            await asyncio.sleep(0.02)
        assert (server.connections, len(server.requests)) == (5, 5)


async def test_request_lost_on_a_kept_connection_is_not_repeated_in_secret() -> None:
    """The server reads a second request and drops it: one failure, and two requests at the server."""

    async def drop_the_second(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(MESSAGE)
        await connection.read_request()

    async with (
        wire_server(drop_the_second) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        assert isinstance(await endpoint.send(REQUEST), Response)
        failure = await endpoint.send(REQUEST)
        assert isinstance(failure, Failure)
        assert failure.billing is BillingStatus.UNKNOWN
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_connections_are_kept_between_requests() -> None:
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        for _ in range(20):
            assert isinstance(await endpoint.send(REQUEST), Response)
        assert server.connections == 1
