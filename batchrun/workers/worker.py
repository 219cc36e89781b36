"""A worker: sends what the coordinator gives it, and gives the outcomes back."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from batchrun.client.descriptors import possible_concurrency
from batchrun.client.endpoint import Endpoint, open_endpoint
from batchrun.client.retry import never_sent
from batchrun.errors import UsageError
from batchrun.exchange import Failure, Response
from batchrun.job.presets import is_loopback
from batchrun.text import single_line
from batchrun.version import __version__
from batchrun.workers import frames
from batchrun.workers.access import Token, client_tls, fingerprint_of, is_own_network

if TYPE_CHECKING:
    from batchrun.client.settings import EndpointSettings

_FLUSH_SECONDS = 0.004
_MOST_IN_A_FRAME = 64
_SILENT_SECONDS = 60.0
"""A coordinator on another machine that has been silent for longer is gone. One that is stopped for a while
(Ctrl-Z) finds the responses that have come meanwhile."""
_LEAVING_SECONDS = 25.0
_CONNECT_SECONDS = 10.0
_PARENT = os.getppid()
"""Of this process when it began."""


class Ending(Enum):
    """`OVER`: the run has ended, or has let this worker go. `LOST`: the connection broke."""

    OVER = "over"
    LOST = "lost"


async def serve(
    address: tuple[str, int],
    token: Token,
    *,
    connected: Callable[["CoordinatorLink"], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
) -> Ending:
    """Connects to a coordinator and sends for it, until the connection ends.

    No request is sent after that, and those in flight are cut off: nobody could note their responses.
    Raises OSError without a connection, UsageError if the coordinator or this worker refuses the other, and
    JobError if the endpoint's connections can't be opened here. `connected` gets the link, by which a caller
    can leave; `warn` gets lines for people.
    """
    loop = asyncio.get_running_loop()
    link = CoordinatorLink(token)
    async with asyncio.timeout(_CONNECT_SECONDS):
        if token.fingerprint is None:
            infos = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
            hosts = [str(peer[0]) for *_, peer in infos]
            if not any(map(is_own_network, hosts)):
                raise UsageError(_exposed(hosts[0]))
        tls = None if token.fingerprint is None else client_tls()
        await loop.create_connection(
            lambda: link, *address, ssl=tls, server_hostname=None if tls is None else ""
        )
    connected(link)
    try:
        settings = await link.welcomed
        possible = possible_concurrency(settings.connections, lambda _: None)
        if possible < settings.connections:
            warn(f"can send {possible:,} requests at a time, by its limit of open files (`ulimit -n`)")
        async with open_endpoint(settings) as endpoint:
            link.begin(endpoint)
            try:
                return await link.ended
            finally:
                await link.cut_off()
    finally:
        link.abort()


class CoordinatorLink(asyncio.Protocol):
    """A worker's end of the connection. `welcomed` brings the settings, `ended` how the connection ended."""

    def __init__(self, token: Token) -> None:
        loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[EndpointSettings] = loop.create_future()
        self.ended: asyncio.Future[Ending] = loop.create_future()
        self._loop = loop
        self._token = token
        self._transport: asyncio.Transport | None = None
        self._reader = frames.FrameReader(frames.LARGEST_REQUESTS)
        self._offset = frames.ClockOffset(0.0, 0.0)
        self._heard = self._due = time.monotonic()
        self._endpoint: Endpoint | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._responses: list[msgspec.Raw] = []
        self._bytes = 0
        self._failures: list[tuple[int, Failure]] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ending = Ending.LOST

    def begin(self, endpoint: Endpoint) -> None:
        """Tells the coordinator that requests can be sent from now on."""
        self._endpoint = endpoint
        self._write(frames.READY)

    def leave(self) -> None:
        """Takes no more requests; the coordinator ends the connection once those in flight have ended."""
        self._write(frames.LEAVING)
        self._timers["leave"] = self._loop.call_later(_LEAVING_SECONDS, self.abort)

    async def cut_off(self) -> None:
        """Ends the requests in flight without their responses."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    def abort(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if (doubt := self._doubt(self._transport)) is not None:
            self._refuse(doubt)
            return
        self._write(
            frames.HELLO,
            frames.encode(frames.Hello(self._token.secret, __version__, socket.gethostname(), os.getpid())),
        )
        self._beat()

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        try:
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
        except ValueError as error:  # FrameError; msgspec's DecodeError
            self._refuse(f"The coordinator sent what can't be read: {single_line(str(error))}.")

    def connection_lost(self, error: Exception | None) -> None:
        for task in self._sending:
            task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._refuse(
            "The coordinator has closed the connection: the token is not that of its run.\n"
            "Next: take the token file that the run has written."
        )
        if not self.ended.done():
            self.ended.set_result(self._ending)

    # Frames.

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == frames.REQUESTS:
            self._take_requests(payload)
        elif kind == frames.BEAT:
            self._offset.age(frames.decode_clock(payload), self._heard)
        elif kind == frames.WELCOME:
            welcome = frames.decode_welcome(payload)
            self._offset = frames.ClockOffset(welcome.clock, self._heard)
            if not self.welcomed.done():
                self.welcomed.set_result(welcome.settings)
        elif kind == frames.REFUSED:
            self._refuse(f"The coordinator refuses this worker: {single_line(frames.decode_text(payload))}")
        elif kind == frames.OVER:
            self._ending = Ending.OVER
        else:
            raise frames.FrameError(f"a frame of kind {kind}")

    def _take_requests(self, payload: bytes) -> None:
        clock, requests = frames.decode_requests(payload)
        if self._endpoint is None:
            raise frames.FrameError("requests before this worker was ready")
        if self._offset.age(clock, self._heard) > frames.SILENT_SECONDS:
            for number, _, _ in requests:
                self._failures.append((number, _LATE))
            self._flush_soon()
            return
        for number, reports_beginning, body in requests:
            begun = partial(self._write, frames.BEGUN, frames.encode(number)) if reports_beginning else None
            task = self._loop.create_task(self._send(self._endpoint, number, body, begun))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(
        self, endpoint: Endpoint, number: int, body: bytes, begun: Callable[[], None] | None
    ) -> None:
        try:
            self._give_back(number, await endpoint.send(body, begun))
        except Exception as error:  # of batchrun itself: the run has to end
            logging.getLogger(__name__).exception("A fault at one request")
            self._write(frames.FAULT, frames.encode((number, f"{type(error).__name__}: {error}")))

    def _give_back(self, number: int, result: Response | Failure) -> None:
        if isinstance(result, Failure):
            self._failures.append((number, result))
        else:
            # By itself, so that one that can't be encoded spoils no other.
            encoded = frames.encode((number, result))
            self._responses.append(msgspec.Raw(encoded))
            self._bytes += len(encoded)
        if len(self._responses) >= _MOST_IN_A_FRAME or self._bytes >= frames.BATCH_BYTES:
            self._flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if "flush" not in self._timers:
            self._timers["flush"] = self._loop.call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        timer = self._timers.pop("flush", None)
        if timer is not None:
            timer.cancel()
        if self._responses:
            self._write(frames.RESPONSES, frames.encode(self._responses))
            self._responses, self._bytes = [], 0
        if self._failures:
            self._write(frames.FAILURES, frames.encode(self._failures))
            self._failures = []

    def _write(self, kind: int, payload: bytes = b"") -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.frame(kind, payload))

    # Doubts and time.

    def _doubt(self, transport: asyncio.Transport) -> str | None:
        """Returns why the token must not be sent over this connection."""
        if self._token.fingerprint is None:
            host = str(transport.get_extra_info("peername")[0])
            if not is_own_network(host):
                return _exposed(host)
            return None
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if certificate is None or fingerprint_of(certificate) != self._token.fingerprint:
            return (
                "The coordinator's certificate is not the one of the token file. Next: take that of its run."
            )
        return None

    def _refuse(self, why: str) -> None:
        """Ends the connection for good, unless requests have been sent over it."""
        if not self.welcomed.done():
            self.welcomed.set_exception(UsageError(why))
            self.welcomed.exception()  # else asyncio complains where nobody waits for it
        if self._transport is not None:
            self._transport.abort()

    def _beat(self) -> None:
        now = time.monotonic()
        # A process that was stopped itself has heard nobody: it must not blame the other side.
        if now - self._due > frames.BEAT_SECONDS:
            self._heard = now
        self._due = now + frames.BEAT_SECONDS
        if now - self._heard > _SILENT_SECONDS and not self._is_only_stopped():
            self.abort()
            return
        self._write(frames.BEAT, frames.encode(now))
        self._timers["beat"] = self._loop.call_later(frames.BEAT_SECONDS, self._beat)

    def _is_only_stopped(self) -> bool:
        """Returns whether a silent coordinator is there: on this machine its end closes the connection.

        Not if a process that it has forked has the connection too; but then this process has a new parent.
        """
        transport = cast("asyncio.Transport", self._transport)
        here = is_loopback(str(transport.get_extra_info("peername")[0]))
        return here and os.getppid() == _PARENT


def _exposed(host: str) -> str:
    return (
        f"{host} is not in a private network, and plain TCP would show the token and the key.\n"
        "Next: start the run with --workers-tls, and take its token file."
    )


_LATE = never_sent("late", "the request reached its worker too late to be sent", 0.0)
