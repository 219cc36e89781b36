"""Reads a request's body as text for a person."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Turn = tuple[str, str]
"""The role (`system`, `user`, `assistant`) and the text of a turn."""


def turns_of(body: bytes) -> list[Turn]:
    """Returns the system prompt and the messages of a request; for a block that isn't text, its type."""
    fields: dict[str, Any] = msgspec.json.decode(body)
    system = [("system", _text(fields["system"]))] if fields.get("system") else []
    return [*system, *((turn["role"], _text(turn["content"])) for turn in fields["messages"])]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(_texts(content))


def _texts(blocks: list[Any]) -> Iterator[str]:
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        yield str(block["text"]) if kind == "text" else f"[{kind or 'content'}]"
