"""The coordinator's end of one worker's connection."""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple, Protocol, cast

from batchrun.client.retry import fate_unknown, never_sent
from batchrun.exchange import WORKER_LOST, Failure, Response
from batchrun.text import single_line
from batchrun.version import __version__
from batchrun.workers import frames
from batchrun.workers.access import Token

_LONGEST_NAME = 80


class WorkerFaultError(Exception):
    """batchrun itself failed in a worker, at one request, which may have been billed."""


class _Pending(NamedTuple):
    ended: asyncio.Future[Response | Failure]
    begun: Callable[[], None] | None
    since: float


class LinkOwner(Protocol):
    """What a link asks of the pool that it belongs to."""

    token: Token
    largest_frame: int

    def welcome(self) -> bytes:
        """Returns the payload of the first frame to a worker."""

    def opened(self, link: "Link") -> None:
        """A stranger has connected."""

    def joined(self, link: "Link") -> None:
        """The worker can send."""

    def leaving(self, link: "Link") -> None:
        """The worker wants no more requests."""

    def left(self, link: "Link", why: str) -> None:
        """The connection has ended, of a stranger too."""


class Link(asyncio.Protocol):
    """A connection, first a stranger's, then a worker's. A worker that is `leaving` gets no more requests.

    A request that has not been given to the connection when that ends was never sent. Of any other nobody
    knows, unless its outcome has arrived.
    """

    def __init__(self, owner: LinkOwner) -> None:
        self.name = "a stranger"
        self.is_known = self.is_ready = self.is_leaving = False
        self.opened_at = self.heard = time.monotonic()
        self.ended = 0
        self._owner = owner
        self._reader = frames.FrameReader(frames.LARGEST_HELLO)
        self._transport: asyncio.Transport
        self._why: str | None = None
        self._numbers = count(1)
        self._pending: dict[int, _Pending] = {}
        self._unwritten: list[tuple[int, bool, bytes]] = []
        self._may_write = True
        self._takes: dict[int, Callable[[bytes], None]] = {
            frames.READY: self._take_ready,
            frames.RESPONSES: self._take_responses,
            frames.FAILURES: self._take_failures,
            frames.BEGUN: self._take_begun,
            frames.FAULT: self._take_fault,
            frames.LEAVING: self._take_leaving,
            frames.BEAT: lambda _: None,
        }

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    def send(self, body: bytes, begun: Callable[[], None] | None) -> asyncio.Future[Response | Failure]:
        """Returns what will be the request's outcome. With others of the same round it goes in one frame."""
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Response | Failure] = loop.create_future()
        self._pending[number] = _Pending(ended, begun, time.monotonic())
        if not self._unwritten and self._may_write:
            loop.call_soon(self._write_requests)
        self._unwritten.append((number, begun is not None, body))
        return ended

    def beat(self) -> None:
        self._write(frames.BEAT, frames.encode(time.monotonic()))

    def give_up_older_than(self, instant: float) -> None:
        """Ends requests whose worker should have told their end long ago."""
        while self._pending and self._pending[number := next(iter(self._pending))].since < instant:
            self._end(number, _lost(self.name, "it should have told its end long ago"))

    def close(self) -> None:
        """Ends the connection with a good-bye, by which the worker knows that the run is over."""
        self._why = self._why or "the run is over"
        self._write(frames.OVER)
        self._transport.close()

    def abort(self, why: str) -> None:
        self._why = self._why or why
        self._transport.abort()

    # asyncio's.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner.opened(self)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write_requests()

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            for kind, payload in self._reader.feed(data):
                if self._why is not None:
                    return
                self._take(kind, payload)
        except ValueError as error:  # FrameError; msgspec's DecodeError
            self.abort(f"it sent what can't be read: {single_line(str(error))}")

    def connection_lost(self, error: Exception | None) -> None:
        why = self._why or (f"its connection broke: {error}" if error else "its connection was closed")
        self._why = why
        self._owner.left(self, why)
        never = {number for number, _, _ in self._unwritten}
        self._unwritten.clear()
        for number in list(self._pending):
            self._end(number, _never_given(self.name) if number in never else _lost(self.name, why))

    # Frames.

    def _take(self, kind: int, payload: bytes) -> None:
        if not self.is_known:
            self._take_hello(kind, payload)
            return
        take = self._takes.get(kind)
        if take is None:
            raise frames.FrameError(f"a frame of kind {kind}")
        take(payload)

    def _take_hello(self, kind: int, payload: bytes) -> None:
        if kind != frames.HELLO:
            raise frames.FrameError("no token")
        hello = frames.decode_hello(payload)
        if not self._owner.token.matches(hello.token):
            self.abort("its token is wrong")
            return
        self.name = single_line(f"{hello.host[:_LONGEST_NAME]}/{hello.process}")
        self.is_known = True
        if hello.version != __version__:
            versions = f"the worker has batchrun {hello.version}, the run {__version__}"
            self._write(
                frames.REFUSED, frames.encode(f"{versions}. Next: install the same version in both places.")
            )
            self._why = single_line(versions)
            self._transport.close()
            return
        self._reader.most = self._owner.largest_frame
        self._write(frames.WELCOME, self._owner.welcome())

    def _take_ready(self, _: bytes) -> None:
        self.is_ready = True
        self._owner.joined(self)

    def _take_responses(self, payload: bytes) -> None:
        for number, response in frames.decode_responses(payload):
            self._end(number, response)
        self._close_if_left()

    def _take_failures(self, payload: bytes) -> None:
        for number, failure in frames.decode_failures(payload):
            self._end(number, failure)
        self._close_if_left()

    def _take_begun(self, payload: bytes) -> None:
        pending = self._pending.get(frames.decode_begun(payload))
        if pending is not None and pending.begun is not None:
            pending.begun()

    def _take_fault(self, payload: bytes) -> None:
        number, text = frames.decode_fault(payload)
        pending = self._pending.pop(number, None)
        if pending is not None and not pending.ended.done():
            pending.ended.set_exception(WorkerFaultError(f"{self.name}: {single_line(text)}"))

    def _take_leaving(self, _: bytes) -> None:
        self.is_leaving = True
        self._owner.leaving(self)
        self._close_if_left()

    def _close_if_left(self) -> None:
        if self.is_leaving and not self._pending:
            self._why = "it was told to end"
            self._write(frames.OVER)
            self._transport.close()

    def _end(self, number: int, result: Response | Failure) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None and not pending.ended.done():  # else the run has been aborted meanwhile
            self.ended += 1
            pending.ended.set_result(result)

    # Writing.

    def _write(self, kind: int, payload: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(frames.frame(kind, payload))

    def _write_requests(self) -> None:
        while self._unwritten and self._may_write and not self._transport.is_closing():
            size = place = 0
            while place < len(self._unwritten) and size < frames.BATCH_BYTES:
                size += len(self._unwritten[place][2])
                place += 1
            batch, self._unwritten = self._unwritten[:place], self._unwritten[place:]
            self._write(frames.REQUESTS, frames.encode((time.monotonic(), batch)))


def _never_given(name: str) -> Failure:
    return never_sent(WORKER_LOST, f"the worker {name} was lost before it had the request", 0.0)


def _lost(name: str, why: str) -> Failure:
    return fate_unknown(WORKER_LOST, f"the worker {name} was lost while it sent the request: {why}", 0.0)
