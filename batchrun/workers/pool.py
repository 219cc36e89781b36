"""A run's sender whose connections are elsewhere: it gives each request to a worker."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from batchrun.client.retry import never_sent
from batchrun.client.settings import EndpointSettings
from batchrun.errors import BatchrunError
from batchrun.exchange import Failure, FailureAction, Response
from batchrun.rows.observer import Observer
from batchrun.workers import frames
from batchrun.workers.access import Token
from batchrun.workers.link import Link

_QUIET_SECONDS = 3.0
"""A worker that has been silent for longer gets no more requests until it is heard again."""
_STRANGER_SECONDS = 5.0
_MOST_STRANGERS = 64
_OVERDUE_SECONDS = 30.0

Starter = Callable[[Callable[[BatchrunError], None]], AbstractAsyncContextManager[None]]
"""Starts workers, keeps them running during the block, and ends them. It is given a function to call if none
of them can start."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where workers connect to, and what they have to know. `tls` is None for plain TCP."""

    listener: socket.socket
    token: Token
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, port, *_ = self.listener.getsockname()
        return str(host), int(port)


@asynccontextmanager
async def open_pool(
    door: Door, start: Starter, settings: EndpointSettings, observer: Observer
) -> AsyncIterator["Pool"]:
    """Lets workers connect during the block, and ends those that have. Closes the listening socket."""
    loop = asyncio.get_running_loop()
    pool = Pool(settings, door.token, observer)
    handshake = None if door.tls is None else _STRANGER_SECONDS
    server = await loop.create_server(
        lambda: Link(pool), sock=door.listener, ssl=door.tls, ssl_handshake_timeout=handshake
    )
    try:
        async with start(pool.fail):
            try:
                yield pool
            finally:
                server.close()
                pool.close()
    finally:
        server.close()
        pool.close()


class Pool:
    """The workers of one run, and the links to them."""

    def __init__(self, settings: EndpointSettings, token: Token, observer: Observer) -> None:
        self.token = token
        self.largest_frame = frames.largest_responses(settings)
        self._settings = settings
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._links: set[Link] = set()
        # Those that get requests, in turns.
        self._choices: list[Link] = []
        self._turn = 0
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._due = 0.0
        self._closed = False
        self._timer: asyncio.Handle = self._loop.call_soon(self._look_after_links)

    # The engine's.

    async def ready(self) -> None:
        """Returns once a worker can send. Raises the error by which none ever can."""
        await asyncio.shield(self._first)

    async def send(self, body: bytes, begun: Callable[[], None] | None = None) -> Response | Failure:
        """Has a worker send the request, and returns the outcome. Without a worker the request is not sent.

        Raises WorkerFaultError. The outcome of a request whose `send` was cancelled is unknown.
        """
        if len(body) > frames.LARGEST_BODY:
            return _TOO_LARGE
        link = self._least_busy()
        return _NO_WORKER if link is None else await link.send(body, begun)

    def _least_busy(self) -> Link | None:
        """Returns the one of the next two in turn that has fewer requests: nearly even, at no cost."""
        choices = self._choices
        if len(choices) < 2:
            return choices[0] if choices else None
        self._turn = turn = (self._turn + 1) % len(choices)
        one, other = choices[turn - 1], choices[turn]
        return one if one.in_flight <= other.in_flight else other

    # The starter's.

    def fail(self, error: BatchrunError) -> None:
        """Notes that no worker can start, which counts only if none has ever been there."""
        if not self._first.done():
            self._first.set_exception(error)
            self._first.exception()  # else asyncio complains where nobody waits any more

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        for link in list(self._links):
            link.close()

    # The links'.

    def welcome(self) -> bytes:
        return frames.encode(frames.Welcome(self._settings, time.monotonic()))

    def opened(self, link: Link) -> None:
        self._links.add(link)
        if sum(not link.is_known for link in self._links) > _MOST_STRANGERS:
            link.abort("too many connections without a token")

    def joined(self, link: Link) -> None:
        self._choices.append(link)
        if not self._first.done():
            self._first.set_result(None)
        self._observer.worker_joined(link)

    def leaving(self, link: Link) -> None:
        self._drop(link)

    def left(self, link: Link, why: str) -> None:
        self._links.discard(link)
        self._drop(link)
        if not self._closed:
            self._observer.worker_left(link, why)

    def _drop(self, link: Link) -> None:
        if link in self._choices:
            self._choices.remove(link)

    # Time.

    def _look_after_links(self) -> None:
        now = time.monotonic()
        # A process that was stopped itself has heard nobody: what has come meanwhile is to be read first.
        was_stopped = self._due > 0 and now - self._due > frames.BEAT_SECONDS
        self._due = now + frames.BEAT_SECONDS
        self._timer = self._loop.call_later(frames.BEAT_SECONDS, self._look_after_links)
        for link in list(self._links):
            if not was_stopped:
                self._look_after(link, now)
            elif link.is_known:
                link.heard = now
                link.beat()
        self._choices = [
            link
            for link in self._links
            if link.is_ready and not link.is_leaving and now - link.heard < _QUIET_SECONDS
        ]

    def _look_after(self, link: Link, now: float) -> None:
        silence = now - link.heard
        if not link.is_known:
            if now - link.opened_at > _STRANGER_SECONDS:
                link.abort("it gave no token")
        elif silence > frames.SILENT_SECONDS:
            link.abort(f"it has been silent for {silence:.0f} s")
        else:
            link.beat()
            link.give_up_older_than(now - self._settings.timeout - _OVERDUE_SECONDS)


_NO_WORKER = never_sent("no_worker", "no worker is connected that could send the request", 0.0)
_TOO_LARGE = replace(
    never_sent("request_too_large", "the request is too large for a worker", 0.0),
    action=FailureAction.FAIL_ROW,
)
