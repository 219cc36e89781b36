"""Has a template turn values into text as printing does, also before a text filter, `~` and `join`.

minijinja knows null as `None` there, and an object as Python would print it. So each such place gets a filter
before it, by name, that makes null nothing and a list or an object its JSON.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

from batchrun.client.template_uses import change_code

MISSING = "batchrun_missing"
"""The name of the value that stands for an undefined one, which minijinja hands to filters as None."""

_TEXT = "batchrun_text"
_TEXTS = "batchrun_texts"
_WITHOUT_NULL = "batchrun_without_null"

_FILTERS = {
    **dict.fromkeys(
        (
            *("capitalize", "e", "escape", "indent", "lower", "replace", "safe", "string"),
            *("striptags", "title", "trim", "truncate", "upper", "wordwrap"),
        ),
        _TEXT,
    ),
    "urlencode": _WITHOUT_NULL,
    "join": _TEXTS,
}
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'", re.DOTALL)
_FILTER = re.compile(r"\s*\|\s*(\w+)(?:\s*\(\s*([\"'])(\w+)\2)?")
_JOINED_ATTRIBUTE = re.compile(r"\s*\|\s*join\s*\([^()]*\battribute\s*=\s*('\w+'|\"\w+\")")
_CONCATENATION = re.compile(r"\s*(~)\s*")
_NAME_ALONE = re.compile(r"(?:\A|[^\w.|\s])\s*(\w+)\Z")
_OPENING, _CLOSING = "([{", ")]}"
_PART = re.compile(r"\s*(?:\.\s*\w+|\|\s*\w+|[\[(])")
_FIRST_PART = re.compile(r"-?[\w.]+|[\[({]")


class UndefinedValueError(Exception):
    """A template takes a value that is not there as text."""


def as_texts(source: str, texts: Set[str]) -> str:
    """Returns the template with a filter before each place that takes values as text.

    Columns in `texts` hold text alone, and need none.
    """
    return change_code(source, lambda code: _with_filters(code, texts))


def _with_filters(code: str, texts: Set[str]) -> str:
    if "|" not in code and "~" not in code:
        return code
    strings = [match.span() for match in _STRING.finditer(code)]
    inserted = dict(_insertions(code, strings))
    for place, name in sorted(inserted.items(), reverse=True):
        alone = _NAME_ALONE.search(code, 0, place)
        if alone is None or alone[1] not in texts:
            code = f"{code[:place]}|{name}{code[place:]}"
    return code


def _insertions(code: str, strings: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """Yields places in `code` and the filters to stand there."""

    def is_code(place: int) -> bool:
        return not any(start <= place < end for start, end in strings)

    for match in _FILTER.finditer(code):
        if is_code(match.end(1) - 1):
            if match[1] in _FILTERS:
                yield match.start(), _filter_before(code, match)
            elif match[1] == "map" and match[3] in _FILTERS:
                yield match.start(), f"map('default',{MISSING})|map('{_FILTERS[match[3]]}')"
    for match in _CONCATENATION.finditer(code):
        if is_code(match.start(1)):
            yield match.start(), f"default({MISSING})|{_TEXT}"
            end = _end_of_operand(code, match.end(), strings)
            if end > match.end():
                yield end, f"default({MISSING})|{_TEXT}"


def _filter_before(code: str, match: re.Match[str]) -> str:
    name = _FILTERS[match[1]]
    if name != _TEXTS:
        return f"default({MISSING})|{name}"
    attribute = _JOINED_ATTRIBUTE.match(code, match.start())
    return name if attribute is None else f"{name}({attribute[1]})"


def _end_of_operand(code: str, start: int, strings: list[tuple[int, int]]) -> int:
    """Returns the end of the value that begins at `start`, with its attributes, items, calls and filters."""
    ends = dict(strings)
    if start in ends:
        place = ends[start]
    else:
        first = _FIRST_PART.match(code, start)
        if first is None:
            return start
        place = _closed(code, first, ends)
    while part := _PART.match(code, place):
        place = _closed(code, part, ends)
    return place


def _closed(code: str, part: re.Match[str], ends: Mapping[int, int]) -> int:
    """Returns the end of `part`; where it ends in a bracket, that of the closing one."""
    place = part.end()
    depth = int(code[place - 1] in _OPENING)
    while depth and place < len(code):
        if place in ends:
            place = ends[place]
            continue
        depth += (code[place] in _OPENING) - (code[place] in _CLOSING)
        place += 1
    return place


def text_filters(printable: Callable[[Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """Returns the filters that `as_texts` names. `printable` makes a value what is printed of it."""

    def checked(value: Any) -> Any:
        if isinstance(value, _Missing):
            raise UndefinedValueError
        return value

    def texts(values: Any, attribute: str | None = None) -> Any:
        if values is None:
            return ""
        if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
            return values  # joined, or refused, by the engine
        if attribute is None:
            return [printable(value) for value in values]
        return [
            {**value, attribute: printable(value[attribute])}
            if isinstance(value, dict) and attribute in value
            else value
            for value in values
        ]

    return {
        _TEXT: lambda value: printable(checked(value)),
        _WITHOUT_NULL: lambda value: "" if checked(value) is None else value,
        _TEXTS: texts,
    }


class _Missing:
    pass


MISSING_VALUE = _Missing()
