"""The next turn after an invalid answer: the answer as it was, and what is wrong with it."""

from typing import Any

import msgspec

from batchrun.labels import Unreadable

MOST_ANSWER_CHARACTERS = 2_000
"""Of an invalid answer, so much is sent back: the rest would be paid again with every repair."""

MOST_REASON_CHARACTERS = 1_000

MOST_JSON_BYTES_OF_A_CHARACTER = 6
"""A control character is escaped by its number."""

_FRAMING_BYTES = 300
"""Of the JSON around two more turns and of the fixed words in them, rounded up."""

_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def repair_body(body: bytes, answer: str, wrong: Unreadable, allowed: str) -> bytes:
    """The request for another answer: `body` (the request as it was sent) with the next turn behind it.

    The assistant's turn is `answer`, shortened; the user's is the reason and `allowed`, what a valid
    answer is. An answer without text can't be a turn, since the API refuses empty ones: then the reason
    goes to the end of the turn that was answered. An answer that went on from a turn of the assistant's
    stays one turn with it. What else is in the body stays byte for byte.
    """
    fields = _as_fields.decode(body)
    messages: list[dict[str, Any]] = msgspec.json.decode(fields["messages"])
    if answer.strip():
        messages = _with_text(messages, "assistant", shortened(answer))
    messages = _with_text(messages, "user", request_for_repair(wrong, allowed))
    return msgspec.json.encode({**fields, "messages": messages})


def request_for_repair(wrong: Unreadable, allowed: str) -> str:
    """What the model is told: the exact reason, then what is allowed."""
    reason = wrong.reason
    if len(reason) > MOST_REASON_CHARACTERS:
        reason = f"{reason[: MOST_REASON_CHARACTERS - 3]}..."
    return f"That is not a valid answer: {reason}.\n{allowed}"


def most_bytes_of_repair(allowed: str) -> int:
    """Upper bound of the bytes by which one repair makes a request longer."""
    free = (MOST_ANSWER_CHARACTERS + MOST_REASON_CHARACTERS) * MOST_JSON_BYTES_OF_A_CHARACTER
    return free + len(msgspec.json.encode(allowed)) + _FRAMING_BYTES


def shortened(answer: str) -> str:
    """The answer's first `MOST_ANSWER_CHARACTERS`, and how many more there were."""
    answer = answer.strip()
    more = len(answer) - MOST_ANSWER_CHARACTERS
    return answer if more <= 0 else f"{answer[:MOST_ANSWER_CHARACTERS]}\n[{more} more characters]"


def _with_text(messages: list[dict[str, Any]], role: str, text: str) -> list[dict[str, Any]]:
    """The messages and a text of `role`: a turn of its own, or more of the last one, if it is that role's.

    Not every server takes two turns of one role in a row.
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
