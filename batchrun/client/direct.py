"""The endpoint's connections on the event loop's own sockets: opened, kept, timed and closed."""

import asyncio
import os
import socket
import ssl
from asyncio.staggered import staggered_race
from collections import defaultdict, deque
from functools import partial
from typing import Any

from batchrun.client.address import Address
from batchrun.client.connection import Connection
from batchrun.client.decompress import ACCEPTED
from batchrun.client.tls import PlainServerError, TlsLayer, client_context
from batchrun.client.wire import TLS_SERVER, Interruption, Receiver, Timeouts

# Servers close idle connections after 5 s and more.
_LONGEST_IDLE = 4.0
_TICKS_A_SECOND = 20
_LOOKUP_SECONDS = 5.0
# Each address's head start over the next one: RFC 8305's "Connection Attempt Delay".
_NEXT_ADDRESS_SECONDS = 0.25
_CLOSING_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_FIRST_REUSES = 8
_SILENT_SECONDS = 0.01
_PLAIN_SERVER = "the server speaks plain HTTP: does endpoint.base_url begin with http:// there?"


class DirectWire:
    """HTTP/1.1 over TCP or TLS, to one address. Must be made while its event loop runs.

    A request is sent on the most recently used connection. If its server has closed that, or has sent
    something unrequested, the request goes to the next connection, since no byte of it has left.
    """

    def __init__(
        self, address: Address, headers: list[tuple[bytes, bytes]], timeouts: Timeouts, connections: int
    ) -> None:
        """Keeps at most `connections` open between requests. Raises JobError without any CA certificate.

        `headers` are sent with every request; its content-length is added.
        """
        self.timeouts = timeouts
        self._address = address
        self._context = client_context() if address.scheme == "https" else None
        self._most_idle = connections
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()  # the longest idle connection first
        self._open: set[Connection] = set()
        self._due: defaultdict[int, set[Connection]] = defaultdict(set)
        self._last_tick = self._tick_of(self._loop.time())
        self._timer = self._loop.call_later(1 / _TICKS_A_SECOND, self._pass_time)
        self._lookup: asyncio.Task[list[Any]] | None = None
        self._looked_up = 0.0
        self._was_heard = False
        self._first_reuses = _FIRST_REUSES
        lines = [f"POST {address.target} HTTP/1.1".encode("ascii")]
        lines += [name + b": " + value for name, value in headers]
        if not any(name == b"accept-encoding" for name, _ in headers):
            lines.append(b"accept-encoding: " + ACCEPTED)
        self._head = b"\r\n".join([*lines, b"content-length: "])

    async def exchange(self, body: bytes, receiver: Receiver) -> None:
        """Sends `body` once; returns after `receiver.end` was called. Raises nothing but cancellation."""
        started = self._loop.time()
        message = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        while (connection := self._idle_connection()) is not None:
            if self._first_reuses and not await self._stays_silent(connection):
                continue
            if (ended := connection.send(message, receiver, started)) is not None:
                break
        else:
            opened = await self._new_connection()
            if isinstance(opened, Interruption):
                receiver.end(opened)
                return
            connection, ended = opened, opened.send(message, receiver, started)
        if ended is None:
            receiver.end(self._not_connected("the connection was closed before the request was sent"))
            return
        try:
            await ended
            if not self._was_heard:
                await self._explain_silence(connection, receiver)
        except asyncio.CancelledError:
            if not connection.cut_short(
                ended
            ):  # else the scope's next await is cancelled, and no response is lost
                raise

    async def aclose(self) -> None:
        """Closes all connections, and waits briefly until they are closed."""
        self._timer.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        for connection in list(self._open):
            connection.close()
        end = self._loop.time() + _CLOSING_SECONDS
        while self._open and self._loop.time() < end:  # noqa: ASYNC110  # takes a round of the loop or two
            await asyncio.sleep(0.001)
        for connection in list(self._open):
            connection.abort()

    # Called by connections.

    def watch(self, connection: Connection, deadline: float) -> None:
        """Calls `connection.expire` at `deadline`, unless it is called earlier anyway."""
        tick = self._tick_of(deadline)
        if connection.tick is not None:
            if connection.tick <= tick:
                return
            self.unwatch(connection)
        connection.tick = tick
        self._due[tick].add(connection)

    def unwatch(self, connection: Connection) -> None:
        """Forgets the deadline."""
        if connection.tick is not None:
            self._due[connection.tick].discard(connection)
            connection.tick = None

    def released(self, connection: Connection) -> None:
        """Takes back a connection that can take another request."""
        if len(self._idle) >= self._most_idle:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def distrust(self) -> None:
        """Has each connection carry one request from now on, since the server sends unrequested responses.

        One that is still in flight would be taken for the response to the connection's next request.
        """
        self._most_idle = 0
        while self._idle:
            self._idle.pop().close()

    def lost(self, connection: Connection) -> None:
        """Forgets a closed connection; an idle one is found closed when its turn comes."""
        self._open.discard(connection)

    # Time.

    def _tick_of(self, time: float) -> int:
        return int(time * _TICKS_A_SECOND) + 1

    def _pass_time(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_later(1 / _TICKS_A_SECOND, self._pass_time)
        this_tick = self._tick_of(now) - 1
        for tick in range(self._last_tick, this_tick + 1):
            for connection in self._due.pop(tick, ()):
                connection.tick = None
                connection.expire(now)
        self._last_tick = this_tick + 1
        while self._idle and now - self._idle[0].idle_since > _LONGEST_IDLE:
            self._idle.popleft().close()

    # Connections.

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since > _LONGEST_IDLE:
                connection.close()
            elif connection.is_usable():
                return connection
        return None

    async def _stays_silent(self, connection: Connection) -> bool:
        """Whether the connection is still usable after a moment.

        This reveals a server that responds twice, before the second response is taken for another request's.
        """
        self._first_reuses -= 1
        try:
            await asyncio.sleep(connection.idle_since + _SILENT_SECONDS - self._loop.time())
        except asyncio.CancelledError:
            connection.close()
            raise
        return connection.is_usable()

    async def _new_connection(self) -> Connection | Interruption:
        try:
            async with asyncio.timeout(self.timeouts.connect):
                connection = await self._connected(self._context)
        except TimeoutError:
            return Interruption("connect_timeout", self._address.host, sent=False)
        except ssl.SSLCertVerificationError as error:
            text = f"{self._address.host}: {error.verify_message}"
            return Interruption("untrusted_certificate", text, sent=False, hopeless=True)
        except PlainServerError:
            text = f"{self._address.host}: {_PLAIN_SERVER}"
            return Interruption("server_speaks_plain_http", text, sent=False, hopeless=True)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that can't be looked up
            return self._not_connected(_words(error))
        if not connection.is_usable():
            return self._not_connected("the server sent something before it was sent a request")
        return connection

    async def _explain_silence(self, connection: Connection, receiver: Receiver) -> None:
        """Finds out, once, whether a server that closes plain connections without a response expects TLS."""
        self._was_heard = connection.was_heard
        if self._context is not None or self._was_heard or not connection.hung_up:
            return
        self._was_heard = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent over it
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                (await self._connected(context)).close()
        except (OSError, TimeoutError):
            return
        receiver.end(Interruption("server_speaks_tls", f"{self._address.host}: {TLS_SERVER}", hopeless=True))

    def _not_connected(self, why: str) -> Interruption:
        return Interruption("connect_failed", f"{self._address.host}: {why}", sent=False)

    async def _connected(self, context: ssl.SSLContext | None) -> Connection:
        """Returns a connection that is ready. Raises OSError, UnicodeError."""
        connected = await self._connected_socket()
        tls = None if context is None else TlsLayer(context, self._address.host)
        connection = Connection(self, tls)
        self._open.add(connection)
        try:
            await self._loop.create_connection(lambda: connection, sock=connected)
            await connection.ready
        except BaseException:
            connection.abort()
            connected.close()
            self._open.discard(connection)
            raise
        return connection

    async def _connected_socket(self) -> socket.socket:
        addresses = await self._addresses()
        attempts = [partial(self._connect, address) for address in addresses]
        if len(attempts) == 1:
            return await attempts[0]()
        connected: socket.socket | None
        connected, _, errors = await staggered_race(attempts, _NEXT_ADDRESS_SECONDS)
        if connected is None:
            raise next((error for error in errors if isinstance(error, OSError)), OSError("no address"))
        return connected

    async def _connect(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, target = address
        connecting = socket.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._loop.sock_connect(connecting, target)
        except BaseException:
            connecting.close()
            raise
        return connecting

    async def _addresses(self) -> list[Any]:
        """Returns the server's addresses, which are looked up every 5 s at most."""
        now = self._loop.time()
        lookup = self._lookup
        if lookup is None or (
            lookup.done() and (now - self._looked_up > _LOOKUP_SECONDS or lookup.exception())
        ):
            self._looked_up = now
            lookup = self._lookup = self._loop.create_task(self._resolve())
        return await asyncio.shield(lookup)

    async def _resolve(self) -> list[Any]:
        host, port = self._address.host, self._address.port
        return _in_turns(await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _in_turns(addresses: list[Any]) -> list[Any]:
    """Returns the addresses with alternating families, beginning with the first address's family."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    second = [address for address in addresses if address[0] != addresses[0][0]]
    turns = [address for pair in zip(first, second, strict=False) for address in pair]
    return turns + first[len(second) :] + second[len(first) :]


def _words(error: Exception) -> str:
    """Returns the system's text for the error: asyncio's has an address in place of the reason."""
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
