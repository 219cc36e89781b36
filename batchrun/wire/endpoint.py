"""The wire on the client's side: the one place that speaks HTTP.

reqwest (Rust) moves the bytes: HTTP/1.1, TLS verified, bodies decompressed, no cookies, no redirects. No
retries either: a request goes to a second connection only where an idle one turned out closed before a byte
of the request was written. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured, but never for this
machine's own address.

pyreqwest lets an exchange whose reader was cancelled before the response began run on, unheard, until its
answer or the time-out.
"""

import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.bytes import Bytes
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError
from pyreqwest.http import HeaderMap, Url
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from batchrun import __version__
from batchrun.errors import JobError
from batchrun.exchange import Answer, Failure, RateLimits
from batchrun.job.presets import is_loopback
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
async def open_endpoint(settings: EndpointSettings) -> "AsyncIterator[Endpoint]":
    """An endpoint with its connections, which are closed at the end.

    Raises JobError where the address is no http(s) URL or a header can't be sent.
    """
    url = _messages_url(settings.base_url)
    headers = _request_headers(settings)
    async with _client(settings, url) as client:
        yield Endpoint(settings, url, headers, client)


class Endpoint:
    """One address of `POST /v1/messages`. Made by `open_endpoint`."""

    def __init__(
        self, settings: EndpointSettings, url: Url, headers: list[tuple[str, str]], client: Client
    ) -> None:
        self._settings = settings
        self._url = url
        self._headers = headers
        self._client = client

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
        exchange = self._request(body)
        try:
            response = await _heeding_cancellation(exchange.__aenter__())
            pieces = _Pieces(exchange, response)
            try:
                return await self._read(response, pieces, started, deadline)
            finally:
                await pieces.aclose()
        except PyreqwestError as error:
            return self._lost(error, started)

    def _request(self, body: bytes) -> StreamRequest:
        builder = self._client.post(self._url).headers(self._headers).body_bytes(body)
        # Else nothing is seen of a response until 64 KiB of its body or the end are there.
        return builder.streamed_read_buffer_limit(0).build_streamed()

    async def _read(
        self, response: Response, pieces: "_Pieces", started: float, deadline: anyio.CancelScope | None
    ) -> Answer | Failure:
        status, headers = response.status, _readable_headers(response.headers)
        limits = rate_limits(headers, time.time())
        if not 200 <= status < 300:
            return await self._refusal(status, dict(headers), pieces, started, limits)
        try:
            if deadline is not None and _is_event_stream(dict(headers)):
                return await self._read_events(pieces, started, deadline, limits)
            body = await self._read_whole(pieces)
            return read_answer(body, _since(started), limits=limits)
        except MessageError as error:
            return broken_answer(error, status, _since(started), limits, self._settings.api_key)

    async def _read_whole(self, pieces: "_Pieces") -> bytes:
        read, room = [], self._settings.max_answer_bytes
        while (piece := await pieces.next()) is not None:
            room -= len(piece)
            if room < 0:
                raise AnswerTooLargeError(self._settings.max_answer_bytes)
            read.append(piece)
        return b"".join(read)

    async def _read_events(
        self,
        pieces: "_Pieces",
        started: float,
        deadline: anyio.CancelScope,
        limits: RateLimits | None,
    ) -> Answer:
        assembler, room = MessageAssembler(), self._settings.max_answer_bytes
        end, first_token_latency = deadline.deadline, None
        while (piece := await pieces.next()) is not None:
            # The idle time-out begins with the first piece: a long prompt is the whole time-out's matter.
            deadline.deadline = min(end, anyio.current_time() + self._settings.idle_timeout)
            room -= len(piece)
            if room < 0:
                raise AnswerTooLargeError(self._settings.max_answer_bytes)
            assembler.feed(piece.to_bytes())
            if first_token_latency is None and assembler.has_content:
                first_token_latency = _since(started)
            if assembler.whole:
                break
        answer = read_answer(assembler.body(), _since(started), first_token_latency, limits)
        deadline.deadline = math.inf
        await _drain(pieces)
        return answer

    async def _refusal(
        self,
        status: int,
        headers: Mapping[str, str],
        pieces: "_Pieces",
        started: float,
        limits: RateLimits | None,
    ) -> Failure:
        return classify_status(
            status,
            headers,
            await _start_of_body(pieces),
            url=str(self._url),
            now=time.time(),
            key=self._settings.api_key,
            latency=_since(started),
            limits=limits,
        )

    def _lost(self, error: PyreqwestError, started: float) -> Failure:
        """What an error of pyreqwest proves.

        Its class doesn't tell: a reset after sending is a ConnectError, too. Its causes do: hyper says
        "client error (Connect)" for what happens before a connection can take a request.
        """
        details = getattr(error, "details", None) or {}
        causes = [cause["message"] for cause in details.get("causes") or ()]
        latency, timed_out = _since(started), isinstance(error, RequestTimeoutError)
        reason = (causes[-1] if causes else error.message) or type(error).__name__
        text = displayable(f"{self._url.host_str}: {reason}", self._settings.api_key)
        if "client error (Connect)" in causes:
            if timed_out:
                return never_sent("connect_timeout", f"no connection in time to {text}", latency)
            if _DISTRUSTED in reason:
                return never_sent("untrusted_certificate", text, latency, hopeless=True)
            return never_sent("connect_failed", f"no connection to {text}", latency)
        if timed_out:
            return self._out_of_time(started)
        return fate_unknown("connection_lost", f"the connection broke: {text}", latency)

    def _out_of_time(self, started: float) -> Failure:
        message = f"no whole answer within endpoint.timeout_seconds = {self._settings.timeout:g}"
        return fate_unknown("timeout", message, _since(started))

    def _silent(self, started: float) -> Failure:
        message = (
            f"the stream fell silent for endpoint.idle_timeout_seconds = {self._settings.idle_timeout:g}"
        )
        return fate_unknown("idle_timeout", message, _since(started))


def _client(settings: EndpointSettings, url: Url) -> Client:
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
    return (builder.no_proxy() if is_loopback(_host(url)) else builder).build()


class _Pieces:
    """The body of a response as it comes."""

    def __init__(self, exchange: StreamRequest, response: Response) -> None:
        self._exchange = exchange
        self._reader = response.body_reader
        self._at_end = False

    async def next(self) -> Bytes | None:
        """The next piece, None at the end. Raises PyreqwestError."""
        piece = await _heeding_cancellation(self._reader.read_chunk())
        self._at_end = piece is None
        return piece

    async def aclose(self) -> None:
        # No wait after the end, and none that a cancellation could break: the answer would be lost with it.
        if not self._at_end:
            # An answer that is there counts, however its connection ends.
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._exchange.__aexit__(None, None, None)


async def _heeding_cancellation(work: Awaitable[_T]) -> _T:
    """pyreqwest raises a cancellation of its own, which an anyio scope doesn't know and would let through."""
    try:
        return await work
    except anyio.get_cancelled_exc_class():
        await checkpoint_if_cancelled()
        raise


def _readable_headers(headers: HeaderMap) -> list[tuple[str, str]]:
    try:
        return list(headers.items())
    except ValueError:  # a header that is not ASCII must not cost a paid answer
        readable = []
        for name in set(headers.keys()):
            with suppress(ValueError):
                readable += [(name, value) for value in headers.getall(name)]
        return readable


async def _start_of_body(pieces: _Pieces) -> bytes:
    start = b""
    # The status has come and counts, even where its page breaks off.
    with suppress(PyreqwestError):
        while len(start) <= _MOST_ERROR_BYTES and (piece := await pieces.next()) is not None:
            start += piece.to_bytes()
    return start[:_MOST_ERROR_BYTES]


async def _drain(pieces: _Pieces) -> None:
    """Read what is left of a stream whose message is whole, so that its connection can be used again."""
    with anyio.move_on_after(_DRAIN_SECONDS, shield=True), suppress(PyreqwestError):
        for _ in range(_MOST_DRAINED_CHUNKS):
            if await pieces.next() is None:
                return


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _since(started: float) -> float:
    return time.perf_counter() - started


def _messages_url(base_url: str) -> Url:
    try:
        given, url = urlsplit(base_url), Url(base_url.rstrip("/") + "/v1/messages")
    except ValueError as error:
        raise JobError(f"[endpoint] base_url: {error}") from None
    # Url would take the path's first part for a host that is missing.
    if url.scheme not in ("http", "https") or not given.hostname:
        raise JobError("[endpoint] base_url: expected http://host or https://host")
    return url


def _host(url: Url) -> str:
    """Without the brackets of an IPv6 address."""
    return urlsplit(str(url)).hostname or ""


def _request_headers(settings: EndpointSettings) -> list[tuple[str, str]]:
    """The headers of every request, all but host and length. Those of the settings win over the defaults."""
    headers = {
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
    return list(headers.items())
