"""Runs the sandbox on loopback: in a thread of this process, or as a command until a signal comes."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from batchrun.sandbox.control import control_application, method_not_allowed
from batchrun.sandbox.delivery import deliver
from batchrun.sandbox.model import Model
from batchrun.sandbox.provider import Provider, Response
from batchrun.sandbox.queue import ModelQueue
from batchrun.sandbox.settings import Settings

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
except ImportError:  # pragma: no cover - the slower parser is what uvicorn always brings
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol  # type: ignore[assignment]

Respond = Callable[[Mapping[bytes, bytes], bytes | None, Receive], Awaitable[Response | None]]

HOST = "127.0.0.1"
PATH = "/v1/messages"

MOST_HEAD_BYTES = 65_536
"""Bytes of a request's line and headers."""

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
_BACKLOG = 4096
_KEEP_ALIVE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox: its address, and its bill, which stays readable after its end."""

    base_url: str
    provider: Provider

    def bill(self) -> dict[str, Any]:
        """What `GET /sandbox/bill` answers."""
        return self.provider.bill.statement()


@contextlib.contextmanager
def background(settings: Settings | None = None, port: int = 0) -> Iterator[Sandbox]:
    """A sandbox in a daemon thread with an event loop of its own, until the block ends.

    Port 0 takes any free one. Raises OSError where the port is taken, SettingsError for a wrong reply file or
    a real model that isn't installed.
    """
    provider = Provider(settings or Settings())
    with _bound_socket(port) as listener:
        started: Future[str] = Future()
        server = _Server(application(provider), started.set_result)
        thread = threading.Thread(target=_run, args=(server, listener, started), name="sandbox", daemon=True)
        thread.start()
        try:
            yield Sandbox(started.result(), provider)
        finally:
            server.stop()
            thread.join()


def serve(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; calls `ready` with the base URL once requests are taken.

    Port 0 takes any free one. Raises OSError where the port is taken, SettingsError for a wrong reply file or
    a real model that isn't installed.
    """
    provider = Provider(settings)
    with _bound_socket(port) as listener:
        _Server(application(provider), ready).run(sockets=[listener])


def application(provider: Provider) -> ASGIApp:
    """Handles `POST /v1/messages` directly, everything else by Starlette's routes.

    Raises SettingsError where a real model is wanted and isn't installed.
    """
    control = control_application(provider)
    settings = provider.settings
    respond = ModelQueue(provider, Model(settings.threads)).respond if settings.real else _at_once(provider)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await control(scope, receive, send)
        elif scope["method"] != "POST":
            await method_not_allowed("POST")(scope, receive, send)
        else:
            body = await _read_body(receive, settings.max_body_bytes)
            provider.open_requests += 1
            try:
                response = await respond(dict(scope["headers"]), body, receive)
                if response is not None:
                    await deliver(response, settings, scope["state"]["transport"], receive, send)
            finally:
                provider.open_requests -= 1

    return app


def _at_once(provider: Provider) -> Respond:
    async def respond(headers: Mapping[bytes, bytes], body: bytes | None, _: Receive) -> Response:
        return provider.respond(headers, body)

    return respond


async def _read_body(receive: Receive, max_bytes: int) -> bytes | None:
    """The body; None if it is larger, but read to its end: a client that still sends doesn't listen."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= max_bytes:
            parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if size <= max_bytes else None


def _bound_socket(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _run(server: "_Server", listener: socket.socket, started: "Future[str]") -> None:
    try:
        server.run(sockets=[listener])
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


class _Protocol(HttpProtocol):
    """Bounds the head of a request, since httptools takes one of any size.

    Puts the transport into each request's `scope["state"]`: ASGI has no way to reset a connection.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        self._in_head = False
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse_head()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # The first part is counted when the head is complete: the loop reads 256 KiB at a time at most.
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("request head too large")  # ends the parser; the connection is closing
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, but one that says when it is ready and that ends at once."""

    def __init__(self, app: ASGIApp, ready: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listener in sockets or []:
            self._ready(f"http://{HOST}:{listener.getsockname()[1]}")

    async def main_loop(self) -> None:
        """Waits for `stop`; once a second `on_tick` sets the Date header again."""
        while not self.should_exit:
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), timeout=1)

    def stop(self) -> None:
        """Ends the server; may be called from any thread and from a signal handler."""
        self.should_exit = True
        if self._loop and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed in between
                self._loop.call_soon_threadsafe(self._stop.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes open connections: stopping a sandbox must not wait for its hanging requests."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the server; unlike uvicorn's own, they are not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {
            each: signal.signal(each, self._stop_on_signal) for each in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)

    def _stop_on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop()
