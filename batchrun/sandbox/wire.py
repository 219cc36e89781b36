"""The forms that leave the server: a message, its stream of events, an error."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from batchrun.sandbox.tokens import count_tokens, first_tokens, token_ends

TOKENS_PER_DELTA = 4

encode = msgspec.json.encode

CostFields = Mapping[str, int | msgspec.Raw | None]
"""The fields for credits and cost that stand beside the message; those that are left out aren't in it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated text, cut where the request wanted it cut."""

    text: str
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None


@dataclass(frozen=True, slots=True)
class Delta:
    """One event of a stream and the number of tokens that have to be generated before it can be sent."""

    event: bytes
    tokens: int


def complete(text: str, max_tokens: int, stop_sequences: Sequence[str]) -> Completion:
    """`text` up to its first stop sequence or its token number `max_tokens`, whichever comes first."""
    ends = [(at, sequence) for sequence in stop_sequences if (at := text.find(sequence)) >= 0]
    stop_at, stop_sequence = min(ends, default=(len(text), None))
    kept = text[:stop_at]
    tokens = count_tokens(kept)
    if tokens > max_tokens:
        return Completion(first_tokens(kept, max_tokens), max_tokens, "max_tokens", None)
    return Completion(kept, tokens, "stop_sequence" if stop_sequence else "end_turn", stop_sequence)


def exact_usd(nano_usd: int) -> str:
    """10^-9 USD as the shortest exact decimal: 230000 -> "0.00023"."""
    whole, fraction = divmod(nano_usd, 10**9)
    return f"{whole}.{fraction:09}".rstrip("0").rstrip(".")


def message_body(
    message_id: str, model: str, completion: Completion, input_tokens: int, cost: CostFields
) -> bytes:
    """The whole message as JSON, its fields in the order of the reference page."""
    return encode(
        {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": completion.text}],
            "stop_reason": completion.stop_reason,
            "stop_sequence": completion.stop_sequence,
            "usage": {"input_tokens": input_tokens, "output_tokens": completion.output_tokens},
            **cost,
        }
    )


def opening_events(message_id: str, model: str, input_tokens: int) -> bytes:
    """What a stream begins with: the message without content, the start of its one block, a ping."""
    message: dict[str, object] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 0},
    }
    return (
        _event("message_start", {"message": message})
        + _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
        + _event("ping", {})
    )


def delta_events(text: str) -> Iterator[Delta]:
    """`text` in pieces of a few tokens; white space goes with the piece behind it."""
    ends = token_ends(text)
    cuts = [0, *ends[TOKENS_PER_DELTA - 1 : -1 : TOKENS_PER_DELTA], len(text)]
    for n, (start, end) in enumerate(pairwise(cuts)):
        if start < end:
            delta = {"type": "text_delta", "text": text[start:end]}
            event = _event("content_block_delta", {"index": 0, "delta": delta})
            yield Delta(event, min(TOKENS_PER_DELTA, len(ends) - n * TOKENS_PER_DELTA))


def closing_events(completion: Completion, input_tokens: int, cost: CostFields) -> bytes:
    """What a stream ends with: stop reason, final usage and cost."""
    message_delta = {
        "delta": {"stop_reason": completion.stop_reason, "stop_sequence": completion.stop_sequence},
        "usage": {"input_tokens": input_tokens, "output_tokens": completion.output_tokens},
        **cost,
    }
    return (
        _event("content_block_stop", {"index": 0})
        + _event("message_delta", message_delta)
        + _event("message_stop", {})
    )


def cost_fields(remaining_credits: int | None, credits_used: int, nano_usd: int) -> CostFields:
    """The fields with these amounts."""
    return {
        "remaining_credits": remaining_credits,
        "estimated_credits_used": credits_used,
        "estimated_cost_usd": msgspec.Raw(exact_usd(nano_usd).encode()),
    }


def error_body(error_type: str, code: str, message: str) -> bytes:
    """An error in the shape that the endpoint's errors have."""
    return encode({"type": "error", "error": {"type": error_type, "message": message, "code": code}})


def error_event(error_type: str, code: str, message: str) -> bytes:
    """The event that tells of a failure in mid-stream."""
    return b"event: error\ndata: " + error_body(error_type, code, message) + b"\n\n"


def _event(name: str, data: Mapping[str, object]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode({"type": name, **data}) + b"\n\n"
