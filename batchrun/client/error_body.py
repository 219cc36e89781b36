"""Reads the body of a refusal: whatever servers and proxies send with a 4xx or 5xx. No I/O.

Known shapes: Anthropic's `{"type": "error", "error": {"type", "message", "code"}}`, the same without the
outer type (llama.cpp, vLLM, LiteLLM, OpenAI), `{"error": "text"}`, `{"detail": "text"}`, FastAPI's
`{"detail": [{"loc", "msg", "input"}]}` and HTML pages.
"""

import html
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from batchrun.client.redaction import KEY, NOTHING, Private, redacted
from batchrun.text import single_line

MESSAGE_CHARACTERS = 300
_MOST_CHARACTERS = 10_000

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}", re.ASCII)
_PAGE_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.IGNORECASE)
# LiteLLM writes Python's None as a word.
_NO_CODE = frozenset(("None", "none", "null"))


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The content of a refusal. `code` is None where it names none.

    `stated` is true for a JSON error object: it comes from the endpoint and not from a proxy. `words` are
    its code and type, and `status` is the HTTP status that it names as a number.
    """

    code: str | None
    message: str
    stated: bool
    words: tuple[str, ...] = ()
    status: int | None = None


def read_error_body(body: bytes, private: Private = NOTHING) -> ErrorBody:
    """Reads a refusal's body, of any form. Removes whatever it echoes of `private`."""
    if private.key:  # before the text is shortened: a few letters of a key would not be found
        body = body.replace(private.key.encode(), KEY.encode())
    error, message = _error_object(body)
    return _error_body(error, message, private)


def error_object(fields: dict[str, Any], private: Private = NOTHING) -> ErrorBody:
    """Reads an error object that is decoded already."""
    return _error_body(fields, _message_of(fields), private)


def _error_body(error: dict[str, Any] | None, message: str, private: Private) -> ErrorBody:
    fields = error or {}
    named = [usable_code(fields.get(name), private) for name in ("code", "type")]
    words = tuple(word for word in named if word is not None)
    statuses = (_http_status(fields.get(name)) for name in ("code", "status", "status_code"))
    return ErrorBody(
        words[0] if words else None,
        sanitize(message, private),
        stated=error is not None,
        words=words,
        status=next((status for status in statuses if status is not None), None),
    )


def sanitize(text: str, private: Private = NOTHING) -> str:
    """Makes foreign text fit for a terminal or a table: nothing private, one line, at most 300 characters."""
    text = redacted(text[:_MOST_CHARACTERS], private)
    return shortened(without_query(" ".join(single_line(text).split())))


def shortened(line: str) -> str:
    """Returns at most 300 characters of the line."""
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"


def without_query(text: str) -> str:
    """Returns the text with shortened URLs: a query, a fragment, and a user before a host may be secret."""
    return _USER.sub(r"\1", _QUERY.sub(r"\1", text))


def _http_status(number: object) -> int | None:
    if isinstance(number, str) and len(number) == 3 and number.isdigit():
        number = int(number)
    return number if type(number) is int and 400 <= number < 600 else None


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
        return error, _message_of(error)
    if isinstance(decoded.get("detail"), list):
        return None, _where_and_what(decoded["detail"])
    return None, str(decoded.get("detail") or decoded.get("message") or body.decode("utf-8", "replace"))


def _message_of(error: dict[str, Any]) -> str:
    detail = error.get("detail")
    if isinstance(detail, list):
        detail = _where_and_what(detail)
    return str(error.get("message") or detail or "")


def _where_and_what(details: list[Any]) -> str:
    """Returns each detail's place and message, without its `input`, which is the request."""
    said = []
    for detail in details:
        fields = detail if isinstance(detail, dict) else {"msg": detail or ""}
        place = fields.get("loc")
        path = ".".join(str(step) for step in place if step != "body") if isinstance(place, list) else ""
        words = str(fields.get("msg") or fields.get("message") or fields.get("type") or "")
        said.append(f"{path}: {words}" if path else words)
    return "; ".join(text for text in said if text)


def usable_code(word: object, private: Private = NOTHING) -> str | None:
    """Returns `word` if it is fit as a code in tables, None for prose, bare numbers and private text."""
    if not isinstance(word, str) or word in _NO_CODE or not _CODE.fullmatch(word):
        return None
    return word if redacted(word, private) == word else None


def _page_text(text: str) -> str:
    start = text[:10_000]
    if "<" not in start:
        return start
    title = _PAGE_TITLE.search(start)
    return html.unescape(title[1] if title and title[1].strip() else _TAG.sub(" ", start))
