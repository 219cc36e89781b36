"""What coordinator and worker say to each other: frames of a length, a kind and a msgpack payload. No I/O.

A connection begins with HELLO from the worker and WELCOME from the coordinator, which says all that a worker
needs to know. READY follows once its endpoint is open. A frame that breaks a rule here ends the connection.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from batchrun.client.settings import EndpointSettings
from batchrun.exchange import Failure, Response

# From a worker.
HELLO: Final = 1
READY: Final = 2
RESPONSES: Final = 3
FAILURES: Final = 4
BEGUN: Final = 5
FAULT: Final = 6
LEAVING: Final = 7
"""It wants no more requests; the coordinator ends the connection once those in flight have ended."""
# From the coordinator.
WELCOME: Final = 20
REFUSED: Final = 21
REQUESTS: Final = 22
OVER: Final = 23
# From both.
BEAT: Final = 30

BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""A side that has been silent for longer is lost. A request that arrives later than that is given back."""

LARGEST_HELLO = 4_096
LARGEST_BODY = 2**28
"""Bytes of a request's body."""
BATCH_BYTES = 2**18
"""A frame with several requests or responses ends with the one that passes this."""
_SLACK = 2**20
LARGEST_REQUESTS = LARGEST_BODY + BATCH_BYTES + _SLACK
"""Bytes of a frame that a worker takes."""

_HEADER = struct.Struct("<IB")


class FrameError(ValueError):
    """The other side sent what is no frame, or a frame that it must not send."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """A worker's first frame. Later versions may add fields at its end."""

    token: str
    version: str
    host: str
    process: int


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    settings: EndpointSettings
    clock: float
    """The coordinator's clock, in seconds, as in each of its later frames that have one."""


Requests = tuple[float, list[tuple[int, bool, bytes]]]
"""The coordinator's clock, and of each request its number, whether to report `begun`, and its body."""

encode = msgspec.msgpack.Encoder().encode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
decode_requests = msgspec.msgpack.Decoder(Requests).decode
decode_responses = msgspec.msgpack.Decoder(list[tuple[int, Response]]).decode
decode_failures = msgspec.msgpack.Decoder(list[tuple[int, Failure]]).decode
decode_begun = msgspec.msgpack.Decoder(int).decode
decode_fault = msgspec.msgpack.Decoder(tuple[int, str]).decode
decode_text = msgspec.msgpack.Decoder(str).decode
decode_clock = msgspec.msgpack.Decoder(float).decode


def frame(kind: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


def largest_responses(settings: EndpointSettings) -> int:
    """Returns the bytes that a frame of responses may have: a batch, and one of any size.

    A response has its texts twice: in its body, and decoded, where a byte that is no UTF-8 has become three.
    """
    return min(2**32 - 1, 4 * settings.max_answer_bytes + BATCH_BYTES + _SLACK)


class FrameReader:
    """Splits a stream of bytes into frames of at most `most` bytes each; `most` may be changed in between."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields the kind and the payload of each frame that `piece` completes. Raises FrameError."""
        self._bytes += piece
        start, end = 0, len(self._bytes)
        while end - start >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._bytes, start)
            if size > self.most:
                raise FrameError(f"a frame of {size:,} bytes")
            body = start + _HEADER.size
            if end - body < size:
                break
            start = body + size
            yield kind, bytes(memoryview(self._bytes)[body:start])
        if start:
            del self._bytes[:start]


class ClockOffset:
    """Says how long a frame was on its way, by clocks that have nothing in common and drift apart.

    The least difference between the two clocks stands for no time on the way. It is taken over the latest
    one to two minutes of the sender's clock, so that frames which were held up together don't count as quick.
    """

    _PERIOD = 60.0

    def __init__(self, theirs: float, ours: float) -> None:
        self._since = theirs
        self._least = self._least_before = ours - theirs

    def age(self, theirs: float, ours: float) -> float:
        """Returns the seconds between sending at `theirs`, by the sender's clock, and `ours`, by our own."""
        difference = ours - theirs
        if theirs - self._since >= self._PERIOD:
            self._since, self._least_before, self._least = theirs, self._least, difference
        self._least = min(self._least, difference)
        return difference - min(self._least, self._least_before)
