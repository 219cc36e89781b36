"""Encodes the server's responses: a message, its event stream, an error."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec

from batchrun.sandbox.prompt_cache import CacheUse
from batchrun.sandbox.tokens import count_tokens, first_tokens, token_ends

TOKENS_PER_DELTA = 4

encode = msgspec.json.encode

CostFields = Mapping[str, int | msgspec.Raw | None]
"""The fields for credits and cost that stand beside the message; those that are left out aren't in it."""


InputUsage = Mapping[str, int | Mapping[str, int]]
"""The fields of `usage` that are about the input."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated text, cut where the request wanted it cut, and what was thought before it.

    `output_tokens` are those of both.
    """

    text: str
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None
    thinking: str = ""


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


def complete_after_thinking(
    text: str, thinking_tokens: int, max_tokens: int, stop_sequences: Sequence[str]
) -> Completion:
    """What `complete` leaves of `text` once thinking has taken its tokens: nothing, where it takes all."""
    thinking = first_tokens("hmm " * thinking_tokens, min(thinking_tokens, max_tokens))
    if thinking_tokens >= max_tokens:
        return Completion("", max_tokens, "max_tokens", None, thinking)
    rest = complete(text, max_tokens - thinking_tokens, stop_sequences)
    return replace(rest, output_tokens=thinking_tokens + rest.output_tokens, thinking=thinking)


def exact_usd(nano_usd: int) -> str:
    """10^-9 USD as the shortest exact decimal: 230000 -> "0.00023"."""
    whole, fraction = divmod(nano_usd, 10**9)
    return f"{whole}.{fraction:09}".rstrip("0").rstrip(".")


def input_usage(input_tokens: int, cache: CacheUse | None) -> InputUsage:
    """Without a word on the cache where `cache` is None: the request has marked nothing for it."""
    if cache is None:
        return {"input_tokens": input_tokens}
    return {
        "input_tokens": input_tokens - cache.read - cache.write,
        "cache_creation_input_tokens": cache.write,
        "cache_read_input_tokens": cache.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache.write_5m,
            "ephemeral_1h_input_tokens": cache.write_1h,
        },
    }


def message_body(
    message_id: str, model: str, completion: Completion, usage: InputUsage, cost: CostFields
) -> bytes:
    """The whole message as JSON, its fields in the order of the reference page."""
    return encode(
        {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": _content(completion),
            "stop_reason": completion.stop_reason,
            "stop_sequence": completion.stop_sequence,
            "usage": {**usage, "output_tokens": completion.output_tokens},
            **cost,
        }
    )


def _content(completion: Completion) -> list[dict[str, str]]:
    text = {"type": "text", "text": completion.text}
    if not completion.thinking:
        return [text]
    thinking = {"type": "thinking", "thinking": completion.thinking, "signature": ""}
    return [thinking, text] if completion.text else [thinking]


def opening_events(message_id: str, model: str, usage: InputUsage, first: str = "text") -> bytes:
    """What a stream begins with: the message without content, the start of its `first` block, a ping."""
    message: dict[str, object] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 0},
    }
    return (
        _event("message_start", {"message": message})
        + _event("content_block_start", {"index": 0, "content_block": {"type": first, first: ""}})
        + _event("ping", {})
    )


def delta_events(completion: Completion) -> Iterator[Delta]:
    """The blocks of `completion` after `opening_events`, up to where the last one stops."""
    if completion.thinking:
        yield from _pieces(completion.thinking, 0, "thinking")
        if not completion.text:
            return
        block = {"index": 1, "content_block": {"type": "text", "text": ""}}
        yield Delta(_event("content_block_stop", {"index": 0}) + _event("content_block_start", block), 0)
    yield from _pieces(completion.text, 1 if completion.thinking else 0, "text")


def _pieces(text: str, index: int, kind: str) -> Iterator[Delta]:
    """`text` in pieces of a few tokens; white space goes with the piece behind it."""
    ends = token_ends(text)
    cuts = [0, *ends[TOKENS_PER_DELTA - 1 : -1 : TOKENS_PER_DELTA], len(text)]
    for n, (start, end) in enumerate(pairwise(cuts)):
        if start < end:
            delta = {"type": f"{kind}_delta", kind: text[start:end]}
            event = _event("content_block_delta", {"index": index, "delta": delta})
            yield Delta(event, min(TOKENS_PER_DELTA, len(ends) - n * TOKENS_PER_DELTA))


def closing_events(completion: Completion, usage: InputUsage, cost: CostFields) -> bytes:
    """What a stream ends with: stop reason, final usage and cost."""
    message_delta = {
        "delta": {"stop_reason": completion.stop_reason, "stop_sequence": completion.stop_sequence},
        "usage": {**usage, "output_tokens": completion.output_tokens},
        **cost,
    }
    return (
        _event("content_block_stop", {"index": 1 if completion.thinking and completion.text else 0})
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
