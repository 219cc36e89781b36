"""Reads one response as it arrives: unpacked, bounded, and classified as a value at its end. No I/O."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from batchrun.client.decompress import GZIP, DecompressionError, Unpacker
from batchrun.client.error_body import error_object, read_error_body, sanitize
from batchrun.client.headers import rate_limits
from batchrun.client.messages.message import AnswerTooLargeError, MessageError
from batchrun.client.messages.response import read_response
from batchrun.client.messages.stream import MessageAssembler, StreamedError, read_whole
from batchrun.client.redaction import Private, private_headers
from batchrun.client.retry import broken_answer, classify_status, fate_unknown, never_sent, stated_failure
from batchrun.client.settings import EndpointSettings
from batchrun.client.wire import TLS_SERVER, ConnectionMemory, Headers, Interruption
from batchrun.exchange import Failure, FailureAction, RateLimits, Response

# Only the message of an error response is read.
_MOST_ERROR_BYTES = 65_536
_EVENT_STARTS = (b"event:", b"data:", b":", b"id:", b"retry:")
_LONGEST_EVENT_START = 6
# The texts of nginx, Apache, and servers in Go.
_PLAIN_HTTP_REFUSED = re.compile(
    rb"plain HTTP request was sent to HTTPS|speaking plain HTTP to an SSL|HTTP request to an HTTPS server",
    re.IGNORECASE,
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class AnswerIds:
    """Recognizes a response to the request before, and servers whose response ids mean nothing.

    A server may send a second, unrequested response, which would be taken for the response to the
    connection's next request. Its id reveals it, unless the server gives all responses the same id. A
    connection's first response can't be a leftover: if it has the id of another request's response, ids mean
    nothing.
    """

    def __init__(self) -> None:
        self._ids_repeat = False
        self._latest: tuple[object, int] | None = None

    def is_leftover(self, response_id: str | None, request: bytes, memory: ConnectionMemory) -> bool:
        """Whether a response is the one to the connection's request before; notes its id in `memory`."""
        if self._ids_repeat or response_id is None:
            return False
        identified = response_id, hash(request)
        before, memory.last = memory.last, identified
        if before is None and self._latest is not None and _same_id_of_another(self._latest, identified):
            self._ids_repeat = True
        self._latest = identified
        return not self._ids_repeat and before is not None and _same_id_of_another(before, identified)


def _same_id_of_another(before: tuple[object, int], identified: tuple[object, int]) -> bool:
    return before[0] == identified[0] and before[1] != identified[1]


class ResponseReader:
    """Receives the response of one exchange; `outcome` is valid once `end` was called."""

    def __init__(
        self,
        settings: EndpointSettings,
        ids: AnswerIds,
        body: bytes,
        begun: Callable[[], None] | None = None,
    ) -> None:
        self.outcome: Response | Failure | None = None
        self._settings = settings
        self._ids = ids
        self._request = body
        self._begun = begun
        self._started = time.perf_counter()
        self._status: int | None = None
        self._succeeded = False
        self._headers: Headers = []
        self._memory: ConnectionMemory | None = None
        self._limits: RateLimits | None = None
        self._unpacker: Unpacker | None = None
        self._pieces: list[bytes] = []
        self._received = 0
        self._declared_events = False
        self._format_known = False
        self._assembler: MessageAssembler | None = None
        self._first_token_latency: float | None = None
        self._error: MessageError | DecompressionError | None = None

    def begin(self, status: int, headers: Headers, memory: ConnectionMemory | None) -> None:
        """Takes the head."""
        self._status, self._headers, self._memory = status, headers, memory
        self._succeeded = 200 <= status < 300
        self._limits = rate_limits(headers, time.time())
        encodings = []
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-encoding":
                encodings.append(value)
            elif lowered == b"content-type":
                self._declared_events = value.lower().startswith(b"text/event-stream")
        if encodings:
            self._unpacker = Unpacker(encodings)
        if self._begun is not None and self._succeeded:
            self._begun()

    def feed(self, piece: bytes) -> bool:
        """Takes a piece of the body. Returns whether more is needed."""
        if self._unpacker is None:
            if self._received or not piece.startswith(GZIP[:1]):
                return self._take(piece)
            self._unpacker = Unpacker([])
        return self._take_all(self._unpacker.feed(piece))

    def may_be_whole(self) -> bool:
        """Returns whether the message seems to have ended."""
        if self._assembler is not None:
            return self._assembler.ended
        return self._succeeded and bool(self._pieces) and self._pieces[-1].rstrip().endswith(b"}")

    def is_whole(self) -> bool:
        """Returns whether the body so far is a complete message."""
        if not self.may_be_whole():
            return False
        try:
            self._answer()
        except (MessageError, DecompressionError):
            return False
        return True

    def end(self, interruption: Interruption | None) -> bool:
        """Takes the end. Returns False if the response was broken, or did not belong to this request."""
        if self._unpacker is not None and self._error is None:
            self._take_all(self._unpacker.end())
        self.outcome = self._outcome(interruption)
        if self._error is not None:
            return False  # what else it would send is not worth waiting for
        if self._memory is None or not isinstance(self.outcome, Response):
            return True
        if self._ids.is_leftover(self.outcome.completion.response_id, self._request, self._memory):
            self.outcome = fate_unknown(
                "misplaced_answer",
                "the connection repeated the response to an earlier request; it was not accepted",
                self._latency,
            )
            return False
        return True

    def result(self) -> Response | Failure:
        """Returns the outcome, after `end`."""
        assert self.outcome is not None  # noqa: S101  # every exchange ends once
        return self.outcome

    @property
    def _private(self) -> Private:
        settings = self._settings
        return Private(settings.api_key, private_headers(settings.headers), self._request)

    @property
    def _latency(self) -> float:
        return time.perf_counter() - self._started

    def _take_all(self, pieces: Iterator[bytes]) -> bool:
        try:
            return all(self._take(piece) for piece in pieces)
        except DecompressionError as error:
            self._error = error
            return False

    def _take(self, piece: bytes) -> bool:
        self._received += len(piece)
        if not self._succeeded:
            self._pieces.append(piece)
            return self._received < _MOST_ERROR_BYTES
        if self._received > self._settings.max_answer_bytes:
            self._error = AnswerTooLargeError(self._settings.max_answer_bytes)
            return False
        if self._assembler is not None:
            return self._assemble(piece)
        self._pieces.append(piece)
        return self._format_known or self._recognise_format()

    def _recognise_format(self) -> bool:
        """Recognizes an event stream by its first bytes, since headers are wrong at times."""
        start = b"".join(self._pieces).lstrip(_BYTE_ORDER_MARK + b" \t\r\n")
        if len(start) < _LONGEST_EVENT_START:
            return True
        self._format_known = True
        if start.startswith(_EVENT_STARTS) or (self._declared_events and start[:1] not in b"{["):
            self._assembler = MessageAssembler()
            return self._assemble(b"".join(self._pieces))
        return True

    def _assemble(self, piece: bytes) -> bool:
        assembler = self._assembler
        assert assembler is not None  # noqa: S101  # for the type checker
        try:
            assembler.feed(piece)
        except MessageError as error:
            self._error = error
            return False
        if self._first_token_latency is None and assembler.has_content:
            self._first_token_latency = self._latency
        return not assembler.whole

    def _outcome(self, interruption: Interruption | None) -> Response | Failure:
        if interruption is not None and (self._status is None or interruption.unrequested):
            return self._unanswered(interruption)
        if self._status is None:
            return self._unanswered(Interruption("connection_lost"))
        if not self._succeeded:
            return self._refusal(self._status)
        try:
            return self._answer()
        except DecompressionError as error:
            return self._unanswered(Interruption("connection_lost", f"damaged compression: {error}"))
        except MessageError as error:
            if interruption is not None and error is not self._error:
                return self._unanswered(interruption)
            return self._no_answer(error, self._status)

    def _no_answer(self, error: MessageError, status: int) -> Failure:
        """Classifies a body with a status of success that is not a message, such as an error object."""
        private, latency, limits = self._private, self._latency, self._limits
        if isinstance(error, StreamedError):
            said = error_object(error.fields, private)
            return stated_failure(said, status, latency, limits, begun=error.begun)
        if self._error is None:
            said = read_error_body(b"".join(self._pieces)[:_MOST_ERROR_BYTES], private)
            if said.stated:
                return stated_failure(said, status, latency, limits)
        return broken_answer(error, status, latency, limits, private)

    def _answer(self) -> Response:
        """Returns the response where a complete one has arrived, however its connection ended."""
        if self._error is not None:
            raise self._error
        body = b"".join(self._pieces) if self._assembler is None else self._assembler.body()
        # Bytes whose format is not known yet may be the whole of a short stream.
        read = read_response if self._format_known else read_whole
        return read(body, self._latency, self._first_token_latency, self._limits)

    def _refusal(self, status: int) -> Failure:
        body = b"".join(self._pieces)[:_MOST_ERROR_BYTES]
        if status == 400 and self._settings.base_url.startswith("http:") and _PLAIN_HTTP_REFUSED.search(body):
            return never_sent("server_speaks_tls", TLS_SERVER, self._latency, hopeless=True)
        return classify_status(
            status,
            {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers},
            body,
            now=time.time(),
            private=self._private,
            latency=self._latency,
            limits=self._limits,
        )

    def _unanswered(self, interruption: Interruption) -> Failure:
        settings, code = self._settings, interruption.code
        text = sanitize(interruption.text, Private(settings.api_key))
        match code:
            case "timeout":
                text = f"no complete response within endpoint.timeout_seconds = {settings.timeout:g}"
            case "idle_timeout":
                bound = f"endpoint.idle_timeout_seconds = {settings.idle_timeout:g}"
                text = f"the stream fell silent for {bound}"
            case "connection_lost":
                text = f"the connection broke: {text}"
            case "connect_timeout":
                text = f"no connection in time to {text}"
            case "connect_failed":
                text = f"no connection to {text}"
        if not interruption.sent:
            return never_sent(code, text, self._latency, hopeless=interruption.hopeless)
        failure = fate_unknown(code, text, self._latency)
        return replace(failure, action=FailureAction.STOP_RUN) if interruption.hopeless else failure
