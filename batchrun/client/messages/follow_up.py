"""Builds the request after an invalid answer: that answer as a turn, then the reason why it is invalid."""

from typing import Any

import msgspec

from batchrun.labels.label import InvalidLabel

MOST_ANSWER_CHARACTERS = 2_000
"""The part of an invalid answer that is sent back: more would be paid again with every repair."""

MOST_REASON_CHARACTERS = 1_000

MOST_JSON_BYTES_OF_A_CHARACTER = 6
"""The most bytes of one escaped character: a control character is escaped by its number."""

_FRAMING_BYTES = 300
"""The bytes of JSON around two more turns, and of their fixed words, rounded up."""

_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def repair_body(body: bytes, answer: str, wrong: InvalidLabel, allowed: str) -> bytes:
    """Returns the request for another answer: `body` (the request as it was sent) with the next turns added.

    The assistant's turn is `answer`, shortened; the user's is the reason and `allowed`, which describes a
    valid answer. An answer without text can't be a turn, since the API refuses empty ones: then the reason is
    added to the last user turn. An answer that continued an assistant's turn stays one turn with it. The rest
    of the body stays byte for byte.
    """
    fields = _as_fields.decode(body)
    messages: list[dict[str, Any]] = msgspec.json.decode(fields["messages"])
    if answer.strip():
        messages = _with_text(messages, "assistant", shortened(answer))
    messages = _with_text(messages, "user", request_for_repair(wrong, allowed))
    return msgspec.json.encode({**fields, "messages": messages})


def with_max_tokens(body: bytes, max_tokens: int) -> bytes:
    """Returns the request `body` with another max_tokens. Its rest stays byte for byte."""
    return msgspec.json.encode(_as_fields.decode(body) | {"max_tokens": max_tokens})


def without_max_tokens(body: bytes) -> bytes:
    fields = _as_fields.decode(body)
    fields.pop("max_tokens", None)
    return msgspec.json.encode(fields)


def request_for_repair(wrong: InvalidLabel, allowed: str) -> str:
    """Returns the text for the model: the exact reason, then what is allowed."""
    reason = wrong.reason
    if len(reason) > MOST_REASON_CHARACTERS:
        reason = f"{reason[: MOST_REASON_CHARACTERS - 3]}..."
    return f"That is not a valid answer: {reason}.\n{allowed}"


def most_bytes_of_repair(allowed: str) -> int:
    """Returns an upper bound of the bytes that one repair adds to a request."""
    free = (MOST_ANSWER_CHARACTERS + MOST_REASON_CHARACTERS) * MOST_JSON_BYTES_OF_A_CHARACTER
    return free + len(msgspec.json.encode(allowed)) + _FRAMING_BYTES


def shortened(answer: str) -> str:
    """Returns the answer's first `MOST_ANSWER_CHARACTERS`, and how many more there were."""
    answer = answer.strip()
    more = len(answer) - MOST_ANSWER_CHARACTERS
    return answer if more <= 0 else f"{answer[:MOST_ANSWER_CHARACTERS]}\n[{more} more characters]"


def _with_text(messages: list[dict[str, Any]], role: str, text: str) -> list[dict[str, Any]]:
    """Returns the messages with a text added: to the last turn if that is `role`'s, else as a new turn.

    Not every server accepts two consecutive turns of one role.
    """
    if not messages or messages[-1]["role"] != role:
        return [*messages, {"role": role, "content": text}]
    last = messages[-1]
    content = last["content"]
    if isinstance(content, str):
        joined: Any = content + ("" if role == "assistant" else "\n\n") + text
    else:
        joined = [*content, {"type": "text", "text": text}]
    return [*messages[:-1], {**last, "content": joined}]
