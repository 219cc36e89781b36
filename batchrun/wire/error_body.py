"""Reading the body of a refusal: whatever servers and proxies send with a 4xx or 5xx. No I/O.

Known shapes: Anthropic's `{"type": "error", "error": {"type", "message", "code"}}`, the same without the
outer type (llama.cpp, vLLM, LiteLLM, OpenAI), `{"error": "text"}`, `{"detail": "text"}` and HTML pages.
"""

import html
import re
from dataclasses import dataclass
from typing import Any

import msgspec

MESSAGE_CHARACTERS = 300

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}", re.ASCII)
_PAGE_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
# LiteLLM writes Python's None as a word.
_NO_CODE = frozenset(("None", "none", "null"))


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a refusal says. `code` is None where it names none.

    `stated` is true for a JSON error object: the endpoint's own word and not some proxy's page.
    """

    code: str | None
    message: str
    stated: bool


def read_error_body(body: bytes, secret: str | None = None) -> ErrorBody:
    """Read a refusal's body, of any form. `secret`, the key, is cut out should the server echo it."""
    if secret:  # before anything is cut off: half a key would not be found
        body = body.replace(secret.encode(), b"[key]")
    error, message = _error_object(body)
    fields = error or {}
    code = usable_code(fields.get("code"), secret) or usable_code(fields.get("type"), secret)
    return ErrorBody(code, displayable(message, secret), stated=error is not None)


def displayable(text: str, secret: str | None = None) -> str:
    """Foreign text for a terminal and a table: without the key, on one line, at most 300 characters.

    Control characters and characters that reorder text become spaces.
    """
    if secret:
        text = text.replace(secret, "[key]")
    printable = "".join([character if character.isprintable() else " " for character in text[:10_000]])
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"


def _error_object(body: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        decoded = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None, _page_text(body.decode("utf-8", "replace"))
    if not isinstance(decoded, dict):
        return None, body.decode("utf-8", "replace")
    error = decoded.get("error")
    if isinstance(error, str):
        return decoded, error
    if isinstance(error, dict):
        return error, str(error.get("message") or error.get("detail") or "")
    return None, str(decoded.get("detail") or decoded.get("message") or body.decode("utf-8", "replace"))


def usable_code(word: object, secret: str | None = None) -> str | None:
    """`word` if it can stand as a code in tables, None for prose, bare numbers and the secret."""
    if not isinstance(word, str) or word in _NO_CODE or not _CODE.fullmatch(word):
        return None
    return None if secret and secret in word else word


def _page_text(text: str) -> str:
    start = text[:10_000]
    if "<" not in start:
        return start
    title = _PAGE_TITLE.search(start)
    return html.unescape(title[1] if title and title[1].strip() else _TAG.sub(" ", start))
