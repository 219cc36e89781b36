"""A message of `POST /v1/messages` as a value, and the bounds of its numbers. No I/O.

The fields follow the provider's reference page and Anthropic's Messages API. Unknown fields are ignored.
"""

from decimal import Decimal
from typing import Any, Literal

import msgspec

# A number beyond these is a server's fault, and no longer fits a column of 64 bits.
MOST_TOKENS = 10**12
MOST_CREDITS = 10**15
MOST_USD = Decimal(10**6)


class MessageError(Exception):
    """The body is not a complete message. `str(error)` says why, without quoting a response's text.

    `code` names it in tables and counts.
    """

    def __init__(self, message: str, code: str = "broken_answer") -> None:
        super().__init__(message)
        self.code = code


class AnswerTooLargeError(MessageError):
    """The response exceeded the bound. The same request would most likely bring, and cost, the same again."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            f"the response is longer than endpoint.max_answer_bytes = {most_bytes}", "answer_too_large"
        )


class CacheCreation(msgspec.Struct, frozen=True, gc=False):
    """Tokens written to the cache, by their lifetime."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the server states them: `input_tokens` excludes cache reads and writes."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None


class ContentBlock(msgspec.Struct, frozen=True, gc=False):
    """A content block of a response. Only blocks of type "text" use `text`, which is a string there."""

    type: str
    text: Any = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A complete message as the endpoint sends it."""

    type: Literal["message"]
    content: list[ContentBlock]
    id: str | None = None
    role: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    remaining_credits: int | float | None = None
    estimated_credits_used: int | float | None = None
    estimated_cost_usd: Decimal | None = None


def believable(message: Message) -> bool:
    """Whether a message's counts and amounts are possible, and its text blocks have a text."""
    usage, cost = message.usage, message.estimated_cost_usd
    used, remaining = message.estimated_credits_used, message.remaining_credits
    for block in message.content:
        if block.type == "text" and not isinstance(block.text, str):
            return False
    # A balance may be overdrawn; a charge is never negative. NaN fails every comparison.
    return (
        (usage is None or _possible_counts(usage))
        and (used is None or 0 <= used <= MOST_CREDITS)
        and (remaining is None or -MOST_CREDITS <= remaining <= MOST_CREDITS)
        and (cost is None or (cost.is_finite() and 0 <= cost <= MOST_USD))
    )


def _possible_counts(usage: Usage) -> bool:
    counts: tuple[int | None, ...] = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )
    if (written := usage.cache_creation) is not None:
        counts += (written.ephemeral_5m_input_tokens, written.ephemeral_1h_input_tokens)
    for tokens in counts:  # noqa: SIM110 - a generator for every response takes twice as long
        if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
            return False
    return True
