"""Reads JSON that is not one object a line: an array of rows, or objects over several lines each.

The file is in memory as a whole. Rows are given as the text of one line, with the number of the line in the
file where they begin.
"""

import json
import re
from collections.abc import Iterator

import msgspec

from batchrun.errors import InputError
from batchrun.tables.csv_faults import not_utf8
from batchrun.tables.locations import Location

_MOST_TRIED_BYTES = 16 << 20
_BLANKS = re.compile(r"[ \t\r\n]*")
_Decoder = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)  # numbers stay text anyway


def spans_lines(location: Location) -> bool:
    """Whether the file begins with an object that is written over several lines."""
    with location.open_stream() as stream:
        text = stream.read(_MOST_TRIED_BYTES).decode("utf-8-sig", errors="replace")
    start = _after_blanks(text, 0)
    try:
        _, end = _Decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[start:end] or "\r" in text[start:end]


def documents(location: Location) -> Iterator[tuple[int, bytes]]:
    """Yields the objects that stand one after the other. Raises InputError."""
    text = _content(location)
    place, line = _after_blanks(text, 0), 1 + text.count("\n", 0, _after_blanks(text, 0))
    while place < len(text):
        end = _end_of_value(location, text, place)
        yield line, _on_one_line(text[place:end])
        following = _after_blanks(text, end)
        line += text.count("\n", place, following)
        place = following


def elements(location: Location) -> Iterator[tuple[int, bytes]]:
    """Yields the elements of an array. Raises InputError."""
    text = _content(location)
    place = _after_blanks(text, _after_blanks(text, 0) + 1)
    line = 1 + text.count("\n", 0, place)
    while text[place : place + 1] != "]":
        end = _end_of_value(location, text, place)
        yield line, _on_one_line(text[place:end])
        comma = _after_blanks(text, end)
        if text[comma : comma + 1] not in (",", "]"):
            raise _malformed(location, json.JSONDecodeError("Expecting ',' or ']'", text, comma))
        following = comma if text[comma] == "]" else _after_blanks(text, comma + 1)
        line += text.count("\n", place, following)
        place = following
    rest = _after_blanks(text, place + 1)
    if rest < len(text):
        raise _malformed(location, json.JSONDecodeError("Extra data after the array", text, rest))


def _content(location: Location) -> str:
    with location.open_stream() as stream:
        content = stream.read()
    try:
        return str(content, "utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = 1 + before.count(b"\n")
        start = before.rfind(b"\n") + 1
        raise not_utf8(location, line, content[start : error.end], error.start - start) from error


def _after_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return place if match is None else match.end()


def _end_of_value(location: Location, text: str, place: int) -> int:
    try:
        return _Decoder.raw_decode(text, place)[1]
    except json.JSONDecodeError as error:
        raise _malformed(location, error) from error
    except RecursionError:
        raise InputError(f"{location.name}: a value is nested too deeply") from None


def _malformed(location: Location, error: json.JSONDecodeError) -> InputError:
    return InputError(
        f"{location.name}: line {error.lineno}, column {error.colno}: {error.msg}. Write the JSON again"
    )


def _on_one_line(value: str) -> bytes:
    text = value.encode()
    if "\n" not in value and "\r" not in value:
        return text
    try:
        return msgspec.json.format(text, indent=-1)
    except msgspec.DecodeError:  # NaN, which Python's reader takes: told where the row is read
        return text
