"""Decoding of an answer of `POST /v1/messages`: strict about what was paid for, lenient otherwise. No I/O.

The fields are those of the provider's reference page and of Anthropic's Messages API. Unknown fields and
unknown kinds of content blocks are passed over; missing or null credits and cost are no error.
"""

import math
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any, Literal

import msgspec

from batchrun.exchange import Answer, RateLimits

# Beyond these a number is a fault of the server, and no longer fits a column of 64 bits.
_MOST_TOKENS = 10**12
_MOST_CREDITS = 10**15
_MOST_USD = Decimal(10**6)

_PICO_USD = Decimal("1e-12")
_EXACT = Context(prec=60)


class MessageError(Exception):
    """The body is no whole message. `str(error)` says why, without quoting an answer's text.

    `code` is the word for it in tables and counts.
    """

    def __init__(self, message: str, code: str = "broken_answer") -> None:
        super().__init__(message)
        self.code = code


class AnswerTooLargeError(MessageError):
    """The answer passed the bound. The same request would most likely bring, and cost, the same again."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            f"the answer is longer than endpoint.max_answer_bytes = {most_bytes}", "answer_too_large"
        )


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the server states them: cache reads and writes come beside `input_tokens`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class ContentBlock(msgspec.Struct, frozen=True, gc=False):
    """A block of an answer. `text` has a meaning for blocks of type "text" alone, where it is a string."""

    type: str
    text: Any = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A whole message as the endpoint sends it."""

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


_MESSAGE_DECODER = msgspec.json.Decoder(Message)


def decode_message(body: bytes) -> Message:
    """Decode a message. Raises MessageError where `body` isn't one, or its counts or amounts are absurd."""
    try:
        # msgspec skips unknown strings without a look at their bytes.
        if not body.isascii():
            body.decode()
        message = _MESSAGE_DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise MessageError(f"the answer is not a message: {error}") from None
    except (ValueError, RecursionError):
        raise MessageError(_describe_foreign_body(body)) from None
    for block in message.content:
        if block.type == "text" and not isinstance(block.text, str):
            raise MessageError("the answer is not a message: a text block has no text")
    _check_numbers(message)
    return message


def _describe_foreign_body(body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if not start:
        return "the answer has an empty body"
    if start.startswith(b"<"):
        return "the answer is an HTML or XML page and not a message; a proxy may stand before the endpoint"
    if start.startswith((b"event:", b"data:", b":")):
        return "the answer is an event stream although none was asked for"
    return "the answer is not JSON, or was cut off"


def _check_numbers(message: Message) -> None:
    usage = message.usage
    if usage is not None:
        for tokens in (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        ):
            if tokens is not None and not 0 <= tokens <= _MOST_TOKENS:
                raise MessageError("the answer states an impossible number of tokens")
    used, remaining = message.estimated_credits_used, message.remaining_credits
    # A balance may be overdrawn; a charge is never negative. NaN fails every comparison.
    if used is not None and not 0 <= used <= _MOST_CREDITS:
        raise MessageError("the answer states an impossible number of credits used")
    if remaining is not None and not -_MOST_CREDITS <= remaining <= _MOST_CREDITS:
        raise MessageError("the answer states an impossible number of remaining credits")
    cost = message.estimated_cost_usd
    if cost is not None and not (cost.is_finite() and 0 <= cost <= _MOST_USD):
        raise MessageError("the answer states an impossible cost")


def answer_text(message: Message) -> str:
    """The text blocks, one after the other. Thinking, tool use and unknown blocks are no part of it."""
    return "".join([block.text for block in message.content if block.type == "text"])


def cost_nano_usd(cost: Decimal) -> int:
    """USD to whole nano-USD (10^-9 USD), rounded up.

    Rounds to thousandths of a nano-USD first, so that a server's binary float (0.00022999999999999998, or
    0.00023000000000000003) costs what was meant: 230,000.
    """
    pico = cost.quantize(_PICO_USD, context=_EXACT)
    return int(pico.scaleb(9, context=_EXACT).to_integral_value(ROUND_CEILING))


def input_tokens(usage: Usage) -> int | None:
    """All input tokens: those read from the cache, written to it, and neither. None where none is stated."""
    counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    stated = [count for count in counts if count is not None]
    return sum(stated) if stated else None


def read_answer(
    body: bytes,
    latency: float,
    first_token_latency: float | None = None,
    limits: RateLimits | None = None,
) -> Answer:
    """The answer in `body`, a message as JSON. Latencies are in seconds.

    Raises MessageError as `decode_message` does.
    """
    message = decode_message(body)
    usage = message.usage
    cost = message.estimated_cost_usd
    used, remaining = message.estimated_credits_used, message.remaining_credits
    return Answer(
        body=body,
        input_tokens=None if usage is None else input_tokens(usage),
        output_tokens=None if usage is None else usage.output_tokens,
        cost_nano_usd=None if cost is None else cost_nano_usd(cost),
        # Fractions of credits go against us: a charge is rounded up, a balance down.
        credits_used=None if used is None else math.ceil(used),
        remaining_credits=None if remaining is None else math.floor(remaining),
        latency=latency,
        first_token_latency=first_token_latency,
        limits=limits,
    )
