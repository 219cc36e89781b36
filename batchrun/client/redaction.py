"""Removes what a server's message echoes: the key, header values, words of the request. No I/O.

A server may quote a value whole, cut, in pieces, percent-encoded, JSON-escaped, in base64 or in hexadecimal.
So messages are compared word by word: a run of words that the request contains too is removed, unless it
consists of words that are common in error messages.
"""

import base64
import binascii
import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec

KEY, HEADER, TEXT = "[key]", "[header]", "[…]"

_SHORTEST_PIECE = 6
"""So many matching letters and digits of a key or a header value count as a piece of it."""
_SHORTEST_PART = 6
"""So many matching letters at a word's beginning or end count as a piece of the request."""
_SHORTEST_WORD = 4
_PHRASE = 3
_LONG_PHRASE = 8
"""So many consecutive words count as the request's even where each is an ordinary one."""
_MOST_REQUEST_CHARACTERS = 1_000_000
_ROUNDS_OF_DECODING = 3

_TOKEN = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrt\"'/\\]))")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
# Servers need these to explain an error.
_PUBLIC_FIELDS = frozenset(("model", "role", "type", "media_type"))
_PUBLIC_HEADERS = frozenset(("accept", "content-type", "user-agent"))
# These words are not private by themselves: they are common in error messages.
_ORDINARY = frozenset(
    """
    a above access account again all allowed already also an and any api apikey are array as assistant
    at auth authentication authorization available bad balance base64 be because been before being below
    between billing block body but by bytes call can cannot category character characters check client
    code column concurrent connection content context contact could credit credits current data day
    denied details did disabled do does down due during each empty end endpoint error exceed exceeded
    exceeds expected expired fail failed field fields file final first flagged for forbidden format
    found from gateway given greater had has have header here hour id if image images in index input
    instead insufficient integer internal invalid is it item its json key kind later least length less
    limit limits list long longer low lower many max maximum may message messages method min minimum
    minute missing model more most must name names need network new no none not null number object of
    off on one only operation or organization other out over overloaded parameter parse part payload per
    permission permitted plan please policy position prompt property provide provided proxy quota range
    rate reached read received refused remaining request requests required resource response result
    retry role same schema second seconds see sent server service should size so some start status stop
    string such supported system temperature temporarily text than that the their there they this time
    timeout to token tokens tool tools too top total try type unable unavailable unauthorized under
    unexpected unknown unsupported up upstream url usage use used user valid validation value values was
    way we were when which while will with within without would wrong you your harassment harm hate
    illicit self sexual threatening minors violence violent graphic instructions intent
    """.split()  # noqa: SIM905  # a list would take a line for each
)


@dataclass(frozen=True, slots=True)
class Private:
    """What no message may reveal: the key, header values, and the texts of `request`, a JSON body."""

    key: str | None = field(default=None, repr=False)
    headers: tuple[str, ...] = field(default=(), repr=False)
    request: bytes = field(default=b"", repr=False)


NOTHING = Private()


def private_headers(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the private values among the job's headers."""
    return tuple(value for name, value in headers.items() if name.lower() not in _PUBLIC_HEADERS and value)


def redacted(text: str, private: Private) -> str:
    """Returns `text` without what it reveals of `private`, in whatever form."""
    request = _RequestWords(private.request)

    def clean(plain: str) -> str:
        for secret, name in [(private.key or "", KEY), *((value, HEADER) for value in private.headers)]:
            plain = _without_secret(plain, secret, name)
        return request.taken_out_of(plain)

    text = _ENCODED.sub(lambda found: _decoded_or_kept(found[0], clean), text)
    decoded = _unescaped(text)
    if decoded != text and (cleaned := clean(decoded)) != decoded:
        return cleaned
    return clean(text)


def _unescaped(text: str) -> str:
    for _ in range(_ROUNDS_OF_DECODING):
        before = text
        text = html.unescape(unquote(_ESCAPE.sub(_unescaped_character, text)))
        if text == before:
            break
    return text


def _unescaped_character(found: re.Match[str]) -> str:
    if code := found[1] or found[2]:
        return chr(int(code, 16))
    return _ESCAPED.get(found[3], found[3])


def _decoded_or_kept(word: str, clean: Callable[[str], str]) -> str:
    """Returns the word, or a mark where it encodes any part of something private in base64 or hexadecimal."""
    for plain in _decodings(word):
        if clean(plain) != plain:
            return TEXT
    return word


def _decodings(word: str) -> list[str]:
    letters = word.rstrip("=").replace("-", "+").replace("_", "/")
    found = []
    for start in range(4):  # a piece may begin within a base64 group of four
        piece = letters[start:]
        piece = piece[: len(piece) - (len(piece) % 4 == 1)]
        try:
            raw = base64.b64decode(piece + "=" * (-len(piece) % 4))
        except (binascii.Error, ValueError):
            continue
        found.append(raw.decode("utf-8", "ignore"))
    for start in range(2):
        piece = word[start:]
        try:
            found.append(bytes.fromhex(piece[: len(piece) // 2 * 2]).decode("utf-8", "ignore"))
        except ValueError:
            continue
    return found


def _without_secret(text: str, secret: str, name: str) -> str:
    """Returns the text without the secret and its pieces, whatever separates their characters."""
    if len(secret) < 2:
        return text
    text = text.replace(secret, name)
    letters = "".join(character for character in secret.lower() if character.isalnum())
    positions = [position for position, character in enumerate(text) if character.isalnum()]
    squeezed = _lower("".join(text[position] for position in positions))
    spans, start = [], 0
    while start + _SHORTEST_PIECE <= len(squeezed):
        end = start + _SHORTEST_PIECE
        if squeezed[start:end] not in letters:
            start += 1
            continue
        while end < len(squeezed) and squeezed[start : end + 1] in letters:
            end += 1
        spans.append((positions[start], positions[end - 1] + 1))
        start = end
    return _replaced(text, spans, name)


def _replaced(text: str, spans: list[tuple[int, int]], name: str) -> str:
    for start, end in reversed(spans):
        text = f"{text[:start]}{name}{text[end:]}"
    return text


class _RequestWords:
    """The words of a request's texts, read at the first use."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._words: str | None = None

    def taken_out_of(self, text: str) -> str:
        if not self._body or not text:
            return text
        if self._words is None:
            self._words = _words_of(self._body)
        tokens = list(_TOKEN.finditer(_lower(text)))
        spans, place = [], 0
        while place < len(tokens):
            run = self._longest_run([token[0] for token in tokens[place : place + 200]])
            if run and self._is_private(run):
                spans.append((tokens[place].start(), tokens[place + len(run) - 1].end()))
                place += len(run)
            else:
                place += 1
        return _replaced(text, spans, TEXT)

    def _longest_run(self, tokens: list[str]) -> list[str]:
        """Returns the longest start of `tokens` within the request; its ends may be parts of words."""
        words, length = self._words or "", 0
        if f" {tokens[0]} " in words or (len(tokens[0]) >= _SHORTEST_PART and tokens[0] in words):
            length = 1
        elif len(tokens) > 1 and f"{tokens[0]} {tokens[1]} " in words:
            length = 2
        if not length:
            return []
        while length < len(tokens) and f"{' '.join(tokens[: length + 1])} " in words:
            length += 1
        if length < len(tokens) and length > 1 and " ".join(tokens[: length + 1]) in words:
            length += 1
        return tokens[:length]

    def _is_private(self, run: list[str]) -> bool:
        strange = [token for token in run if token not in _ORDINARY]
        is_whole_value = f"\n {' '.join(run)} \n" in (self._words or "")
        if len(run) >= _LONG_PHRASE or (is_whole_value and len(run) > 1):
            return True
        if is_whole_value or len(run) >= _PHRASE:
            return bool(strange)
        other_scripts = [token for token in run if not token.isascii()]
        return len(other_scripts) > 1 or any(len(token) >= _SHORTEST_WORD for token in strange)


def _words_of(body: bytes) -> str:
    """Returns the words of a request's texts, in lower case, a line for each text."""
    texts: list[str] = []
    try:
        _collect(msgspec.json.decode(body), texts)
    except (ValueError, RecursionError):
        texts = [body.decode("utf-8", "replace")]
    lines, left = [], _MOST_REQUEST_CHARACTERS
    for text in texts:
        lines.append(" ".join(_TOKEN.findall(_lower(text[: max(0, left)]))))
        left -= len(text)
    return "\n " + " \n ".join(line for line in lines if line) + " \n"


def _collect(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _PUBLIC_FIELDS or not isinstance(item, str):
                _collect(item, texts)


def _lower(text: str) -> str:
    """Returns the text in lower case, with every character at the same index."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)
