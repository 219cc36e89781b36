"""Reads responses that the strict decoder refuses: unreadable fields become None. No I/O.

A response is paid for, so it is worthless only if its text can't be found. Servers and proxies are known to
send token counts as floats or as text, content as a plain string, blocks that are null or untyped, NaN, a
byte order mark, bytes behind the JSON, and strings that are not UTF-8.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from math import ceil
from typing import Any

from batchrun.client.messages.message import (
    MOST_CREDITS,
    MOST_TOKENS,
    MOST_USD,
    CacheCreation,
    ContentBlock,
    Message,
    Usage,
)

_MOST_DIGITS = 40
_TEXT_TYPES = ("text", "output_text")
_ESCAPED_NEITHER_BYTE_NOR_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def read_leniently(body: bytes) -> Message | None:
    """Returns the message in `body`, None where its content can't be found."""
    try:
        value = first_object(body.decode(json.detect_encoding(body), "surrogateescape"))
    except UnicodeDecodeError:  # not UTF-8
        return None
    return None if value is None or value.get("type") == "error" else _message(value)


def first_object(text: str) -> dict[str, Any] | None:
    """Returns the JSON object that begins at the first brace, whatever surrounds it.

    NaN, infinities and numbers out of range become None; other fractions become decimals.
    """
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def whole_text(text: str) -> str:
    """Returns `text` as valid UTF-8: joins halves of surrogate pairs and of characters, replaces others.

    Halves come from escapes such as \\ud83d, and from bytes that were decoded with `surrogateescape`: a
    server that cuts its response into pieces may cut through a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        known = _ESCAPED_NEITHER_BYTE_NOR_HALF.sub("\N{REPLACEMENT CHARACTER}", joined)
        return known.encode(errors="surrogateescape").decode(errors="replace")
    return text


def _message(value: dict[str, Any]) -> Message | None:
    content = _content(value)
    if content is None or (value.get("type") not in ("message", None) and not any(b.text for b in content)):
        return None
    return Message(
        "message",
        content,
        id=_word(value.get("id")),
        role=_word(value.get("role")),
        model=_word(value.get("model")),
        stop_reason=_word(value.get("stop_reason")),
        stop_sequence=_word(value.get("stop_sequence")),
        usage=_usage(value.get("usage")),
        remaining_credits=_number(value.get("remaining_credits"), -MOST_CREDITS, MOST_CREDITS),
        estimated_credits_used=_number(value.get("estimated_credits_used"), 0, MOST_CREDITS),
        estimated_cost_usd=_decimal(value.get("estimated_cost_usd"), 0, MOST_USD),
    )


def _content(value: dict[str, Any]) -> list[ContentBlock] | None:
    """Returns the blocks with their text; None without content, or where a text can't be read.

    Blocks without a type count as text only where no block has a type.
    """
    content = value.get("content")
    if content is None:
        # null with a stop reason: an empty message; without one it may not be a message at all.
        return [] if "content" in value and isinstance(value.get("stop_reason"), str) else None
    blocks = content if isinstance(content, list) else [content]
    typed = any(_text(block, _TEXT_TYPES) for block in blocks)
    types: tuple[str | None, ...] = _TEXT_TYPES if typed else (None,)
    texts = [_text(block, types) for block in blocks]
    if not any(texts) and (value.get("error") or any(_unreadable(block) for block in blocks)):
        return None
    return [
        ContentBlock("text", whole_text(text)) if text else ContentBlock(str(block["type"]))
        for text, block in zip(texts, blocks, strict=True)
        if text or _of_another_kind(block)
    ]


def _text(block: Any, types: tuple[str | None, ...]) -> str | None:
    if isinstance(block, str):
        return block if None in types else None
    if not isinstance(block, dict):
        return None
    kind, text = block.get("type"), block.get("text")
    kind = kind if isinstance(kind, str) else None
    return text if kind in types and isinstance(text, str) else None


def _unreadable(block: Any) -> bool:
    """Whether this block may have held the missing text: it is neither empty nor of another kind."""
    if isinstance(block, dict):
        return not _of_another_kind(block) and block.get("text") != ""
    return block is not None and block != ""


def _of_another_kind(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(block.get("type"), str) and block["type"] not in _TEXT_TYPES


def _usage(value: Any) -> Usage | None:
    """Returns each readable count. If one of the input's three can't be read, their sum is unknown."""
    if not isinstance(value, dict):
        return None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = [count(value.get(name)) for name in names]
    if any(count is None and value.get(name) is not None for count, name in zip(counts, names, strict=True)):
        counts = [None] * len(names)
    by_lifetime = None if counts[0] is None else _cache_creation(value.get("cache_creation"))
    return Usage(counts[0], count(value.get("output_tokens")), counts[1], counts[2], by_lifetime)


def _cache_creation(value: Any) -> CacheCreation | None:
    if not isinstance(value, dict):
        return None
    return CacheCreation(
        count(value.get("ephemeral_5m_input_tokens")), count(value.get("ephemeral_1h_input_tokens"))
    )


def count(value: Any) -> int | None:
    """Returns a number of tokens, rounded up, also from a fraction or from text; else None."""
    number = _decimal(value, 0, Decimal(MOST_TOKENS))
    return None if number is None else ceil(number)


def _number(value: Any, least: int, most: int) -> int | float | None:
    number = _decimal(value, least, Decimal(most))
    if number is None:
        return None
    return int(number) if number == number.to_integral_value() else float(number)


def _decimal(value: Any, least: int, most: Decimal) -> Decimal | None:
    """Returns a number, also one written as text; None for anything else, and beyond the bounds."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    number = _parsed(value.strip()) if isinstance(value, str) else Decimal(value)
    return number if number is not None and number.is_finite() and least <= number <= most else None


def _parsed(text: str) -> Decimal | None:
    try:
        return Decimal(text) if len(text) <= _MOST_DIGITS else None
    except InvalidOperation:
        return None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _word(value: Any) -> str | None:
    """Returns an id, a model or a reason as text where it is text or a whole number."""
    if isinstance(value, str):
        return whole_text(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


_DECODER = json.JSONDecoder(
    parse_float=_parsed, parse_int=_integer, parse_constant=lambda _: None, strict=False
)
