"""The pool as a sender: requests reach workers, outcomes come back, each request ends once."""

import asyncio
import json
import os
import socket
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from batchrun.client import reqwest, transport
from batchrun.client.endpoint import Endpoint, EndpointSettings
from batchrun.errors import UsageError
from batchrun.exchange import BillingStatus, Failure, FailureAction, Response
from batchrun.version import __version__
from batchrun.workers import frames, link, pool, worker
from batchrun.workers.access import Token, new_token
from batchrun.workers.worker import Ending
from tests.endpoint.test_streaming import STREAM
from tests.endpoint.wire_server import MESSAGE, REQUEST, Connection, always, response, wire_server
from tests.workers.connected import Heard, a_door, pool_at, sent, until, worker_of

pytestmark = pytest.mark.anyio
FINE = always(response(MESSAGE))


@pytest.fixture(params=["direct", "proxy"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def silent(connection: Connection) -> None:
    """Takes a request and answers nothing."""
    await connection.read_request()
    await connection.wait_for_end()


async def test_a_worker_sends_with_the_settings_of_the_run_and_gives_the_response_back() -> None:
    door = a_door()
    async with wire_server(FINE) as server, pool_at(server.url, door) as senders, worker_of(door):
        await senders.ready()
        outcome = await senders.send(REQUEST)
    assert isinstance(outcome, Response)
    assert (outcome.body, outcome.completion.text) == (MESSAGE, "positive")
    assert b"authorization: Bearer sk-test-key" in server.requests[0]
    assert server.requests[0].endswith(REQUEST)


async def test_a_preset_s_headers_are_sent_over_either_transport(
    monkeypatch: pytest.MonkeyPatch, transport_name: str
) -> None:
    if transport_name == "proxy":
        without_proxy: Any = partial(_without_proxy, reqwest.ReqwestTransport)
        monkeypatch.setattr(transport, "proxy_for", lambda *_: "http://127.0.0.1:1")
        monkeypatch.setattr(reqwest, "ReqwestTransport", without_proxy)
    door = a_door()
    settings: dict[str, Any] = {"auth": "x-api-key", "headers": {"anthropic-version": "2023-06-01"}}
    async with wire_server(FINE) as server, pool_at(server.url, door, **settings) as senders, worker_of(door):
        await senders.ready()
        assert isinstance(await senders.send(REQUEST), Response)
    head = server.requests[0].lower()
    assert b"x-api-key: sk-test-key" in head
    assert b"anthropic-version: 2023-06-01" in head


def _without_proxy(made: Any, *arguments: Any) -> Any:
    return made(*arguments[:-1], None)


async def test_a_stream_comes_back_as_one_message() -> None:
    door = a_door()
    events = response(STREAM, b"content-type: text/event-stream\r\n")
    async with (
        wire_server(always(events)) as server,
        pool_at(server.url, door, stream=True) as senders,
        worker_of(door),
    ):
        await senders.ready()
        outcome = await senders.send(REQUEST)
    assert isinstance(outcome, Response)
    assert json.loads(outcome.body)["type"] == "message"
    assert outcome.first_token_latency is not None


async def test_many_requests_are_shared_between_the_workers() -> None:
    door, heard = a_door(), Heard()
    async with (
        wire_server(FINE) as server,
        pool_at(server.url, door, heard) as senders,
        worker_of(door),
        worker_of(door),
        worker_of(door),
    ):
        await until(lambda: heard.events == ["joined"] * 3)
        outcomes = await sent(senders, 300)
        shares = [each.ended for each in heard.workers]
    assert len({outcome.body for outcome in outcomes if isinstance(outcome, Response)}) == 1
    assert len(server.requests) == 300 == len(set(server.requests))
    assert min(shares) > 60


async def test_the_beginning_of_a_response_is_reported_where_it_is_wanted() -> None:
    door, begun = a_door(), asyncio.Event()

    async def slowly(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(MESSAGE))
        await asyncio.wait_for(begun.wait(), 5)
        await connection.write(MESSAGE)

    async with wire_server(slowly) as server, pool_at(server.url, door) as senders, worker_of(door):
        await senders.ready()
        assert isinstance(await senders.send(REQUEST, begun.set), Response)


async def test_without_a_worker_a_request_comes_back_as_never_sent() -> None:
    async with pool_at("http://127.0.0.1:1", a_door()) as senders:
        outcome = await senders.send(REQUEST)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.billing, outcome.action) == (
        "no_worker",
        BillingStatus.NO,
        FailureAction.RETRY,
    )


async def test_what_a_lost_worker_was_sending_has_an_unknown_fate() -> None:
    door, heard = a_door(), Heard()
    async with wire_server(silent) as server, pool_at(server.url, door, heard) as senders:
        async with worker_of(door) as lost:
            await senders.ready()
            sending = asyncio.create_task(sent(senders, 5))
            await until(lambda: len(server.requests) == 5)
            lost.link.abort()
            outcomes = await asyncio.wait_for(sending, 5)
        assert heard.events[0] == "joined"
        assert len(heard.events) == 2
    assert {(each.code, each.billing) for each in outcomes if isinstance(each, Failure)} == {
        ("worker_lost", BillingStatus.UNKNOWN)
    }


async def test_what_a_lost_worker_did_not_have_yet_was_never_sent() -> None:
    door = a_door()
    async with wire_server(silent) as server, pool_at(server.url, door) as senders, worker_of(door) as lost:
        await senders.ready()
        lost.transport.pause_reading()
        body = REQUEST[:-1] + b" " * 1_000_000 + b"}"
        sending = asyncio.gather(*(senders.send(body) for _ in range(60)))
        await asyncio.sleep(0.05)
        lost.link.abort()
        outcomes = await asyncio.wait_for(sending, 5)
    billing = [each.billing for each in outcomes if isinstance(each, Failure)]
    assert len(billing) == 60
    assert billing[0] is BillingStatus.UNKNOWN
    assert billing[-1] is BillingStatus.NO


async def test_a_worker_that_falls_silent_is_lost_and_its_requests_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(frames, "BEAT_SECONDS", 0.1)
    door, heard = a_door(), Heard()
    async with wire_server(silent) as server, pool_at(server.url, door, heard) as senders:
        async with worker_of(door) as frozen:
            await senders.ready()
            sending = asyncio.create_task(senders.send(REQUEST))
            await until(lambda: len(server.requests) == 1)
            frozen.fall_silent()
            outcome = await asyncio.wait_for(sending, 5)
        assert "silent" in heard.events[1]
    assert isinstance(outcome, Failure)
    assert outcome.billing is BillingStatus.UNKNOWN


async def test_a_process_that_was_stopped_itself_blames_nobody_and_reads_what_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(worker, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(worker, "is_loopback", lambda _: False)
    monkeypatch.setattr(frames, "BEAT_SECONDS", 0.25)
    door, heard = a_door(), Heard()
    async with wire_server(FINE) as server, pool_at(server.url, door, heard) as senders, worker_of(door):
        await senders.ready()
        monkeypatch.setattr(pool, "_OVERDUE_SECONDS", 0.5 - EndpointSettings("").timeout)
        sending = asyncio.create_task(senders.send(REQUEST))
        await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251 - this stops both sides
        assert isinstance(await sending, Response)
        await asyncio.sleep(0.3)
    assert heard.events == ["joined"]


@pytest.mark.parametrize(("here", "killed"), [(True, False), (True, True), (False, False)])
async def test_a_coordinator_is_given_up_for_its_silence_unless_it_is_on_this_machine(
    here: bool, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped by Ctrl-Z finds the responses of its own workers, however long that was."""
    monkeypatch.setattr(worker, "_SILENT_SECONDS", 0.15)
    monkeypatch.setattr(frames, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(worker, "is_loopback", lambda _: here)
    door = a_door()
    async with wire_server(FINE) as server, pool_at(server.url, door) as senders, worker_of(door) as waiting:
        await senders.ready()
        senders._timer.cancel()
        if killed:
            monkeypatch.setattr(os, "getppid", lambda: 1)
        if here and not killed:
            await asyncio.sleep(0.4)
            assert isinstance(await senders.send(REQUEST), Response)
        else:
            assert await asyncio.wait_for(waiting.task, 5) is Ending.LOST


async def test_a_request_that_comes_too_late_is_given_back_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SILENT_SECONDS", 0.05)
    door = a_door()
    async with wire_server(FINE) as server, pool_at(server.url, door) as senders, worker_of(door) as late:
        await senders.ready()
        late.transport.pause_reading()
        sending = asyncio.create_task(senders.send(REQUEST))
        await asyncio.sleep(0.1)
        late.transport.resume_reading()
        outcome = await asyncio.wait_for(sending, 5)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.billing) == ("late", BillingStatus.NO)
    assert server.requests == []


async def test_a_worker_stops_sending_at_once_when_the_coordinator_is_gone() -> None:
    door, heard, cut_off = a_door(), Heard(), asyncio.Event()

    async def until_cut_off(connection: Connection) -> None:
        await silent(connection)
        cut_off.set()

    async with (
        wire_server(until_cut_off) as server,
        pool_at(server.url, door, heard) as senders,
        worker_of(door) as left,
    ):
        await senders.ready()
        sending = asyncio.create_task(senders.send(REQUEST))
        await until(lambda: len(server.requests) == 1)
        heard.workers[0].abort("as a killed process does")
        assert await asyncio.wait_for(left.task, 5) is Ending.LOST
        await asyncio.wait_for(cut_off.wait(), 5)
        await sending


async def test_a_worker_hears_that_the_run_is_over() -> None:
    door = a_door()
    async with AsyncExitStack() as run:
        senders = await run.enter_async_context(pool_at("http://127.0.0.1:1", door))
        async with worker_of(door) as one:
            await senders.ready()
            await run.aclose()
            assert await asyncio.wait_for(one.task, 5) is Ending.OVER


async def test_a_worker_that_may_have_few_files_open_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "possible_concurrency", lambda *_: 49)
    said: list[str] = []
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door) as senders:
        sending = asyncio.create_task(worker.serve(door.address, door.token, warn=said.append))
        await senders.ready()
    assert await asyncio.wait_for(sending, 5) is Ending.OVER
    assert said == ["can send 49 requests at a time, by its limit of open files (`ulimit -n`)"]


async def test_a_leaving_worker_ends_what_it_has_and_gets_no_more() -> None:
    door, heard, go_on = a_door(), Heard(), asyncio.Event()

    async def when_told(connection: Connection) -> None:
        await connection.read_request()
        await go_on.wait()
        await connection.answer(MESSAGE)

    async with (
        wire_server(when_told) as server,
        pool_at(server.url, door, heard) as senders,
        worker_of(door) as one,
    ):
        await senders.ready()
        sending = asyncio.create_task(senders.send(REQUEST))
        await until(lambda: len(server.requests) == 1)
        one.link.leave()
        await until(lambda: bool(heard.workers[0].is_leaving))
        refused = await senders.send(REQUEST)
        go_on.set()
        assert isinstance(await sending, Response)
        assert await asyncio.wait_for(one.task, 5) is Ending.OVER
    assert isinstance(refused, Failure)
    assert refused.code == "no_worker"


async def test_a_fault_of_batchrun_in_a_worker_is_raised_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(Endpoint, "send", broken)
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door) as senders, worker_of(door):
        await senders.ready()
        with pytest.raises(link.WorkerFaultError, match="a mistake"):
            await senders.send(REQUEST)


# Strangers.


async def raw_connection(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Sends the pieces, and returns all that comes until the other side closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.writelines(pieces)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_wrong_token_gets_nothing_but_the_end_of_the_connection() -> None:
    door, heard = a_door(), Heard()
    async with pool_at("http://127.0.0.1:1", door, heard):
        hello = frames.frame(frames.HELLO, frames.encode(frames.Hello("wrong", __version__, "h", 1)))
        assert await raw_connection(door.address, hello) == b""
        async with worker_of(door, new_token()) as stranger:
            with pytest.raises(UsageError, match="the token is not that of its run"):
                await stranger.task
        assert heard.events == ["its token is wrong"] * 2


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        frames.frame(frames.READY),
        frames.frame(frames.RESPONSES, frames.encode([])),
        frames.frame(frames.HELLO, b"\xc1"),
        frames.frame(frames.HELLO, b"x" * 5_000),
    ],
)
async def test_a_connection_without_a_token_is_closed(first: bytes) -> None:
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door) as senders:
        assert await raw_connection(door.address, first) == b""
        assert isinstance(await senders.send(REQUEST), Failure)


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(pool, "_STRANGER_SECONDS", 0.1)
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door):
        assert await raw_connection(door.address) == b""


async def test_another_version_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "__version__", "0.0.1")
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door), worker_of(door) as older:
        with pytest.raises(UsageError, match=r"the worker has batchrun 0\.0\.1, the run"):
            await older.task


async def test_a_worker_that_breaks_a_rule_is_dropped_and_the_run_goes_on() -> None:
    door, heard = a_door(), Heard()
    async with wire_server(FINE) as server, pool_at(server.url, door, heard) as senders, worker_of(door):
        await senders.ready()
        hello = frames.Hello(door.token.secret, __version__, "h", 1)
        bad = frames.frame(frames.HELLO, frames.encode(hello)) + frames.frame(frames.READY)
        await raw_connection(door.address, bad + frames.frame(frames.RESPONSES, b"\x91\x01"))
        assert "can't be read" in heard.events[-1]
        assert isinstance(await senders.send(REQUEST), Response)


async def test_the_key_goes_to_those_with_the_token_alone() -> None:
    door = a_door()
    async with pool_at("http://127.0.0.1:1", door):
        reader, writer = await asyncio.open_connection(*door.address)
        await asyncio.sleep(0.05)
        assert reader._buffer == b""  # type: ignore[attr-defined]
        hello = frames.Hello(door.token.secret, __version__, "h", 1)
        writer.write(frames.frame(frames.HELLO, frames.encode(hello)))
        assert b"sk-test-key" in await reader.read(10_000)
        writer.close()


# TLS.


async def test_over_tls_a_worker_sends_once_the_certificate_is_the_run_s() -> None:
    pytest.importorskip("cryptography")
    door = a_door(tls=True)
    async with wire_server(FINE) as server, pool_at(server.url, door) as senders, worker_of(door):
        await senders.ready()
        assert isinstance(await senders.send(REQUEST), Response)


async def test_over_tls_the_token_goes_to_no_other_certificate() -> None:
    pytest.importorskip("cryptography")
    door, heard = a_door(tls=True), Heard()
    wrong = Token(door.token.secret, "0" * 64)
    async with pool_at("http://127.0.0.1:1", door, heard), worker_of(door, wrong) as fooled:
        with pytest.raises(UsageError, match="certificate is not the one of the token file"):
            await fooled.task
    assert "joined" not in heard.events


def test_the_token_is_not_in_the_text_of_what_holds_it() -> None:
    door = a_door()
    door.listener.close()
    assert door.token.secret not in repr(door)
    assert isinstance(door.listener, socket.socket)
