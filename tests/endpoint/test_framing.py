"""Wrong framing, odd compression, other content types: a whole message is one, whatever it says."""

import asyncio
import gzip
import zlib

import pytest

from batchrun.client import connection as connection_module
from batchrun.client.decompress import Unpacker

from .test_streaming import STREAM
from .wire_server import MESSAGE, Connection, always, answer_from, failure_from, once, response

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("GZIP", gzip.compress(MESSAGE, mtime=0)),
        ("x-gzip", gzip.compress(MESSAGE, mtime=0)),
        ("gzip, gzip", gzip.compress(gzip.compress(MESSAGE, mtime=0))),
        ("gzip", gzip.compress(gzip.compress(MESSAGE, mtime=0))),
        ("gzip, identity", gzip.compress(MESSAGE, mtime=0)),
        ("deflate, gzip", gzip.compress(zlib.compress(MESSAGE))),
        ("deflate", zlib.compress(MESSAGE)[2:-4]),
        ("deflate", MESSAGE),
        ("gzip", MESSAGE),
        ("gzip", gzip.compress(MESSAGE[:100]) + gzip.compress(MESSAGE[100:])),
        ("gzip", gzip.compress(MESSAGE, mtime=0) + b"\0\0"),
        ("utf-8", MESSAGE),
        ("identity", gzip.compress(MESSAGE, mtime=0)),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
async def test_compression_is_undone_whatever_it_is_called(coding: str, body: bytes, size: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        head, _, _ = response(body, b"content-encoding: %b\r\n" % coding.encode()).partition(b"\r\n\r\n")
        await connection.write(head + b"\r\n\r\n")
        for start in range(0, len(body), size):
            await connection.write(body[start : start + size])
        await connection.wait_for_end()

    assert (await answer_from(script)).body == MESSAGE


def test_compressed_bomb_is_unpacked_piece_by_piece() -> None:
    """So that whoever takes the pieces can stop: 20 MB, and 20 kB on the way to them, twice packed."""
    bomb = gzip.compress(gzip.compress(b" " * 20_000_000))
    pieces = Unpacker([b"gzip, gzip"]).feed(bomb)
    assert [len(next(pieces)) <= 65_536 for _ in range(10)] == [True] * 10


@pytest.mark.parametrize("before", [b"\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n\r\n\r\n"])
async def test_blank_lines_before_a_head_that_needs_repair_are_left_out(before: bytes) -> None:
    raw = before + response(MESSAGE, b"a line without a colon\r\n")
    assert (await answer_from(once(raw))).body == MESSAGE


async def test_gzip_without_its_end_is_whole_where_the_json_is() -> None:
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(MESSAGE) + packer.flush(zlib.Z_SYNC_FLUSH)
    raw = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9999\r\n\r\n" + body
    assert (await answer_from(once(raw))).body == MESSAGE


@pytest.mark.parametrize("stated", [len(MESSAGE) + 50, len(MESSAGE) - 9])
async def test_wrong_length_on_a_kept_connection_delays_no_whole_answer(
    stated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "QUIET_SECONDS", 0.1)
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (stated, MESSAGE)
    answer = await answer_from(always(raw))
    assert (answer.body, answer.latency < 2) == (MESSAGE, True)


async def test_silence_after_a_brace_is_not_yet_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "QUIET_SECONDS", 0.01)
    cut = MESSAGE.index(b"}") + 1

    async def pause(connection: Connection) -> None:
        await connection.read_request()
        raw = response(MESSAGE)
        await connection.write(raw[: -len(MESSAGE) + cut])
        await asyncio.sleep(0.15)
        await connection.write(raw[-len(MESSAGE) + cut :])
        await connection.wait_for_end()

    assert (await answer_from(pause)).body == MESSAGE


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 14, 14\r\nnot a header\r\n",
        b"content-length: %d\r\ncontent-length: %d\r\n" % (len(MESSAGE), len(MESSAGE)),
        b"x y: z\r\ncontent-length: %d\r\n" % len(MESSAGE),
        b"content-length: +%d\r\n" % len(MESSAGE),
        b"transfer-encoding: identity\r\ncontent-length: %d\r\n" % len(MESSAGE),
        b": nameless\r\n",
    ],
)
async def test_odd_lines_of_a_head_cost_no_answer(lines: bytes) -> None:
    answer = await answer_from(once(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, MESSAGE)), timeout=5)
    assert answer.body == MESSAGE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("declared", [b"text/event-stream", b"application/json", b"text/plain"])
@pytest.mark.parametrize("body", [STREAM, MESSAGE])
async def test_body_is_read_as_what_it_is(stream: bool, declared: bytes, body: bytes) -> None:
    raw = response(body, b"content-type: %b\r\n" % declared)
    assert (await answer_from(always(raw), stream=stream)).output_tokens == 32


async def test_body_with_more_framing_than_content_is_given_up() -> None:
    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;")
        while True:
            await connection.write(b"x" * 65_536)

    failure = await failure_from(endless, timeout=20)
    assert failure.code == "connection_lost"
