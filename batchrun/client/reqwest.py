"""Sends through a proxy: an httpx transport on top of reqwest (Rust).

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
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import StreamRequest
from pyreqwest.response import ResponseBodyReader

from batchrun.client.wire import Timeouts
from batchrun.errors import JobError

_LONGEST_IDLE = timedelta(seconds=4)

_T = TypeVar("_T")


class ReqwestTransport(httpx.AsyncBaseTransport):
    """Moves the bytes with reqwest: HTTP/1.1, TLS verified, bodies decompressed, no cookies, no redirects.

    No retries either: a request goes to a second connection only where an idle one turned out closed before
    a byte of the request was written. It raises ConnectError and ConnectTimeout only where nothing was sent.

    If the reader is cancelled before the response begins, pyreqwest continues the exchange, unread, until
    its response or the time-out.
    """

    def __init__(self, url: str, timeouts: Timeouts, connections: int, proxy: str | None) -> None:
        """Sends to `url`, through `proxy`. Raises JobError where reqwest can't use it."""
        builder = (
            ClientBuilder()
            .http1_only()
            .follow_redirects(enable=False)
            .timeout(timedelta(seconds=timeouts.whole))
            .connect_timeout(timedelta(seconds=timeouts.connect))
            .pool_idle_timeout(_LONGEST_IDLE)
            .pool_max_idle_per_host(connections)
        )
        try:
            self._url = Url(url)
            builder = builder.no_proxy() if proxy is None else builder.proxy(ProxyBuilder.all(proxy))
            self._client = builder.build()
        except (PyreqwestError, ValueError) as error:
            raise JobError(
                f"the environment's proxy can't be used: {type(error).__name__}.\n"
                "Correct HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or SSL_CERT_FILE, or unset them."
            ) from None
        self._through_proxy = "" if proxy is None else ", through the environment's proxy"
        self._headers: tuple[httpx.Headers, list[tuple[str, str]]] = (httpx.Headers(), [])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Posts `request` to this transport's address; the response's body is read as it arrives.

        Raises httpx.TransportError.
        """
        if request.headers is not self._headers[0]:
            self._headers = request.headers, request.headers.multi_items()
        body = b"".join(cast("httpx.ByteStream", request.stream))
        builder = self._client.post(self._url).headers(self._headers[1]).body_bytes(body)
        # Else a response isn't visible until 64 KiB of its body or its end have arrived.
        exchange = builder.streamed_read_buffer_limit(0).build_streamed()
        try:
            response = await _translated(exchange.__aenter__())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise type(error)(f"{error}{self._through_proxy}") from None
        stream = _ReqwestBody(exchange, response.body_reader, _body_length(response.headers))
        return httpx.Response(response.status, headers=_readable_headers(response.headers), stream=stream)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.close()


class _ReqwestBody(httpx.AsyncByteStream):
    """Yields a body's pieces. `length` in bytes, where known, saves the call that would find the end."""

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
        # No await after the end: a cancellation there would lose the response.
        if not self._at_end:
            with anyio.CancelScope(shield=True):
                await self._exchange.__aexit__(None, None, None)


def _body_length(headers: HeaderMap) -> int | None:
    """Returns the body's length in bytes, where certain: `transfer-encoding` overrides a stated length."""
    if "transfer-encoding" not in headers:
        with suppress(ValueError):
            return int(headers.get("content-length", ""))
    return None


async def _translated(work: Awaitable[_T]) -> _T:
    """Awaits pyreqwest: translates its errors into httpx's, its cancellation into the surrounding scope's."""
    try:
        return await work
    except PyreqwestError as error:
        raise _proved_error(error) from None
    except anyio.get_cancelled_exc_class():
        # pyreqwest raises a cancellation of its own, which an anyio scope doesn't know and would let through.
        await checkpoint_if_cancelled()
        raise


def _proved_error(error: PyreqwestError) -> httpx.TransportError:
    """Returns what a pyreqwest error proves, as an httpx error.

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
    except ValueError:  # a header that is not ASCII must not cost a paid response
        readable = []
        for name in set(headers.keys()):
            with suppress(ValueError):
                readable += [(name, value) for value in headers.getall(name)]
        return readable
