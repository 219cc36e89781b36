"""Decodes a response body of `POST /v1/messages` into its text, token counts and cost. No I/O."""

import math
from decimal import ROUND_CEILING, Context, Decimal

import msgspec

from batchrun.client.messages.lenient import read_leniently
from batchrun.client.messages.message import CacheCreation, Message, MessageError, Usage, believable
from batchrun.exchange import NO_CACHE, CacheUsage, Completion, RateLimits, Response

_PICO_USD = Decimal("1e-12")
_EXACT = Context(prec=60)
_NO_LIFETIMES = CacheCreation()


_MESSAGE_DECODER = msgspec.json.Decoder(Message)


def read_message(body: bytes) -> tuple[Message, str]:
    """Returns the message in `body` and its text.

    A strict decoder reads it, or else a lenient one, which takes ten times as long. Raises MessageError if
    the text of a message can't be found.
    """
    message = _decode_strictly(body)
    text = "" if message is None else answer_text(message)
    if message is None or (message.content and not text):
        message = read_leniently(body) or message
        if message is None:
            raise MessageError(_describe_foreign_body(body))
        text = answer_text(message)
    return message, text


def _decode_strictly(body: bytes) -> Message | None:
    try:
        # msgspec skips unknown strings without a look at their bytes.
        if not body.isascii():
            body.decode()
        message = _MESSAGE_DECODER.decode(body)
    except (ValueError, RecursionError):
        return None
    return message if believable(message) else None


def _describe_foreign_body(body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if not start:
        return "the response has an empty body"
    if start.startswith(b"<"):
        return "the response is an HTML or XML page and not a message; a proxy may stand before the endpoint"
    return "the response is not a message with a text, or was cut off"


def answer_text(message: Message) -> str:
    """Returns the joined text blocks, without thinking, tool use and unknown blocks."""
    return "".join([block.text for block in message.content if block.type == "text"])


def cost_nano_usd(cost: Decimal) -> int:
    """Converts USD to whole nano-USD (10^-9 USD), rounded up.

    Rounds to thousandths of a nano-USD first, so that a server's binary float (0.00022999999999999998, or
    0.00023000000000000003) costs the intended 230,000.
    """
    pico = cost.quantize(_PICO_USD, context=_EXACT)
    return int(pico.scaleb(9, context=_EXACT).to_integral_value(ROUND_CEILING))


def input_tokens(usage: Usage) -> int | None:
    """Returns all input tokens, including cache reads and writes. None where no count is stated."""
    counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    if usage.cache_creation is not None:
        counts = (usage.input_tokens, *cache_usage(usage)[:2])
    stated = [count for count in counts if count is not None]
    return sum(stated) if stated else None


def cache_usage(usage: Usage) -> CacheUsage:
    """Returns the input's cache reads and writes. Writes are at least the sum stated by lifetime."""
    by_lifetime = usage.cache_creation or _NO_LIFETIMES
    write_5m = by_lifetime.ephemeral_5m_input_tokens or 0
    write_1h = by_lifetime.ephemeral_1h_input_tokens or 0
    write = max(usage.cache_creation_input_tokens or 0, write_5m + write_1h)
    read = usage.cache_read_input_tokens or 0
    return CacheUsage(read, write, write_5m, write_1h) if read or write else NO_CACHE


def read_response(
    body: bytes,
    latency: float,
    first_token_latency: float | None = None,
    limits: RateLimits | None = None,
) -> Response:
    """Returns the response in `body`, a message as JSON. Latencies are in seconds.

    Raises MessageError as `read_message` does.
    """
    message, text = read_message(body)
    usage = message.usage
    cost = message.estimated_cost_usd
    used, remaining = message.estimated_credits_used, message.remaining_credits
    return Response(
        body=body,
        # A prompt is never empty, and a text takes tokens: a zero counts as missing.
        input_tokens=None if usage is None else input_tokens(usage) or None,
        output_tokens=None if usage is None or (text and not usage.output_tokens) else usage.output_tokens,
        cost_nano_usd=None if cost is None else cost_nano_usd(cost),
        # Fractional credits are rounded pessimistically: a charge up, a balance down.
        credits_used=None if used is None else math.ceil(used),
        remaining_credits=None if remaining is None else math.floor(remaining),
        latency=latency,
        first_token_latency=first_token_latency,
        limits=limits,
        completion=_completion(message, text, 0),
    )


def read_completion(body: bytes, run: int) -> Completion:
    """Returns a journaled response of the run `run`. Raises MessageError where it is not a message."""
    return _completion(*read_message(body), run)


def _completion(message: Message, text: str, run: int) -> Completion:
    cache = NO_CACHE if message.usage is None else cache_usage(message.usage)
    return Completion(
        text, message.stop_reason, message.stop_sequence, message.id, message.model, run, cache=cache
    )
