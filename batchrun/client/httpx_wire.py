"""Carries out exchanges over an httpx transport: translates its types, errors and streams into `wire`'s."""

import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import cast

import anyio
import httpx

from batchrun.client.wire import QUIET_SECONDS, Interruption, Receiver, Timeouts

# A connection is kept only if its response was read to the end; the wait for that is bounded by these.
_DRAIN_SECONDS = 0.5
_MOST_DRAINED_CHUNKS = 16
# rustls' text for a certificate that doesn't prove the server's name: a retry can't succeed.
_DISTRUSTED = "invalid peer certificate"


class HttpxWire:
    """Sends requests through an `httpx.AsyncBaseTransport`, which belongs to the caller.

    The transport must raise ConnectError and ConnectTimeout only where nothing was sent.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        url: str,
        headers: list[tuple[bytes, bytes]],
        timeouts: Timeouts,
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(url)
        self._headers = headers
        self._timeouts = timeouts
        self._extensions = {"timeout": httpx.Timeout(timeouts.whole).as_dict()}

    async def exchange(self, body: bytes, receiver: Receiver) -> None:
        """Sends `body` once; returns after `receiver.end` was called. Raises nothing but cancellation."""
        end = anyio.current_time() + self._timeouts.whole
        with anyio.move_on_after(self._timeouts.whole) as scope:
            await self._exchange(body, receiver, scope)
            return
        receiver.end(Interruption("idle_timeout" if scope.deadline < end else "timeout"))

    async def _exchange(self, body: bytes, receiver: Receiver, scope: anyio.CancelScope) -> None:
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._headers,
            stream=httpx.ByteStream(body),
            extensions=self._extensions,
        )
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            receiver.end(self._interruption(error))
            return
        try:
            await self._receive(response, receiver, scope)
        finally:
            with suppress(Exception):  # a response that has arrived counts, however its connection ends
                await cast("httpx.AsyncByteStream", response.stream).aclose()

    async def _receive(self, response: httpx.Response, receiver: Receiver, scope: anyio.CancelScope) -> None:
        status, begun = response.status_code, anyio.current_time()
        started = scope.deadline - self._timeouts.whole
        chunks = aiter(cast("httpx.AsyncByteStream", response.stream))
        receiver.begin(status, response.headers.raw, None)
        scope.deadline = self._timeouts.deadline(started, begun, None, status)
        interruption, is_wanted = None, True
        try:
            async for chunk in chunks:
                scope.deadline = self._timeouts.deadline(started, begun, anyio.current_time(), status)
                is_wanted = receiver.feed(chunk)
                if not is_wanted:
                    break
                if receiver.is_whole():
                    scope.deadline = min(scope.deadline, anyio.current_time() + QUIET_SECONDS)
        except httpx.HTTPError as error:
            interruption = self._interruption(error)
        except anyio.get_cancelled_exc_class():
            if not receiver.is_whole():
                raise
            interruption = Interruption("connection_lost", "the body is shorter than its length")
        scope.deadline = math.inf
        receiver.end(interruption)
        if not is_wanted:
            await _drain(chunks)

    def _interruption(self, error: httpx.HTTPError) -> Interruption:
        text = f"{self._url.host}: {error or type(error).__name__}"
        match error:
            case httpx.ConnectError() if _DISTRUSTED in str(error):
                return Interruption("untrusted_certificate", text, sent=False, hopeless=True)
            case httpx.ConnectTimeout() | httpx.PoolTimeout():
                return Interruption("connect_timeout", text, sent=False)
            case httpx.ConnectError():
                return Interruption("connect_failed", text, sent=False)
            case httpx.TimeoutException():
                return Interruption("timeout", text)
            case _:
                return Interruption("connection_lost", text)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Reads the rest of a body whose message is complete, so that its connection can be used again."""
    with anyio.move_on_after(_DRAIN_SECONDS, shield=True):
        for _ in range(_MOST_DRAINED_CHUNKS):
            try:
                await anext(chunks)
            except (StopAsyncIteration, httpx.HTTPError):
                return
