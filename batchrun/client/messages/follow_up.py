"""Builds the request after an invalid answer: that answer as a turn, then the reason why it is invalid."""

from typing import Any

import msgspec

from batchrun.labels.label import InvalidLabel

MOST_ANSWER_CHARACTERS = 2_000
"""The part of an invalid answer that is sent back: more would be paid again with every repair."""

MOST_REASON_CHARACTERS = 1_000

MOST_JSON_BYTES_OF_A_CHARACTER = 6
"""The most bytes of one escaped character: a control character is escaped by its number."""

JSON_BYTES_OF_A_TOKEN = 24
"""More bytes than a token of text takes as JSON: only runs of blanks or of one mark are longer tokens."""

_WORDS_OF_REASON_BYTES = 300

_FRAMING_BYTES = 300
"""The bytes of JSON around two more turns, and of their fixed words, rounded up."""

_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def repair_body(
    body: bytes, answer: str, wrong: InvalidLabel, allowed: str, answer_tokens: int | None = None
) -> bytes:
    """Returns the request for another answer: `body` (the request as it was sent) with the next turns added.

    The assistant's turn is `answer`, shortened; the user's is the reason and `allowed`, which describes a
    valid answer. An answer without text can't be a turn, since the API refuses empty ones: then the reason is
    added to the last user turn. An answer that continued an assistant's turn stays one turn with it. The rest
    of the body stays byte for byte. With `answer_tokens` answer and reason are shortened to what
    `most_bytes_of_repair` reckons for an answer of so many tokens.
    """
    sent_back, reason = shortened(answer), request_for_repair(wrong, allowed)
    if answer_tokens is not None:
        sent_back = _within(sent_back, _answer_bytes(answer_tokens))
        most = _reason_bytes(allowed, answer_tokens)
        reason = request_for_repair(InvalidLabel(wrong.code, _within(wrong.reason, most)), allowed)
    fields = _as_fields.decode(body)
    messages: list[dict[str, Any]] = msgspec.json.decode(fields["messages"])
    if answer.strip():
        messages = _with_text(messages, "assistant", sent_back)
    messages = _with_text(messages, "user", reason)
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


def most_bytes_of_repair(allowed: str, answer_tokens: int) -> int:
    """Returns the bytes that one repair adds to a request at most, after an answer of so many tokens at most.

    The reason has some words of its own, and others of the answer or of what is allowed. Where that is
    exceeded, `repair_body` shortens both.
    """
    free = _answer_bytes(answer_tokens) + _reason_bytes(allowed, answer_tokens)
    return free + len(msgspec.json.encode(allowed)) + _FRAMING_BYTES


def _answer_bytes(tokens: int) -> int:
    return min(MOST_ANSWER_CHARACTERS * MOST_JSON_BYTES_OF_A_CHARACTER, tokens * JSON_BYTES_OF_A_TOKEN)


def _reason_bytes(allowed: str, answer_tokens: int) -> int:
    words = _WORDS_OF_REASON_BYTES + _answer_bytes(answer_tokens) + len(msgspec.json.encode(allowed))
    return min(MOST_REASON_CHARACTERS * MOST_JSON_BYTES_OF_A_CHARACTER, words)


def _within(text: str, most: int) -> str:
    """Returns the beginning of a text that takes so many bytes as JSON at most."""
    kept = text[:most]
    while (size := len(msgspec.json.encode(kept))) > most:
        kept = kept[: len(kept) * most // size]
    return kept


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
