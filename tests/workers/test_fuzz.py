"""Any bytes from the other side: the connection ends, nothing is raised, and each request ends once."""

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.client.settings import EndpointSettings
from batchrun.exchange import Failure, Response
from batchrun.rows.observer import Observer
from batchrun.version import __version__
from batchrun.workers import frames
from batchrun.workers.access import Token
from batchrun.workers.link import Link
from batchrun.workers.pool import Pool
from batchrun.workers.worker import CoordinatorLink

SECRET = "the run's secret"
SETTINGS = EndpointSettings("http://127.0.0.1:1", "sk-test-key", max_answer_bytes=1_000)
HELLO = frames.frame(frames.HELLO, frames.encode(frames.Hello(SECRET, __version__, "host", 1)))
READY = frames.frame(frames.READY)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
PAYLOADS = st.binary(max_size=60) | VALUES.map(msgspec.msgpack.encode)
FRAMES = st.tuples(st.integers(0, 31), PAYLOADS).map(lambda pair: frames.frame(*pair))
STREAMS = st.lists(FRAMES | st.binary(max_size=40), max_size=8)


class Wire:
    """A transport in memory."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.written = b""
        self.ended = False
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self._protocol.connection_lost(None)

    abort = close

    def get_extra_info(self, _name: str) -> Any:
        return ("127.0.0.1", 1)


def received(protocol: asyncio.Protocol, wire: Wire, pieces: list[bytes]) -> None:
    for piece in pieces:
        if wire.ended:
            return
        protocol.data_received(piece)


@settings(max_examples=100)
@given(STREAMS)
def test_a_stranger_learns_nothing_whatever_it_sends(pieces: list[bytes]) -> None:
    async def connect() -> None:
        pool = Pool(SETTINGS, Token(SECRET), Observer())
        link = Link(pool)
        wire = Wire(link)
        link.connection_made(wire)  # type: ignore[arg-type]
        received(link, wire, pieces)
        assert wire.written == b""
        assert not link.is_known
        pool.close()

    asyncio.run(connect())


@settings(max_examples=100)
@given(STREAMS)
def test_each_request_of_a_worker_ends_once_whatever_that_sends(pieces: list[bytes]) -> None:
    async def connect() -> list[Response | Failure | BaseException]:
        pool = Pool(SETTINGS, Token(SECRET), Observer())
        link = Link(pool)
        wire = Wire(link)
        link.connection_made(wire)  # type: ignore[arg-type]
        received(link, wire, [HELLO, READY])
        sending = [asyncio.ensure_future(pool.send(b"{}", lambda: None)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        received(link, wire, pieces)
        wire.close()
        pool.close()
        return await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), 5)

    outcomes = asyncio.run(connect())
    assert len(outcomes) == 3


@settings(max_examples=100)
@given(STREAMS)
def test_a_worker_ends_in_order_whatever_the_coordinator_sends(pieces: list[bytes]) -> None:
    async def connect() -> None:
        link = CoordinatorLink(Token(SECRET))
        wire = Wire(link)
        link.connection_made(wire)  # type: ignore[arg-type]
        welcome = frames.frame(frames.WELCOME, frames.encode(frames.Welcome(SETTINGS, 1.0)))
        received(link, wire, [welcome, *pieces])
        wire.close()
        await link.cut_off()
        assert link.ended.done()
        assert link.welcomed.done()

    asyncio.run(connect())


def test_a_long_frame_is_refused_by_its_length_alone() -> None:
    async def connect() -> int:
        pool = Pool(SETTINGS, Token(SECRET), Observer())
        link = Link(pool)
        wire = Wire(link)
        link.connection_made(wire)  # type: ignore[arg-type]
        received(link, wire, [HELLO, READY])
        length = pool.largest_frame + 1
        received(link, wire, [length.to_bytes(4, "little") + bytes([frames.RESPONSES])])
        assert wire.ended
        pool.close()
        return length

    assert asyncio.run(connect()) < 4 * 2**20
