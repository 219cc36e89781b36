"""The event loop's own sockets: connections kept and dropped, TLS, wrong framing, answers of others."""

import asyncio
import json
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from batchrun.client import connection as connection_module
from batchrun.client import direct
from batchrun.client.endpoint import Endpoint, EndpointSettings, open_endpoint
from batchrun.errors import JobError
from batchrun.exchange import BillingStatus, Failure, FailureAction, Response

from .certificates import self_signed
from .test_streaming import STREAM
from .wire_server import (
    MESSAGE,
    REQUEST,
    Connection,
    always,
    answer_from,
    failure_from,
    once,
    response,
    send_once,
    wire_server,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


def with_id(number: int) -> bytes:
    return MESSAGE.replace(b"msg_1", b"msg_%d" % number)


def text_of(outcome: Response | Failure) -> object:
    assert isinstance(outcome, Response), outcome
    return json.loads(outcome.body)["id"]


async def send_all(endpoint: Endpoint, count: int) -> list[Response | Failure]:
    return [await endpoint.send(REQUEST.replace(b"hello", b"hello %d" % i)) for i in range(count)]


# Connections


async def test_unrequested_answer_on_an_idle_connection_closes_it() -> None:
    async def answer_twice(connection: Connection) -> None:
        request = await connection.read_request()
        number = int(request.partition(b"hello ")[2].partition(b'"')[0])
        await connection.answer(with_id(number))
        await asyncio.sleep(0.01)
        await connection.answer(with_id(number))
        await connection.wait_for_end()

    async with (
        wire_server(answer_twice) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        for number in range(4):
            outcome = await endpoint.send(REQUEST.replace(b"hello", b"hello %d" % number))
            assert text_of(outcome) == f"msg_{number}"
            await asyncio.sleep(0.03)
        assert server.connections == 4


async def test_unrequested_answer_right_behind_another_closes_the_connection() -> None:
    async with (
        wire_server(always(response(MESSAGE) * 2)) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        assert all(isinstance(outcome, Response) for outcome in await send_all(endpoint, 3))
        assert server.connections == 3


async def test_server_that_answers_twice_gets_one_request_a_connection() -> None:
    """Once it is known for it: the second answer might come when the connection has the next request."""

    async def answer_twice(connection: Connection) -> None:
        for number in range(100):
            await connection.read_request()
            await connection.answer(MESSAGE)
            if not number:
                await asyncio.sleep(0.01)
                await connection.answer(MESSAGE)

    async with wire_server(answer_twice) as server, open_endpoint(EndpointSettings(server.url)) as endpoint:
        await endpoint.send(REQUEST)
        await asyncio.sleep(0.03)
        for number in range(2, 6):
            await endpoint.send(REQUEST)
            assert server.connections == number


@pytest.mark.parametrize("size", [10, 150_000])
async def test_what_came_during_a_pause_of_the_process_is_read_before_time_is_up(size: int) -> None:
    """As with SIGSTOP, or a laptop's lid: the deadline has passed when the loop runs again."""
    message = MESSAGE.replace(b"msg_1", b"msg_" + b"1" * size)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as accepted:
                accepted.recv(65_536)
                time.sleep(0.1)
                accepted.sendall(response(message))

        server = threading.Thread(target=answer)
        server.start()
        settings = EndpointSettings(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3)
        async with open_endpoint(settings) as endpoint:
            asyncio.get_running_loop().call_later(0.05, time.sleep, 0.5)
            outcome = await endpoint.send(REQUEST)
        server.join()
    assert isinstance(outcome, Response), outcome


async def test_answer_that_came_before_the_request_is_seen_in_the_kernel() -> None:
    """It is not read by the loop yet: the connection is looked at when it is about to be used."""
    second = asyncio.Event()

    async def answer_twice(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(with_id(1))
        await second.wait()
        await connection.answer(with_id(1))
        await connection.wait_for_end()

    async with wire_server(answer_twice) as server, open_endpoint(EndpointSettings(server.url)) as endpoint:
        await endpoint.send(REQUEST)
        second.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.set()
        assert text_of(await endpoint.send(REQUEST + b" ")) == "msg_1"
        assert server.connections == 2


async def test_answer_to_the_request_before_is_never_accepted() -> None:
    """A second answer overtakes the next request: its id gives it away."""

    async def one_behind(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(with_id(1))
        await connection.read_request()
        await connection.answer(with_id(1))
        await connection.wait_for_end()

    async with wire_server(one_behind) as server, open_endpoint(EndpointSettings(server.url)) as endpoint:
        _, failure = await send_all(endpoint, 2)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.billing, failure.action) == (
            "misplaced_answer",
            BillingStatus.UNKNOWN,
            FailureAction.RETRY,
        )


async def test_server_that_gives_every_answer_the_same_id_is_not_held_to_it() -> None:
    async with wire_server(always(response(MESSAGE))) as server:
        async with open_endpoint(EndpointSettings(server.url)) as endpoint:
            outcomes = await send_all(endpoint, 20)
        assert [isinstance(outcome, Response) for outcome in outcomes] == [True, False] + [True] * 18


async def test_same_answer_to_the_same_request_is_one() -> None:
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        assert all([isinstance(await endpoint.send(REQUEST), Response) for _ in range(3)])


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_goodbye_to_an_idle_connection_fails_no_row(
    pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the request that met it; a refusal on a busy connection does."""
    monkeypatch.setattr(connection_module, "_IDLE_BEFORE_GOODBYE", 0.02)

    async def goodbye(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(MESSAGE)
        await connection.read_request()
        await connection.answer(b"idle", b"connection: close\r\n", b"400 Bad Request")

    async with wire_server(goodbye) as server, open_endpoint(EndpointSettings(server.url)) as endpoint:
        await endpoint.send(REQUEST)
        await asyncio.sleep(pause)
        failure = await endpoint.send(REQUEST)
    assert isinstance(failure, Failure)
    expected = (
        (FailureAction.RETRY, BillingStatus.UNKNOWN) if pause else (FailureAction.FAIL_ROW, BillingStatus.NO)
    )
    assert (failure.action, failure.billing) == expected


async def test_connection_idle_for_long_takes_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_LONGEST_IDLE", 0.02)
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        await endpoint.send(REQUEST)
        await asyncio.sleep(0.03)
        await endpoint.send(REQUEST)
        assert server.connections == 2


async def test_at_most_so_many_connections_are_kept() -> None:
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url, connections=2)) as endpoint,
    ):
        await asyncio.gather(*[endpoint.send(REQUEST) for _ in range(8)])
        await asyncio.gather(*[endpoint.send(REQUEST) for _ in range(8)])
        assert server.connections == 8 + 6


async def test_answer_before_its_request_was_sent_whole_is_not_accepted() -> None:
    async def answer_at_once(connection: Connection) -> None:
        await connection.read_head()
        await connection.answer(MESSAGE)
        await asyncio.sleep(5)

    failure = await failure_from(answer_at_once, body=b" " * 30_000_000, timeout=20)
    assert (failure.code, failure.billing) == ("connection_lost", BillingStatus.UNKNOWN)
    assert "before its request" in failure.message


async def test_connection_is_kept_after_a_request_that_took_a_while_to_send() -> None:
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
    ):
        for _ in range(3):
            outcome = await endpoint.send(b" " * 12_000_000)
            assert isinstance(outcome, Response)
        assert server.connections == 1
        assert {len(request) for request in server.requests} == {len(server.requests[0])}


async def test_refusal_before_the_request_was_sent_whole_counts() -> None:
    async def refuse_at_once(connection: Connection) -> None:
        await connection.read_head()
        await connection.answer(b"{}", status=b"413 Payload Too Large")
        await asyncio.sleep(5)

    failure = await failure_from(refuse_at_once, body=b" " * 30_000_000, timeout=20)
    assert (failure.status, failure.billing) == (413, BillingStatus.NO)


async def test_ipv6_address() -> None:
    try:
        listener = await asyncio.start_server(_answer_and_close, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert isinstance(await send_once(EndpointSettings(f"http://[::1]:{port}")), Response)


async def _answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(response(MESSAGE))
    writer.close()


def test_addresses_of_both_families_take_turns() -> None:
    v4, v6 = socket.AF_INET, socket.AF_INET6
    assert direct._in_turns([(v6, 1), (v6, 2), (v4, 3), (v4, 4)]) == [(v6, 1), (v4, 3), (v6, 2), (v4, 4)]
    assert direct._in_turns([(v4, 1), (v4, 2), (v6, 3)]) == [(v4, 1), (v6, 3), (v4, 2)]


async def test_dead_address_costs_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address never answers: the next one gets its turn after a quarter of a second."""
    with socket.socket() as listener, socket.socket() as waiting, socket.socket() as more:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filling in (waiting, more):
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        async with wire_server(always(response(MESSAGE))) as server:

            def both(_addresses: object) -> list[object]:
                ports = [listener.getsockname()[1], int(server.url.rpartition(":")[2])]
                return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]

            monkeypatch.setattr(direct, "_in_turns", both)
            outcome = await send_once(EndpointSettings("http://127.0.0.1:1", timeout=10))
    assert isinstance(outcome, Response)
    assert outcome.latency < 2


# TLS


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


@pytest.mark.parametrize("stream", [False, True])
async def test_tls_carries_requests_and_answers(trusted: ssl.SSLContext, stream: bool) -> None:
    raw = response(STREAM, b"content-type: text/event-stream\r\n") if stream else response(MESSAGE)
    async with (
        wire_server(always(raw), trusted) as server,
        open_endpoint(EndpointSettings(server.url, "k", stream=stream)) as endpoint,
    ):
        for _ in range(3):
            assert isinstance(await endpoint.send(REQUEST), Response)
        assert server.connections == 1


async def test_tls_carries_bodies_of_many_records(trusted: ssl.SSLContext) -> None:
    answer = MESSAGE.replace(b"positive", b"positive " * 300_000)
    async with wire_server(always(response(answer)), trusted) as server:
        outcome = await send_once(EndpointSettings(server.url), b'"' + b"x" * 3_000_000 + b'"')
        assert server.requests[0].endswith(b'x"')
    assert isinstance(outcome, Response)
    assert outcome.body == answer


async def test_tls_that_is_cut_off_loses_no_whole_answer(trusted: ssl.SSLContext) -> None:
    async def cut(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\n\r\n" + MESSAGE)
        await asyncio.sleep(0.05)
        connection.reset()

    async with wire_server(cut, trusted) as server:
        assert isinstance(await send_once(EndpointSettings(server.url)), Response)


async def test_certificate_for_another_name_stops_the_run(trusted: ssl.SSLContext) -> None:
    async with wire_server(always(response(MESSAGE)), trusted) as server:
        outcome = await send_once(EndpointSettings(server.url.replace("127.0.0.1", "localhost")))
        assert server.requests == []
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.action) == ("untrusted_certificate", FailureAction.STOP_RUN)


async def test_plain_http_at_an_https_address_stops_the_run_with_a_hint() -> None:
    async def refuse(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.wait_for_end()

    async with wire_server(refuse) as server:
        outcome = await send_once(EndpointSettings(server.url.replace("http:", "https:")))
    assert isinstance(outcome, Failure)
    assert (outcome.action, outcome.billing) == (FailureAction.STOP_RUN, BillingStatus.NO)
    assert "http://" in outcome.message


async def test_alert_of_tls_at_an_http_address_stops_the_run_with_a_hint() -> None:
    failure = await failure_from(once(b"\x15\x03\x01\x00\x02\x02\x46"))
    assert (failure.action, failure.billing) == (FailureAction.STOP_RUN, BillingStatus.NO)
    assert "https://" in failure.message


@pytest.mark.parametrize(
    "page",
    [
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title>",
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
    ],
)
async def test_refusal_of_plain_http_stops_the_run_with_a_hint(page: bytes) -> None:
    failure = await failure_from(always(response(page, status=b"400 Bad Request")))
    assert (failure.action, failure.billing) == (FailureAction.STOP_RUN, BillingStatus.NO)
    assert "https://" in failure.message


async def test_server_that_hangs_up_on_plain_http_is_found_to_expect_tls(tmp_path: Path) -> None:
    tls, _ = self_signed(tmp_path)
    async with wire_server(always(response(MESSAGE)), tls) as server:
        outcome = await send_once(EndpointSettings(server.url.replace("https:", "http:"), "sk-test-key"))
        assert server.requests == []
    assert isinstance(outcome, Failure)
    assert (outcome.action, outcome.billing) == (FailureAction.STOP_RUN, BillingStatus.UNKNOWN)
    assert "https://" in outcome.message


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_without_a_ca_certificate_https_is_the_users_error(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(JobError, match="SSL_CERT_FILE"):
        async with open_endpoint(EndpointSettings("https://model.invalid")):
            pass
    assert isinstance(await answer_from(always(response(MESSAGE))), Response)
