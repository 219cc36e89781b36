"""The client's side of `POST /v1/messages`: one request, and its answer or what has kept it from coming."""

import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import anyio
import httpx
from pyreqwest.http import Url

from batchrun.errors import JobError
from batchrun.exchange import Answer, Failure, RateLimits
from batchrun.version import __version__
from batchrun.wire.error_body import displayable
from batchrun.wire.messages import AnswerTooLargeError, MessageError, read_answer
from batchrun.wire.response_headers import rate_limits
from batchrun.wire.retry import broken_answer, classify_status, fate_unknown, never_sent
from batchrun.wire.stream import MessageAssembler
from batchrun.wire.transport import ReqwestTransport

# A refusal's body is read for its message alone.
_MOST_ERROR_BYTES = 65_536
_ERROR_SECONDS = 5.0
# A connection is kept only if its stream was read to the end, which is awaited this long after message_stop.
_DRAIN_SECONDS = 0.5
_MOST_DRAINED_CHUNKS = 16
# rustls' words for a certificate that doesn't prove the server's name: no repetition heals it.
_DISTRUSTED = "invalid peer certificate"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token of RFC 9110, in lower case


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
    async with transport or ReqwestTransport(url, settings.timeout, settings.connections) as wire:
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
        request = httpx.Request(
            "POST", url, headers=headers, stream=httpx.ByteStream(b""), extensions=extensions
        )
        self._attributes = vars(request)

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
        # Made of a template, since a new one costs ten times as much. Its headers are the same object every
        # time, which spares the transport a look at them; the length of the body is the transport's to add.
        request = httpx.Request.__new__(httpx.Request)
        vars(request).update(self._attributes, stream=httpx.ByteStream(body))
        return request

    async def _read(
        self, response: httpx.Response, started: float, deadline: anyio.CancelScope | None
    ) -> Answer | Failure:
        limits = rate_limits(response.headers.raw, time.time())
        if not response.is_success:
            if deadline is not None:
                deadline.deadline = (
                    math.inf
                )  # its own bound is on the page: the status must not be lost with it
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


def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    return aiter(cast("httpx.AsyncByteStream", response.stream))


async def _start_of_body(chunks: AsyncIterator[bytes]) -> bytes:
    start = b""
    # The status has come and counts, even where its page breaks off or never ends.
    with suppress(httpx.TransportError), anyio.move_on_after(_ERROR_SECONDS):
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
