"""Assembling a message from the events of a stream, so that the journal holds one form of answer. No I/O.

The order and the meaning of the events are those of Anthropic's streaming Messages API.
"""

from decimal import Decimal
from typing import Any

import msgspec

from batchrun.wire.messages import MessageError
from batchrun.wire.sse import Event, EventReader, EventStreamError

_CHARGES = ("remaining_credits", "estimated_credits_used", "estimated_cost_usd")
_EVENTS = frozenset(
    ("message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error")
)
_UNNAMED = "message"
# A delta's type: the field of its block that it lengthens.
_LENGTHENED_FIELD = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}

# Amounts stay decimal all the way: a cost that went through a binary float is no longer exact.
_DATA_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_BODY_ENCODER = msgspec.json.Encoder(decimal_format="number")


class StreamedError(MessageError):
    """The server sent an `error` event: `code` is its type, `str(error)` its message."""


class MessageAssembler:
    """Builds one message from its events. Only `message_stop` makes it whole."""

    def __init__(self) -> None:
        self._reader = EventReader()
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._usage: dict[str, Any] = {}
        self._charges: dict[str, Any] = {}
        self.whole = False

    @property
    def has_content(self) -> bool:
        """Whether any piece of a block has come: the first one marks the time to the first token."""
        return bool(self._pieces)

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the stream. Unknown events, and all after `message_stop`, are passed over.

        Raises StreamedError for an `error` event, and MessageError for what breaks the protocol.
        """
        try:
            events = self._reader.feed(chunk)
        except EventStreamError as error:
            raise MessageError(str(error)) from None
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        unknown = event.name not in _EVENTS and event.name != _UNNAMED
        if self.whole or unknown or event.data == "[DONE]":
            return
        data = _decode_data(event)
        match data.get("type", event.name):
            case "message_start":
                self._start_message(data)
            case "content_block_start":
                self._start_block(data)
            case "content_block_delta":
                self._lengthen_block(data)
            case "message_delta":
                self._change_message(data)
            case "message_stop":
                self._stated_message()
                self.whole = True
            case "error":
                raise _streamed_error(data)
            case _:
                return
        self._note_charges(data)

    def body(self) -> bytes:
        """The whole message as JSON. Raises MessageError where the stream ended before `message_stop`."""
        if not self.whole:
            raise MessageError("the event stream ended before message_stop", "stream_ended_early")
        for (index, field), pieces in self._pieces.items():
            block = self._blocks[index]
            block[field] = block.get(field, "") + "".join(pieces)
            if field == "partial_json":
                block["input"] = _tool_input(block.pop(field))
        message = {**self._stated_message(), **self._charges}
        message["content"] = [block for _, block in sorted(self._blocks.items())]
        if self._usage:
            message["usage"] = self._usage
        try:
            return _BODY_ENCODER.encode(message)
        except RecursionError:
            raise MessageError("the event stream holds a content block that is nested too deeply") from None

    def _stated_message(self) -> dict[str, Any]:
        if self._message is None:
            raise MessageError("the event stream has no message_start")
        return self._message

    def _start_message(self, data: dict[str, Any]) -> None:
        # LiteLLM's proxy starts a message twice. A start after content would mix two answers.
        if self._pieces:
            raise MessageError("the event stream starts a second message inside the first")
        message = _member(data, "message")
        self._message = {**(self._message or {}), **message}
        _merge_stated(self._usage, message.get("usage"))

    def _start_block(self, data: dict[str, Any]) -> None:
        self._stated_message()
        index = _index(data)
        if any(started == index for started, _ in self._pieces):
            raise MessageError("the event stream starts a content block twice")
        self._blocks[index] = _member(data, "content_block")

    def _lengthen_block(self, data: dict[str, Any]) -> None:
        index = _index(data)
        block = self._blocks.get(index)
        if block is None:
            raise MessageError("the event stream continues a content block that it never started")
        delta = _member(data, "delta")
        field = _LENGTHENED_FIELD.get(str(delta.get("type")))
        if field is None:
            return
        piece = delta.get(field)
        if not isinstance(piece, str) or not isinstance(block.get(field, ""), str):
            raise MessageError("the event stream has a delta without its text")
        self._pieces.setdefault((index, field), []).append(piece)

    def _change_message(self, data: dict[str, Any]) -> None:
        self._stated_message().update(_member(data, "delta"))
        _merge_stated(self._usage, data.get("usage"))

    def _note_charges(self, data: dict[str, Any]) -> None:
        for part in (data, data.get("message"), data.get("usage"), data.get("delta")):
            if isinstance(part, dict):
                _merge_stated(self._charges, {name: part.get(name) for name in _CHARGES})


def _decode_data(event: Event) -> dict[str, Any]:
    try:
        data = _DATA_DECODER.decode(event.data)
    except (ValueError, RecursionError):
        raise MessageError("the event stream has an event that is not JSON") from None
    if not isinstance(data, dict):
        raise MessageError("the event stream has an event that is not a JSON object")
    return data


def _merge_stated(stated: dict[str, Any], later: object) -> None:
    """The later value wins, unless it says nothing: some servers end with zeros after real counts."""
    if isinstance(later, dict):
        for name, value in later.items():
            if value or (value is not None and name not in stated):
                stated[name] = value


def _member(data: dict[str, Any], name: str) -> dict[str, Any]:
    member = data.get(name)
    if not isinstance(member, dict):
        raise MessageError(f"the event stream has an event without its {name}")
    return member


def _index(data: dict[str, Any]) -> int:
    index = data.get("index")
    if type(index) is not int:
        raise MessageError("the event stream has a content block without an index")
    return index


def _tool_input(text: str) -> Any:
    try:
        return _DATA_DECODER.decode(text or "{}")
    except (ValueError, RecursionError):
        raise MessageError("the event stream has a tool's input that is not JSON") from None


def _streamed_error(data: dict[str, Any]) -> StreamedError:
    error = data.get("error")
    fields = error if isinstance(error, dict) else {}
    return StreamedError(
        str(fields.get("message") or "the endpoint broke the stream off with an error"),
        str(fields.get("type") or "stream_error"),
    )
