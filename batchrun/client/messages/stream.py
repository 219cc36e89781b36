"""Assembles a message from a stream's events, so that the journal holds responses in one format. No I/O.

The events have the order and meaning of Anthropic's streaming Messages API. Apart from the text, anything may
be missing; whatever could mix or cut the text is an error.
"""

from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from batchrun.client.messages.lenient import count, first_object, whole_text
from batchrun.client.messages.message import MessageError
from batchrun.client.messages.response import read_response
from batchrun.client.sse import Event, EventReader
from batchrun.exchange import RateLimits, Response

_CHARGES = ("remaining_credits", "estimated_credits_used", "estimated_cost_usd")
_EVENTS = frozenset(
    (
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    )
)
_UNNAMED = "message"
# Delta type: the block's field that it extends, and the type of a block that it identifies.
_LENGTHENED_FIELD = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "thinking"),
    "input_json_delta": ("partial_json", "tool_use"),
}
_BEGINNINGS_OF_STREAMS = (b"event:", b"data:", b"id:", b"retry:", b":")
_BLANK = b"\xef\xbb\xbf \t\r\n"

# Amounts stay decimal throughout: a cost converted to a binary float is no longer exact.
_DATA_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_BODY_ENCODER = msgspec.json.Encoder(decimal_format="number")


class StreamedError(MessageError):
    """The server sent an `error` event: `code` is its type, `str(error)` its message.

    `fields` are those of its error object; `begun` says that a message had begun before.
    """

    def __init__(self, fields: dict[str, Any], *, begun: bool) -> None:
        message = str(fields.get("message") or "the endpoint broke the stream off with an error")
        super().__init__(message, str(fields.get("type") or fields.get("code") or "stream_error"))
        self.fields = fields
        self.begun = begun


def read_whole(
    body: bytes, latency: float, first_token_latency: float | None = None, limits: RateLimits | None = None
) -> Response:
    """Returns the response in a body that came in one piece, also where it is an event stream.

    Raises MessageError as MessageAssembler and `read_response` do.
    """
    if _is_stream(body):
        assembler = MessageAssembler()
        assembler.feed(body)
        body = assembler.body()
    return read_response(body, latency, first_token_latency, limits)


class MessageAssembler:
    """Builds one message from its events.

    Its cases: JSON in place of a stream is kept as it is. A stream has `ended` once it has given its
    `stop_reason`: nothing later, nor its absence, can invalidate it. With `message_stop` it is `whole`.
    """

    def __init__(self) -> None:
        self._reader = EventReader()
        self._before_first_event: list[bytes] | None = []  # JSON perhaps; None once it is a stream
        self._message: dict[str, Any] | None = None
        # A block's key is its place here; `_key_of` has the newest block of each index.
        self._blocks: list[tuple[int, dict[str, Any]]] = []
        self._key_of: dict[int, int] = {}
        self._stopped: set[int] = set()
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._usage: dict[str, Any] = {}
        self._usage_deltas: dict[str, list[Any]] = {}
        self._charges: dict[str, Any] = {}
        self.ended = False
        self.whole = False

    @property
    def has_content(self) -> bool:
        """Whether any piece of a block has arrived: the first one marks the time to the first token."""
        return bool(self._pieces)

    def feed(self, chunk: bytes) -> None:
        """Takes the next piece of the stream. Ignores unknown events, and all events after `message_stop`.

        Raises StreamedError for an `error` event, and MessageError for a violation of the protocol, both only
        before the stream has ended.
        """
        if self._before_first_event is not None:
            self._before_first_event.append(chunk)
        for event in self._reader.feed(chunk):
            self._take(event)

    def body(self) -> bytes:
        """Returns the message as JSON. Raises MessageError where the stream has not ended."""
        body = b"".join(self._before_first_event or ())
        if b"{" in body and not _is_stream(body):
            return body
        if not self.ended and not self.whole and (event := self._reader.rest()) is not None:
            with suppress(MessageError):  # half an event is unusable
                self._take(event)
        if not self.ended and not self.whole:
            raise MessageError("the event stream ended before its stop_reason", "stream_ended_early")
        message = {"type": "message", **(self._message or {}), **self._charges}
        message["content"] = self._content()
        if usage := self._stated_usage():
            message["usage"] = usage
        try:
            return _encoded(message)
        except RecursionError:
            raise MessageError("the event stream holds a content block that is nested too deeply") from None

    def _take(self, event: Event) -> None:
        unknown = event.name not in _EVENTS and event.name != _UNNAMED
        if self.whole or unknown or event.data == "[DONE]":
            return
        try:
            data = _decode_data(event)
            self._before_first_event = None
            self._apply(data.get("type", event.name), data)
        except MessageError:
            if not self.ended:
                raise
        else:
            self._note_charges(data)

    def _apply(self, kind: object, data: dict[str, Any]) -> None:
        match kind:
            case "message_start":
                self._start_message(data)
            case "content_block_start":
                self._start_block(data)
            case "content_block_delta":
                self._lengthen_block(data)
            case "content_block_stop":
                self._stop_block(data)
            case "message_delta":
                self._change_message(data)
            case "message_stop":
                if self._message is None and not self._blocks:
                    raise MessageError("the event stream has no message_start")
                self.whole = True
            case "error":
                raise self._streamed_error(data)
            case _ if isinstance(data.get("error"), dict):  # gateways leave the type out
                raise self._streamed_error(data)

    def _streamed_error(self, data: dict[str, Any]) -> StreamedError:
        error = data.get("error")
        fields = error if isinstance(error, dict) else {"message": error} if isinstance(error, str) else {}
        return StreamedError(fields, begun=self._message is not None or bool(self._blocks))

    def _start_message(self, data: dict[str, Any]) -> None:
        # LiteLLM's proxy starts a message twice. A start after content would mix two responses.
        if self._pieces:
            raise MessageError("the event stream starts a second message inside the first")
        message = _member(data, "message")
        self._message = {**(self._message or {}), **message}
        _merge_stated(self._usage, message.get("usage"))

    def _start_block(self, data: dict[str, Any]) -> None:
        index, block = _index(data), _member(data, "content_block")
        key = None if index is None else self._key_of.get(index)
        if key is None or key in self._stopped:
            self._open_block(index, block)
        elif any(started == key for started, _ in self._pieces):
            raise MessageError("the event stream starts a content block twice")
        else:
            self._blocks[key] = (self._blocks[key][0], block)

    def _open_block(self, index: int | None, block: dict[str, Any]) -> int:
        """Returns the key of a new block; one without an index goes behind all others."""
        if index is None:
            index = 1 + max((index for index, _ in self._blocks), default=-1)
        self._key_of[index] = len(self._blocks)
        self._blocks.append((index, block))
        return self._key_of[index]

    def _stop_block(self, data: dict[str, Any]) -> None:
        """Marks the newest block of the index as stopped: some servers give every block the same index."""
        index = _index(data)
        if index is not None and index in self._key_of:
            self._stopped.add(self._key_of[index])

    def _lengthen_block(self, data: dict[str, Any]) -> None:
        index, delta = _index(data), _member(data, "delta")
        field, kind = _LENGTHENED_FIELD.get(str(delta.get("type")), (None, ""))
        if field is None:
            return
        piece = delta.get(field)
        if piece is None:
            return
        if not isinstance(piece, str):
            raise MessageError("the event stream has a delta whose text is not a string")
        key = len(self._blocks) - 1 if index is None else self._key_of.get(index, -1)
        if key < 0:
            key = self._open_block(index, {"type": kind})
        self._pieces.setdefault((key, field), []).append(piece)

    def _change_message(self, data: dict[str, Any]) -> None:
        delta = _member(data, "delta")
        self._message = {**(self._message or {}), **delta}
        for usage in (delta.get("usage"), data.get("usage")):
            for name, value in usage.items() if isinstance(usage, dict) else ():
                if value or value == 0:
                    self._usage_deltas.setdefault(name, []).append(value)
        self.ended = self.ended or delta.get("stop_reason") is not None

    def _note_charges(self, data: dict[str, Any]) -> None:
        for part in (data, data.get("message"), data.get("usage"), data.get("delta")):
            if isinstance(part, dict):
                _merge_stated(self._charges, {name: part.get(name) for name in _CHARGES})

    def _content(self) -> list[dict[str, Any]]:
        order = sorted(range(len(self._blocks)), key=lambda key: (self._blocks[key][0], key))
        return [block for key in order for block in self._finished(key)]

    def _finished(self, key: int) -> list[dict[str, Any]]:
        """Returns the block with its pieces; text within a block of another kind becomes its own block."""
        block = dict(self._blocks[key][1])
        text = self._joined(key, "text")
        for field in ("thinking", "signature"):
            if piece := self._joined(key, field):
                block[field] = f"{block.get(field) or ''}{piece}"
        if given := self._joined(key, "partial_json"):
            block |= _tool_input(given)
        if text and block.get("type") not in ("text", None):
            return [block, {"type": "text", "text": text}]
        if text:
            block = {**block, "type": "text", "text": f"{block.get('text') or ''}{text}"}
        return [block]

    def _joined(self, key: int, field: str) -> str:
        return whole_text("".join(self._pieces.get((key, field), ())))

    def _stated_usage(self) -> dict[str, Any]:
        """Returns the counts of the last event with counts, or the sum where each event counts its own piece.

        Counts that only grow are totals, others belong to the pieces. `message_start` states the output
        tokens before there are any.
        """
        usage = dict(self._usage)
        if usage.get("output_tokens"):
            del usage["output_tokens"]
        for name, values in self._usage_deltas.items():
            stated = [value for value in values if value]
            if stated or not usage.get(name):
                usage[name] = _total(stated) if stated else 0
        return usage


def _is_stream(body: bytes) -> bool:
    return body[:200].lstrip(_BLANK).startswith(_BEGINNINGS_OF_STREAMS)


def _total(values: list[Any]) -> Any:
    counts = [number for value in values if (number := count(value)) is not None]
    grows = all(earlier <= later for earlier, later in pairwise(counts))
    return values[-1] if grows or len(counts) < len(values) else sum(counts)


def _encoded(message: dict[str, Any]) -> bytes:
    try:
        return _BODY_ENCODER.encode(message)
    except UnicodeEncodeError:
        return _BODY_ENCODER.encode(_with_whole_texts(message))


def _with_whole_texts(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, list):
        return [_with_whole_texts(item) for item in value]
    if isinstance(value, dict):
        return {whole_text(name): _with_whole_texts(item) for name, item in value.items()}
    return value


def _decode_data(event: Event) -> dict[str, Any]:
    try:
        data = _DATA_DECODER.decode(event.data)
    except (ValueError, RecursionError):
        data = first_object(event.data)
        if data is None:
            raise MessageError("the event stream has an event that is not JSON") from None
    if not isinstance(data, dict):
        raise MessageError("the event stream has an event that is not a JSON object")
    return data


def _merge_stated(stated: dict[str, Any], later: object) -> None:
    """Merges the later values, unless they are empty: some servers end with zeros after real counts."""
    if isinstance(later, dict):
        for name, value in later.items():
            if value or (value is not None and name not in stated):
                stated[name] = value


def _member(data: dict[str, Any], name: str) -> dict[str, Any]:
    member = data.get(name)
    return member if isinstance(member, dict) else {}


def _index(data: dict[str, Any]) -> int | None:
    index = data.get("index")
    return index if type(index) is int else None


def _tool_input(text: str) -> dict[str, Any]:
    """Returns a tool's input decoded, or as its text where it was cut off."""
    try:
        return {"input": _DATA_DECODER.decode(text)}
    except (ValueError, RecursionError):
        return {"partial_json": text}
