"""Responses that are cut, damaged, repeated and framed at random, given to a connection without sockets.

A case is known by its number: `check_case(number)` raises AssertionError, or whatever went wrong, again.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from random import Random

from batchrun.client.connection import Connection
from batchrun.client.response_reader import AnswerIds, ResponseReader
from batchrun.client.settings import EndpointSettings
from batchrun.client.wire import Timeouts
from batchrun.exchange import BillingStatus, Failure, Response

TEXT = "A text that is whole, to its very last word: " + '{ } \\ " é 🙂 0\r\n\r\n' + "end"
STARTED = 100.0
NEVER = 1e9


def message(number: int) -> bytes:
    fields = {
        "id": f"msg_{number}",
        "type": "message",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 14, "output_tokens": 32},
    }
    return json.dumps(fields, ensure_ascii=number % 2 == 0).encode()


def events(number: int) -> bytes:
    start = {"type": "message", "id": f"msg_{number}", "content": [], "usage": {"input_tokens": 14}}
    whole: list[dict[str, object]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in (TEXT[:20], TEXT[20:])
        ],
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 32}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in whole)


class SilentTransport(asyncio.Transport):
    """Keeps the records, and never calls back."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def write(self, data: object) -> None:
        assert not self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


class Pool:
    """One connection at a time, and a clock that stands still."""

    timeouts = Timeouts(whole=50.0, idle=20.0)

    def __init__(self) -> None:
        self.is_free = False
        self.watched: dict[Connection, float] = {}

    def watch(self, connection: Connection, deadline: float) -> None:
        self.watched[connection] = deadline

    def unwatch(self, connection: Connection) -> None:
        self.watched.pop(connection, None)

    def released(self, connection: Connection) -> None:
        assert not connection.closed
        self.is_free = True

    def distrust(self) -> None:
        pass

    def lost(self, connection: Connection) -> None:
        assert connection.closed


def check_case(number: int) -> None:
    """Let one case happen. Must be called while an asyncio loop runs; takes a fraction of a millisecond."""
    draw = Random(number)
    draw.choice((_check_cut, _check_cut, _check_damaged, _check_conversation))(draw)


def _check_cut(draw: Random) -> None:
    """A whole answer is accepted whole, however it was framed; less than that never is."""
    raw = _framed(draw, draw.choice((message, events))(1))
    delivered = raw[: draw.choice((len(raw), draw.randrange(len(raw) + 1)))]
    outcome = _exchange(draw, delivered)
    if isinstance(outcome, Response):
        assert outcome.completion.text == TEXT, outcome
        assert outcome.completion.response_id == "msg_1"
    else:
        assert delivered != raw, outcome
        assert outcome.billing is BillingStatus.UNKNOWN, outcome


def _check_damaged(draw: Random) -> None:
    """Whatever comes, the exchange ends as a value, and an answer is one."""
    raw = bytearray(_framed(draw, draw.choice((message, events))(1)))
    for _ in range(draw.randint(1, 8)):
        start = draw.randrange(len(raw) + 1)
        end = min(len(raw), start + draw.choice((0, 1, 1, 2, 40)))
        raw[start:end] = draw.choice((b"", draw.randbytes(end - start), draw.randbytes(3), bytes(raw[:30])))
    outcome = _exchange(draw, bytes(raw))
    if isinstance(outcome, Response):
        assert outcome.body


def _check_conversation(draw: Random) -> None:
    """Each request gets its own answer or none, though the server answers twice at times."""
    pool, ids = Pool(), AnswerIds()
    used, leftover = connection(pool), b""
    for number in range(1, 6):
        if leftover and draw.random() < 0.5:
            _deliver(draw, used, leftover)
            assert used.closed
        if used.closed or not pool.is_free:
            used, leftover = connection(pool), b""
        copies = answer(number) * draw.choice((0, 0, 1))
        outcome = _send(draw, used, pool, ids, number, leftover + answer(number) + copies)
        if isinstance(outcome, Response):
            assert outcome.completion.response_id == f"msg_{number}", outcome
        leftover = answer(number) if not copies and draw.random() < 0.5 else b""


def _exchange(draw: Random, raw: bytes) -> Response | Failure:
    pool = Pool()
    return _send(draw, connection(pool), pool, AnswerIds(), 1, raw, draw.choice(_ENDINGS))


def connection(pool: Pool) -> Connection:
    made = Connection(pool, None)
    made.connection_made(SilentTransport())
    return made


def _send(
    draw: Random,
    used: Connection,
    pool: Pool,
    ids: AnswerIds,
    number: int,
    raw: bytes,
    ending: str = "eof",
) -> Response | Failure:
    pool.is_free = False
    reader, ended = sent(used, number, ids, stream=draw.random() < 0.5)
    _deliver(draw, used, raw)
    if reader.outcome is None:
        _end(used, ending)
    assert reader.outcome is not None
    if not ended.done():  # the rest of a body is awaited
        used.expire(NEVER)
    assert ended.done()
    assert ended.exception() is None
    return reader.outcome


def sent(
    connection: Connection, number: int, ids: AnswerIds | None = None, stream: bool = False
) -> tuple[ResponseReader, "asyncio.Future[None]"]:
    """An exchange in flight: its receiver, and the future that is done at its end."""
    settings = EndpointSettings("http://model.test", "sk-test-key", stream=stream)
    body = b"request %d" % number
    reader = ResponseReader(settings, ids or AnswerIds(), body)
    ended = connection.send(b"POST / HTTP/1.1\r\n\r\n", reader, STARTED)
    assert ended is not None
    return reader, ended


def answer(number: int) -> bytes:
    """A whole response."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(message(number)) + message(number)


def _deliver(draw: Random, connection: Connection, raw: bytes) -> None:
    for piece in _pieces(draw, raw):
        connection.data_received(piece)


def _pieces(draw: Random, raw: bytes) -> Iterator[bytes]:
    most = draw.choice((3, 100, 400, 400, len(raw) + 1, len(raw) + 1))
    start = 0
    while start < len(raw):
        size = draw.randint(1, most)
        yield raw[start : start + size]
        start += size


_ENDINGS = ("eof", "lost", "reset", "expire", "quiet")


def _end(connection: Connection, ending: str) -> None:
    match ending:
        case "eof":
            connection.eof_received()
        case "lost":
            connection.connection_lost(None)
        case "reset":
            connection.connection_lost(ConnectionResetError("reset by peer"))
        case "quiet":
            connection.expire(asyncio.get_running_loop().time() + 5.0)
    connection.expire(NEVER)


def _framed(draw: Random, body: bytes) -> bytes:
    """A response with this body, framed as servers do, and as they should not."""
    lines = [b"HTTP/1.1 200 OK"]
    if draw.random() < 0.3:
        body, coding = _compressed(draw, body)
        lines.append(b"content-encoding: " + coding)
    lines += draw.sample(_ODD_LINES, draw.choice((0, 0, 1, 2)))
    framing = draw.choice(("exact", "exact", "long", "short", "chunked", "unended", "close"))
    match framing:
        case "exact":
            lines.append(b"content-length: %d" % len(body))
        case "long":
            lines.append(b"content-length: %d" % (len(body) + draw.randint(1, 99)))
        case "chunked" | "unended":
            lines.append(b"transfer-encoding: chunked")
            body = _chunked(draw, body) + (b"0\r\n\r\n" if framing == "chunked" else b"")
        case _:
            pass
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" if draw.random() < 0.1 else b""
    return interim + b"\r\n".join([*lines, b"", body])


_ODD_LINES = (
    b"content-type: text/event-stream",
    b"content-type: application/json",
    b"x-served-by: caf\xe9",
    b"content-length: many",
    b"not a header",
    b"connection: close",
    b"retry-after: tomorrow",
)


def _compressed(draw: Random, body: bytes) -> tuple[bytes, bytes]:
    coding = draw.choice((b"gzip", b"x-gzip", b"GZIP", b"deflate"))
    if coding == b"deflate":
        return zlib.compress(body), coding
    times = draw.choice((1, 1, 2))
    for _ in range(times):
        body = gzip.compress(body)
    return body, coding


def _chunked(draw: Random, body: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _pieces(draw, body))
