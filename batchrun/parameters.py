"""Request parameters that differ by row: what a cell may hold, and what is sent for it."""

import reprlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec

CATEGORIES = frozenset(("harassment", "hate", "illicit", "sexual"))


class ParameterError(ValueError):
    """A cell holds no valid value. `str(error)` names the column and what was expected."""


def parameter_value(parameter: str, cell: Any, column: str) -> Any:
    """What is sent as `parameter` for a cell that is not null.

    Lists and objects may come as such or as JSON text, flagged categories also as words. A parameter
    without a rule of its own is sent as it is. Raises ParameterError.
    """
    rule = _RULES.get(parameter)
    if rule is None:
        return cell
    read, valid, expected = rule
    value = read(cell)
    if not valid(value):
        raise ParameterError(f"Column {column!r}: {parameter} must be {expected}, not {reprlib.repr(cell)}.")
    return value


def _as_it_is(cell: Any) -> Any:
    return cell


def _from_json(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        return msgspec.json.decode(cell)
    except msgspec.DecodeError:
        return None


def _words(cell: Any) -> Any:
    return cell.replace(",", " ").split() if isinstance(cell, str) else cell


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float, Decimal) and isfinite(value) and least <= value <= most


MOST_MAX_TOKENS = 10**9


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_all(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(valid, value))


_Rule = tuple[Callable[[Any], Any], Callable[[Any], bool], str]

_RULES: dict[str, _Rule] = {
    "model": (_as_it_is, _is_text, "a model's name"),
    "max_tokens": (
        _as_it_is,
        lambda value: _is_whole(value, 1) and value <= MOST_MAX_TOKENS,
        f"a whole number from 1 to {MOST_MAX_TOKENS:,}",
    ),
    "temperature": (_as_it_is, lambda value: _is_number(value, 0, 2), "a number from 0 to 2"),
    "top_p": (_as_it_is, lambda value: _is_number(value, 0, 1), "a number from 0 to 1"),
    "top_k": (_as_it_is, lambda value: _is_whole(value, 0), "a whole number from 0 up"),
    "flagged_categories": (
        _words,
        lambda value: _are_all(value, lambda word: isinstance(word, str) and word in CATEGORIES),
        f"categories among {', '.join(sorted(CATEGORIES))}",
    ),
    "stop_sequences": (_from_json, lambda value: _are_all(value, _is_text), "a list of texts"),
    "metadata": (_from_json, lambda value: isinstance(value, Mapping), "an object"),
}
