"""A small tokenizer of the sandbox's own: deterministic, and exact on the provider's published example.

Tokens are runs of up to 6 letters, runs of up to 3 digits, and every other character that is not
white space. A text thus never has more tokens than characters, nor than UTF-8 bytes.
"""

import re

_TOKEN = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|[^\w\s]|_")

TOKENS_PER_REQUEST = 3
TOKENS_PER_MESSAGE = 3
"""Framing. A system prompt counts as one message more."""


def count_tokens(text: str) -> int:
    """The number of tokens in `text`."""
    return len(_TOKEN.findall(text))


def first_tokens(text: str, limit: int) -> str:
    """`text` up to the end of its token number `limit`; all of it if it has no more."""
    ends = token_ends(text)
    return text if len(ends) <= limit else text[: ends[limit - 1]]


def token_ends(text: str) -> list[int]:
    """The index in `text` just behind each of its tokens."""
    return [token.end() for token in _TOKEN.finditer(text)]
