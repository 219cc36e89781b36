"""Bytes over the network: httpx's seam for transports, with reqwest (Rust) behind it.

httpx's own transport walks all of its connections on every request.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar, cast

import anyio
import httpx
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError
from pyreqwest.http import HeaderMap, Url
from pyreqwest.request import StreamRequest
from pyreqwest.response import ResponseBodyReader

from batchrun.job.presets import is_loopback

_LONGEST_IDLE = _LONGEST_CONNECT = timedelta(seconds=30)

_T = TypeVar("_T")


class ReqwestTransport(httpx.AsyncBaseTransport):
    """Moves the bytes with reqwest: HTTP/1.1, TLS verified, bodies decompressed, no cookies, no redirects.

    No retries either: a request goes to a second connection only where an idle one turned out closed before
    a byte of the request was written. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured, but never
    for this machine's own address. Its errors say what is proved: ConnectError and ConnectTimeout mean that
    nothing was sent.

    pyreqwest lets an exchange whose reader was cancelled before the response began run on, unheard, until
    its answer or the time-out.
    """

    def __init__(self, url: httpx.URL, timeout_seconds: float, connections: int) -> None:
        timeout = timedelta(seconds=timeout_seconds)
        builder = (
            ClientBuilder()
            .http1_only()
            .follow_redirects(enable=False)
            .timeout(timeout)
            # Shorter than the whole, so that a time-out while connecting is known for one.
            .connect_timeout(min(timeout / 2, _LONGEST_CONNECT))
            .pool_idle_timeout(_LONGEST_IDLE)
            .pool_max_idle_per_host(connections)
        )
        self._client = (builder.no_proxy() if is_loopback(url.host) else builder).build()
        self._url = Url(str(url))
        self._headers: tuple[httpx.Headers, list[tuple[str, str]]] = (httpx.Headers(), [])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Post `request` to the address that this was made for; the body of the response is read as it comes.

        Raises httpx.TransportError.
        """
        if request.headers is not self._headers[0]:
            self._headers = request.headers, request.headers.multi_items()
        body = b"".join(cast("httpx.ByteStream", request.stream))
        builder = self._client.post(self._url).headers(self._headers[1]).body_bytes(body)
        # Else nothing is seen of a response until 64 KiB of its body or the end are there.
        exchange = builder.streamed_read_buffer_limit(0).build_streamed()
        response = await _translated(exchange.__aenter__())
        stream = _ReqwestBody(exchange, response.body_reader, _body_length(response.headers))
        return httpx.Response(response.status, headers=_readable_headers(response.headers), stream=stream)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class _ReqwestBody(httpx.AsyncByteStream):
    """A body, piece by piece. `length` in bytes, where it is known, spares a call that would find the end."""

    def __init__(self, exchange: StreamRequest, reader: ResponseBodyReader, length: int | None) -> None:
        self._exchange = exchange
        self._reader = reader
        self._left = length
        self._at_end = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = None if self._at_end else await _translated(self._reader.read_chunk())
        if chunk is None:
            self._at_end = True
            raise StopAsyncIteration
        piece = chunk.to_bytes()
        if self._left is not None:
            self._left -= len(piece)
            self._at_end = not self._left
        return piece

    async def aclose(self) -> None:
        # No wait after the end, and none that a cancellation could break: the answer would be lost with it.
        if not self._at_end:
            with anyio.CancelScope(shield=True):
                await self._exchange.__aexit__(None, None, None)


def _body_length(headers: HeaderMap) -> int | None:
    """Bytes of the body, where they are certain: `transfer-encoding` overrides what a server states."""
    if "transfer-encoding" not in headers:
        with suppress(ValueError):
            return int(headers.get("content-length", ""))
    return None


async def _translated(work: Awaitable[_T]) -> _T:
    """Await work of pyreqwest: its errors become httpx's, its cancellation that of the scope around it."""
    try:
        return await work
    except PyreqwestError as error:
        raise _proved_error(error) from None
    except anyio.get_cancelled_exc_class():
        # pyreqwest raises a cancellation of its own, which an anyio scope doesn't know and would let through.
        await checkpoint_if_cancelled()
        raise


def _proved_error(error: PyreqwestError) -> httpx.TransportError:
    """What an error of pyreqwest proves.

    Its class doesn't tell: a reset after sending is a ConnectError, too. Its causes do: hyper says
    "client error (Connect)" for what happens before a connection can take a request.
    """
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or ()]
    text = causes[-1] if causes else error.message
    timed_out = isinstance(error, RequestTimeoutError)
    if "client error (Connect)" in causes:
        return httpx.ConnectTimeout(text) if timed_out else httpx.ConnectError(text)
    return httpx.ReadTimeout(text) if timed_out else httpx.ReadError(text)


def _readable_headers(headers: HeaderMap) -> list[tuple[str, str]]:
    try:
        return list(headers.items())
    except ValueError:  # a header that is not ASCII must not cost a paid answer
        readable = []
        for name in set(headers.keys()):
            with suppress(ValueError):
                readable += [(name, value) for value in headers.getall(name)]
        return readable
