"""The wire on the client's side: the one place that speaks HTTP.

httpx supplies the types, the errors and the seam for other transports. The bytes are moved by reqwest (Rust),
since httpx's own transport walks all of its connections on every request.
"""

import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeVar, cast

import anyio
import httpx
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError
from pyreqwest.http import HeaderMap, Url
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response as WireResponse

from batchrun.errors import JobError
from batchrun.exchange import Answer, Failure, RateLimits
from batchrun.job.presets import is_loopback
from batchrun.version import __version__
from batchrun.wire.error_body import displayable
from batchrun.wire.messages import AnswerTooLargeError, MessageError, read_answer
from batchrun.wire.response_headers import rate_limits
from batchrun.wire.retry import broken_answer, classify_status, fate_unknown, never_sent
from batchrun.wire.stream import MessageAssembler

# A refusal's body is read for its message alone.
_MOST_ERROR_BYTES = 65_536
_LONGEST_IDLE = _LONGEST_CONNECT = timedelta(seconds=30)
# A connection is kept only if its stream was read to the end, which is awaited this long after message_stop.
_DRAIN_SECONDS = 0.5
_MOST_DRAINED_CHUNKS = 16
# rustls' words for a certificate that doesn't prove the server's name: no repetition heals it.
_DISTRUSTED = "invalid peer certificate"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token of RFC 9110, in lower case

_T = TypeVar("_T")


@dataclass(frozen=True)
class EndpointSettings:
    """Where to send requests, and the bounds of each exchange.

    `timeout` is for a whole exchange and `idle_timeout` for the silence between two pieces of a stream, both
    in seconds. `max_answer_bytes` bounds an answer after decompression. `connections` are kept open between
    requests; how many requests are under way at a time is the caller's to bound.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    auth: Literal["bearer", "x-api-key", "none"] = "bearer"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0
    idle_timeout: float = 60.0
    max_answer_bytes: int = 16 * 2**20
    connections: int = 256
    free_tier: bool = False
    stream: bool = False


@asynccontextmanager
async def open_endpoint(
    settings: EndpointSettings, transport: httpx.AsyncBaseTransport | None = None
) -> "AsyncIterator[Endpoint]":
    """An endpoint with its connections, which are closed at the end. `transport` takes the network's place.

    Raises JobError where the address is no http(s) URL or a header can't be sent.
    """
    url = _messages_url(settings.base_url)
    headers = _request_headers(settings, url)
    async with transport or ReqwestTransport(settings, url) as wire:
        yield Endpoint(settings, url, headers, wire)


class Endpoint:
    """One address of `POST /v1/messages`. Made by `open_endpoint`."""

    def __init__(
        self,
        settings: EndpointSettings,
        url: httpx.URL,
        headers: list[tuple[bytes, bytes]],
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        self._settings = settings
        self._url = url
        self._transport = transport
        extensions = {"timeout": httpx.Timeout(settings.timeout).as_dict()}
        self._template = httpx.Request(
            "POST", url, headers=headers, stream=httpx.ByteStream(b""), extensions=extensions
        )

    async def send(self, body: bytes) -> Answer | Failure:
        """Send one request once (`body` is its JSON) and read the answer. Raises nothing but cancellation.

        The fate of a request whose `send` was cancelled is unknown: it may still be worked on, and charged.
        """
        started = time.perf_counter()
        if not self._settings.stream:
            return await self._exchange(body, started, None)
        with anyio.move_on_after(self._settings.timeout) as deadline:
            end = deadline.deadline
            return await self._exchange(body, started, deadline)
        return self._silent(started) if deadline.deadline < end else self._out_of_time(started)

    async def _exchange(
        self, body: bytes, started: float, deadline: anyio.CancelScope | None
    ) -> Answer | Failure:
        try:
            response = await self._transport.handle_async_request(self._request(body))
            try:
                return await self._read(response, started, deadline)
            finally:
                with suppress(Exception):  # an answer that is there counts, however its connection ends
                    await cast("httpx.AsyncByteStream", response.stream).aclose()
        except httpx.HTTPError as error:
            return self._lost(error, started)

    def _request(self, body: bytes) -> httpx.Request:
        # A copy, since a new one costs five times as much. Its headers are the same object every time, which
        # spares the transport a look at them; the length of the body is the transport's to add.
        request = copy(self._template)
        request.stream = httpx.ByteStream(body)
        return request

    async def _read(
        self, response: httpx.Response, started: float, deadline: anyio.CancelScope | None
    ) -> Answer | Failure:
        limits = rate_limits(response.headers.multi_items(), time.time())
        if not response.is_success:
            return await self._refusal(response, started, limits)
        try:
            if deadline is not None and _is_event_stream(response):
                return await self._read_events(_chunks(response), started, deadline, limits)
            body = await self._read_whole(_chunks(response))
            return read_answer(body, _since(started), limits=limits)
        except MessageError as error:
            key = self._settings.api_key
            return broken_answer(error, response.status_code, _since(started), limits, key)

    async def _read_whole(self, chunks: AsyncIterator[bytes]) -> bytes:
        pieces, room = [], self._settings.max_answer_bytes
        async for chunk in chunks:
            room -= len(chunk)
            if room < 0:
                raise AnswerTooLargeError(self._settings.max_answer_bytes)
            pieces.append(chunk)
        return b"".join(pieces)

    async def _read_events(
        self,
        chunks: AsyncIterator[bytes],
        started: float,
        deadline: anyio.CancelScope,
        limits: RateLimits | None,
    ) -> Answer:
        assembler, room = MessageAssembler(), self._settings.max_answer_bytes
        end, first_token_latency = deadline.deadline, None
        async for chunk in chunks:
            # The idle time-out begins with the first piece: a long prompt is the whole time-out's matter.
            deadline.deadline = min(end, anyio.current_time() + self._settings.idle_timeout)
            room -= len(chunk)
            if room < 0:
                raise AnswerTooLargeError(self._settings.max_answer_bytes)
            assembler.feed(chunk)
            if first_token_latency is None and assembler.has_content:
                first_token_latency = _since(started)
            if assembler.whole:
                break
        answer = read_answer(assembler.body(), _since(started), first_token_latency, limits)
        deadline.deadline = math.inf
        await _drain(chunks)
        return answer

    async def _refusal(self, response: httpx.Response, started: float, limits: RateLimits | None) -> Failure:
        return classify_status(
            response.status_code,
            response.headers,
            await _start_of_body(_chunks(response)),
            url=str(self._url),
            now=time.time(),
            key=self._settings.api_key,
            latency=_since(started),
            limits=limits,
        )

    def _lost(self, error: Exception, started: float) -> Failure:
        latency = _since(started)
        text = displayable(f"{self._url.host}: {error or type(error).__name__}", self._settings.api_key)
        match error:
            case httpx.ConnectError() if _DISTRUSTED in str(error):
                return never_sent("untrusted_certificate", text, latency, hopeless=True)
            case httpx.ConnectTimeout() | httpx.PoolTimeout():
                return never_sent("connect_timeout", f"no connection in time to {text}", latency)
            case httpx.ConnectError():
                return never_sent("connect_failed", f"no connection to {text}", latency)
            case httpx.TimeoutException():
                return self._out_of_time(started)
            case _:
                return fate_unknown("connection_lost", f"the connection broke: {text}", latency)

    def _out_of_time(self, started: float) -> Failure:
        message = f"no whole answer within endpoint.timeout_seconds = {self._settings.timeout:g}"
        return fate_unknown("timeout", message, _since(started))

    def _silent(self, started: float) -> Failure:
        message = (
            f"the stream fell silent for endpoint.idle_timeout_seconds = {self._settings.idle_timeout:g}"
        )
        return fate_unknown("idle_timeout", message, _since(started))


class ReqwestTransport(httpx.AsyncBaseTransport):
    """Moves the bytes with reqwest: HTTP/1.1, TLS verified, bodies decompressed, no cookies, no redirects.

    No retries either: a request goes to a second connection only where an idle one turned out closed before
    a byte of the request was written. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured, but never
    for this machine's own address. Its errors say what is proved: ConnectError and ConnectTimeout mean that
    nothing was sent.

    pyreqwest lets an exchange whose reader was cancelled before the response began run on, unheard, until
    its answer or the time-out.
    """

    def __init__(self, settings: EndpointSettings, url: httpx.URL) -> None:
        timeout = timedelta(seconds=settings.timeout)
        builder = (
            ClientBuilder()
            .http1_only()
            .follow_redirects(enable=False)
            .timeout(timeout)
            # Shorter than the whole, so that a time-out while connecting is known for one.
            .connect_timeout(min(timeout / 2, _LONGEST_CONNECT))
            .pool_idle_timeout(_LONGEST_IDLE)
            .pool_max_idle_per_host(settings.connections)
        )
        self._client = (builder.no_proxy() if is_loopback(url.host) else builder).build()
        self._url = Url(str(url))
        self._headers: tuple[httpx.Headers, list[tuple[str, str]]] = (httpx.Headers(), [])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Post `request` to the address that this was made for; the body of the response is read as it comes.

        Raises httpx.TransportError.
        """
        exchange, response = await _translated(self._start(request))
        headers = _readable_headers(response.headers)
        return httpx.Response(response.status, headers=headers, stream=_ReqwestBody(exchange, response))

    async def _start(self, request: httpx.Request) -> tuple[StreamRequest, WireResponse]:
        if request.headers is not self._headers[0]:
            self._headers = request.headers, request.headers.multi_items()
        body = b"".join(cast("httpx.ByteStream", request.stream))
        builder = self._client.post(self._url).headers(self._headers[1]).body_bytes(body)
        # Else nothing is seen of a response until 64 KiB of its body or the end are there.
        exchange = builder.streamed_read_buffer_limit(0).build_streamed()
        return exchange, await exchange.__aenter__()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class _ReqwestBody(httpx.AsyncByteStream):
    def __init__(self, exchange: StreamRequest, response: WireResponse) -> None:
        self._exchange = exchange
        self._reader = response.body_reader
        self._at_end = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await _translated(self._reader.read_chunk())
        if chunk is None:
            self._at_end = True
            raise StopAsyncIteration
        return chunk.to_bytes()

    async def aclose(self) -> None:
        # No wait after the end, and none that a cancellation could break: the answer would be lost with it.
        if not self._at_end:
            with anyio.CancelScope(shield=True):
                await self._exchange.__aexit__(None, None, None)


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


def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    return aiter(cast("httpx.AsyncByteStream", response.stream))


async def _start_of_body(chunks: AsyncIterator[bytes]) -> bytes:
    start = b""
    # The status has come and counts, even where its page breaks off.
    with suppress(httpx.TransportError):
        async for chunk in chunks:
            start += chunk
            if len(start) > _MOST_ERROR_BYTES:
                break
    return start[:_MOST_ERROR_BYTES]


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what is left of a stream whose message is whole, so that its connection can be used again."""
    with anyio.move_on_after(_DRAIN_SECONDS, shield=True):
        for _ in range(_MOST_DRAINED_CHUNKS):
            try:
                await anext(chunks)
            except (StopAsyncIteration, httpx.TransportError):
                return


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type")).lower().startswith("text/event-stream")


def _since(started: float) -> float:
    return time.perf_counter() - started


def _messages_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.rstrip("/") + "/v1/messages")
        Url(str(url))  # reqwest knows more of hosts and ports, and would say so at the first request only
    except (httpx.InvalidURL, ValueError) as error:
        raise JobError(f"[endpoint] base_url: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise JobError("[endpoint] base_url: expected http://host or https://host")
    return url


def _request_headers(settings: EndpointSettings, url: httpx.URL) -> list[tuple[bytes, bytes]]:
    """The headers of every request, all but its length. Those of the settings win over the defaults."""
    headers = {
        "host": url.netloc.decode("ascii"),
        "user-agent": f"batchrun/{__version__}",
        "content-type": "application/json",
        **{name.lower(): value for name, value in settings.headers.items()},
    }
    if settings.free_tier:
        headers["x-free-tier"] = "true"
    if settings.api_key and settings.auth == "bearer":
        headers["authorization"] = f"Bearer {settings.api_key}"
    elif settings.api_key and settings.auth == "x-api-key":
        headers["x-api-key"] = settings.api_key
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            raise JobError(
                f"[endpoint] the header {name!r} can't be sent: use printable ASCII characters alone"
            )
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
