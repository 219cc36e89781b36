"""Checks the messages in a column, turn by turn, and computes upper bounds of their tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from batchrun.client.messages.images import IMAGE_TOKENS, ImageError, checked_image

FRAMING_TOKENS_PER_MESSAGE = 16
"""Upper bound of the tokens that a chat template adds to a message or a content block.

A byte-level tokenizer makes at most one token of a UTF-8 byte, so bytes plus framing bound the input.
"""

_encoder = msgspec.json.Encoder(decimal_format="number")


class ConversationError(Exception):
    """A cell's messages can't be sent. `str(error)` says where and why."""


def conversation(cell: Any) -> list[dict[str, Any]]:
    """Returns the turns of a cell: a list of {role, content}, or that list as JSON.

    Content is text or a list of blocks. Fields that are null are left out of blocks. Raises
    ConversationError, and ImageError for an image block without a right source.
    """
    if isinstance(cell, str):
        try:
            cell = msgspec.json.decode(cell)
        except msgspec.DecodeError:
            raise ConversationError("The messages are not valid JSON.") from None
    if not isinstance(cell, list) or not cell:
        raise ConversationError("The messages must be a non-empty list of {role, content}.")
    return [_turn(turn, f"messages.{position}") for position, turn in enumerate(cell)]


def conversation_bound(turns: Sequence[Mapping[str, Any]]) -> int:
    """Returns an upper bound of the messages' input tokens."""
    bound = 0
    for turn in turns:  # a generator takes twice as long for one turn
        bound += FRAMING_TOKENS_PER_MESSAGE + content_bound(turn["content"])
    return bound


def unbounded_block(turns: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns the type of the first block without a token bound: a file (a PDF, say), by URL, id or data."""
    return next((kind for turn in turns if (kind := _unbounded(turn["content"]))), None)


def _unbounded(content: Any) -> str | None:
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, Mapping) or block.get("type") == "image":
            continue
        source = block.get("source")
        if isinstance(source, Mapping) and source.get("type") != "text":
            return str(block.get("type"))
        if kind := _unbounded(block.get("content")):
            return kind
    return None


def content_bound(content: Any) -> int:
    """Returns an upper bound of the input tokens in a text or in content blocks.

    An image counts by its tokens and not by its bytes, inside a tool result too.
    """
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode())
    return sum(map(_block_bound, content))


def _block_bound(block: Any) -> int:
    if not isinstance(block, Mapping):
        return FRAMING_TOKENS_PER_MESSAGE + len(_encoder.encode(block))
    if block.get("type") == "image":
        return IMAGE_TOKENS
    inner = block.get("content")
    if not isinstance(inner, list):
        return FRAMING_TOKENS_PER_MESSAGE + len(_encoder.encode(block))
    rest = {key: value for key, value in block.items() if key != "content"}
    return FRAMING_TOKENS_PER_MESSAGE + len(_encoder.encode(rest)) + content_bound(inner)


def _turn(turn: Any, where: str) -> dict[str, Any]:
    role = turn.get("role") if isinstance(turn, Mapping) else None
    if role not in ("user", "assistant"):
        advice = " A system prompt belongs in prompt.system, a template too." if role == "system" else ""
        raise ConversationError(f"{where}: role must be user or assistant.{advice}")
    content = turn.get("content")
    if isinstance(content, list) and content:
        content = [_block(block, f"{where}.content.{position}") for position, block in enumerate(content)]
    elif not (isinstance(content, str) and content.strip()):
        raise ConversationError(f"{where}: content must be text or a list of blocks.")
    return {"role": role, "content": content}


def _block(block: Any, where: str) -> dict[str, Any]:
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        raise ConversationError(f"{where}: a content block is an object with a type, such as text or image.")
    whole = _without_nulls(block)
    if whole["type"] == "text" and not (isinstance(whole.get("text"), str) and whole["text"].strip()):
        raise ConversationError(f"{where}: a text block needs a text that is not empty.")
    if whole["type"] == "image":
        try:
            return checked_image(whole)
        except ImageError as error:
            raise ImageError(f"{where}: {error}", error.code) from None
    return whole


def _without_nulls(block: Mapping[str, Any]) -> dict[str, Any]:
    """Drops null fields: a block from a list of structs has every field that any block has."""
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in block.items()
        if value is not None
    }
