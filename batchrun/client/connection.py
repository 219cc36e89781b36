"""One HTTP/1.1 connection, which carries one exchange at a time.

States: connecting (`ready` isn't done) -> idle (no receiver) -> busy (a receiver) -> idle, or draining (the
message is complete, its body isn't) -> idle. From all of them -> closed. Bytes in a state that expects none
close the connection.

The accounting relies on two facts: a request is written straight to the kernel, so that it is known whether a
byte of it may have left; and a response that began before its request was completely written is rejected.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Protocol, cast

from batchrun.client.http1 import ResponseParser
from batchrun.client.kernel_socket import KernelSocket
from batchrun.client.tls import PlainServerError, TlsLayer
from batchrun.client.wire import QUIET_SECONDS, TLS_SERVER, ConnectionMemory, Interruption, Receiver, Timeouts

# A connection is kept only if its response was read to the end; the wait for that is bounded by these.
_DRAIN_SECONDS = 0.5
_MOST_DRAINED_BYTES = 65_536
# Servers end an idle connection with these. After so many idle seconds, such a response may have been sent
# before the request.
_GOODBYES = frozenset((400, 408))
_IDLE_BEFORE_GOODBYE = 0.2
_UNREQUESTED_ANSWER = (b"HTTP/1.1 2", b"HTTP/1.0 2")
_TLS_RECORD = (b"\x15\x03", b"\x16\x03")
_GOODBYE = "the server ended an idle connection while the request was in flight"
_CUT_SHORT = Interruption("connection_lost", "the body is shorter than its length")


class Owner(Protocol):
    """The pool's methods that a connection calls."""

    timeouts: Timeouts

    def watch(self, connection: "Connection", deadline: float) -> None:
        """Calls `connection.expire` at `deadline`, unless it is called earlier anyway."""

    def unwatch(self, connection: "Connection") -> None:
        """Forgets the deadline."""

    def released(self, connection: "Connection") -> None:
        """Called when the connection can take another request."""

    def distrust(self) -> None:
        """Called when the server sends unrequested responses: a connection must carry one request only."""

    def lost(self, connection: "Connection") -> None:
        """Called when the connection is closed."""


class Connection(asyncio.Protocol):
    """Made by its pool. `ready` is done once requests can be sent, or fails with the OSError in the way."""

    tick: int | None = None
    """Kept by the pool: when `expire` is due."""
    idle_since = 0.0
    """Kept by the pool while the connection is idle."""

    def __init__(self, owner: Owner, tls: TlsLayer | None) -> None:
        self.closed = False
        self.was_heard = False
        """Whether the server has sent a byte."""
        self.hung_up = False
        """Whether the server closed the connection during an exchange."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._socket: KernelSocket | None = None
        self._parser = ResponseParser()
        self._memory = ConnectionMemory()
        self._receiver: Receiver | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._drain_until: float | None = None
        self._drained = 0
        self._partly_written = False
        self._started = 0.0
        self._begun: float | None = None
        self._last_piece: float | None = None
        self._whole_since: float | None = None
        self._was_idle = False
        self._has_end = False

    # Called by the pool.

    def is_usable(self) -> bool:
        """Whether a request can be sent now: the kernel holds neither an end nor unrequested bytes."""
        if not self.closed and self._socket is not None and (data := self._socket.unread()) is not None:
            if data:  # over TLS, these may be a session ticket
                self.data_received(data)
            else:
                self.abort()
        return not self.closed

    def send(self, message: bytes, receiver: Receiver, started: float) -> "asyncio.Future[None] | None":
        """Begins an exchange. Returns None where no byte of it can have left.

        Otherwise returns a future that is done when the exchange is over: after `receiver.end`, and after the
        rest of a body that isn't needed.
        """
        self._parser.reset()
        try:
            self._write(message if self._tls is None else self._tls.encrypt(message))
        except OSError:  # includes ssl.SSLError
            self.abort()
            return None
        self._receiver, self._started = receiver, started
        self._begun = self._last_piece = None
        self._whole_since = None
        self._was_idle = self.idle_since > 0 and started - self.idle_since > _IDLE_BEFORE_GOODBYE
        self._has_end = False
        self._ended = self._loop.create_future()
        self._owner.watch(self, started + self._owner.timeouts.whole)
        return self._ended

    def expire(self, now: float) -> None:
        """Ends an exchange that took too long; the deadline may have moved since it was set."""
        deadline = self._deadline()
        if now < deadline:
            self._owner.watch(self, deadline)
        elif self._receiver is None:
            self.close()
        else:
            # After a pause of the process, the response may be in the kernel.
            for data in () if self._socket is None else self._socket.unread_pieces():
                self.data_received(data)
            if self._receiver is not None:
                self._time_out(self._receiver, now)

    def _time_out(self, receiver: Receiver, now: float) -> None:
        if now >= self._hard_deadline():
            is_idle = now < self._started + self._owner.timeouts.whole
            self._end(Interruption("idle_timeout" if is_idle else "timeout"))
        elif receiver.is_whole():
            self._end(_CUT_SHORT)
        else:
            self._whole_since = None
            self._owner.watch(self, self._deadline())

    def cut_short(self, ended: "asyncio.Future[None]") -> bool:
        """Ends the exchange for which `send` returned `ended`. Returns whether its receiver was told.

        Another exchange may have begun already, if the response came in the loop iteration of a cancellation.
        """
        if ended is not self._ended:
            return True
        has_end = self._has_end
        if self._receiver is not None and self._receiver.is_whole():
            self._end(_CUT_SHORT)
            return True
        if not has_end or self._drain_until is not None:
            self.abort()
        return has_end

    def close(self) -> None:
        """Closes in order. The receiver of an exchange in flight isn't told."""
        if self._tls is not None and self.ready.done() and not self.closed:
            self._write_quietly(self._tls.farewell())
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once. The receiver of an exchange in flight isn't told."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        if self._drain_until is not None:
            self._finish(self._ended)
        self.closed, self._receiver, self._drain_until = True, None, None
        self._socket = None
        self._owner.unwatch(self)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, with a handshake where TLS is used."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            transport.abort()  # type: ignore[attr-defined]
            return
        self._socket = KernelSocket(self._transport)
        if self._tls is not None:
            self._shake_hands(self._tls, b"")
        elif not self.ready.done():
            self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Takes bytes from the server."""
        tls = self._tls
        self.was_heard = True
        if self.closed:
            return
        if tls is None:
            self._take(data)
        elif not self.ready.done():
            self._shake_hands(tls, data)
        else:
            self._take_encrypted(tls, data)

    def eof_received(self) -> None:
        """Handles the server's end of stream: returning False has the loop close the connection."""
        self._end_of_input("")

    def connection_lost(self, error: Exception | None) -> None:
        """Handles the loss of the connection."""
        self._end_of_input("" if error is None else str(error))
        self._leave()
        self._owner.lost(self)

    # How requests leave and responses arrive.

    def _write(self, data: bytes) -> None:
        """Writes to the kernel, the rest through the loop. Raises OSError where the kernel took nothing."""
        assert self._socket is not None  # noqa: S101  # for the type checker
        if data:
            self._partly_written = not self._socket.write(data)

    def _shake_hands(self, tls: TlsLayer, data: bytes) -> None:
        if self.ready.done():
            return
        try:
            is_done = tls.shake_hands(data)
            self._write(tls.pending())
        except OSError as error:
            plain = isinstance(error, ssl.SSLError) and data.startswith(b"HTTP/")
            self.ready.set_exception(PlainServerError() if plain else error)
            self._write_quietly(tls.pending())
            self.abort()
            return
        if is_done:
            self.ready.set_result(None)
            self._take_encrypted(tls, b"")

    def _write_quietly(self, data: bytes) -> None:
        with suppress(OSError):
            self._write(data)

    def _take_encrypted(self, tls: TlsLayer, data: bytes) -> None:
        try:
            decrypted = tls.decrypt(data)
            self._write(tls.pending())
        except OSError as error:
            self._end_of_input(f"TLS: {error}")
            self.abort()
            return
        if decrypted:
            self._take(decrypted)
        if tls.at_end and not self.closed:
            self._end_of_input("")
            self.close()

    def _take(self, data: bytes) -> None:
        if self._receiver is not None:
            self._parser.feed(data)
            self._advance(self._receiver)
        elif self._drain_until is not None:
            self._parser.feed(data)
            self._drain(len(data))
        else:
            if data.startswith(_UNREQUESTED_ANSWER):
                self._owner.distrust()
            self.abort()

    def _advance(self, receiver: Receiver) -> None:
        parser = self._parser
        if not parser.has_head:
            if parser.fault:
                self._end(self._foreign_response())
            return
        if parser.status < 400 and self._is_sending():
            self._end(Interruption("connection_lost", "a response came before its request was sent"))
            return
        try:
            is_wanted = self._hand_over(receiver)
        except Exception as error:  # batchrun's own fault: raised where the end is awaited
            self._fail(error)
            return
        if parser.is_complete and self._was_idle and self._is_goodbye():
            self._end(Interruption("connection_lost", _GOODBYE, unrequested=True))
        elif parser.is_complete:
            if parser.has_more and not parser.fault:
                self._owner.distrust()
            self._end(None, reusable=parser.keeps_connection() and not self._is_sending())
        elif parser.fault:
            self._end(Interruption("connection_lost", parser.fault))
        elif not is_wanted:
            self._end(None, draining=True)
        else:
            self._owner.watch(self, self._deadline())

    def _is_goodbye(self) -> bool:
        return self._parser.status in _GOODBYES and not self._parser.keeps_connection()

    def _is_sending(self) -> bool:
        return self._partly_written and self._socket is not None and self._socket.is_writing()

    def _hand_over(self, receiver: Receiver) -> bool:
        parser = self._parser
        if self._begun is None:
            self._begun = self._loop.time()
            receiver.begin(parser.status, parser.headers, self._memory)
        pieces = parser.pieces()
        if pieces and not parser.is_complete:
            self._last_piece = self._loop.time()
        is_wanted = True
        for piece in pieces:
            is_wanted = is_wanted and receiver.feed(piece)
        if not parser.is_complete:
            self._whole_since = (self._whole_since or self._last_piece) if receiver.may_be_whole() else None
        if parser.tail and is_wanted and not receiver.is_whole():
            receiver.feed(parser.tail)
        return is_wanted

    def _foreign_response(self) -> Interruption:
        if self._tls is None and self._parser.start.startswith(_TLS_RECORD):
            return Interruption("server_speaks_tls", TLS_SERVER, sent=False, hopeless=True)
        return Interruption("connection_lost", self._parser.fault)

    def _drain(self, size: int) -> None:
        self._drained += size
        self._parser.pieces()
        if self._parser.is_complete and self._parser.keeps_connection():
            self._drain_until = None
            self._release()
            self._finish(self._ended)
        elif self._parser.is_complete or self._parser.fault or self._drained > _MOST_DRAINED_BYTES:
            self.close()

    def _end_of_input(self, problem: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(problem or "the server closed the connection"))
        if self._receiver is None:
            return
        self.hung_up = True
        parser = self._parser
        if parser.has_head and parser.until_close and not problem:
            self._end(None)
        else:
            self._end(Interruption("connection_lost", problem or "closed before the end of a response"))

    # How an exchange ends.

    def _end(
        self, interruption: Interruption | None, *, reusable: bool = False, draining: bool = False
    ) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        ended = self._ended
        try:
            is_trusted = receiver.end(interruption)
        except Exception as error:  # as in _advance
            self._fail(error)
            return
        self._has_end = True
        if draining and is_trusted:
            self._drain_until = self._loop.time() + _DRAIN_SECONDS
            self._drained = 0
            self._owner.watch(self, self._drain_until)
            return
        if reusable and is_trusted:
            self._release()
        elif interruption is None and is_trusted:
            self.close()
        else:
            self.abort()
        self._finish(ended)

    def _finish(self, ended: "asyncio.Future[None]") -> None:
        if not ended.done():  # else its exchange is cancelled
            ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        self.abort()
        if not self._ended.done():
            self._ended.set_exception(error)

    def _release(self) -> None:
        self._owner.unwatch(self)
        self._owner.released(self)

    def _hard_deadline(self) -> float:
        return self._owner.timeouts.deadline(
            self._started, self._begun, self._last_piece, self._parser.status
        )

    def _deadline(self) -> float:
        if self._drain_until is not None:
            return self._drain_until
        deadline = self._hard_deadline()
        return deadline if self._whole_since is None else min(deadline, self._whole_since + QUIET_SECONDS)
