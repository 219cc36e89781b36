"""The single list of request parameters, with the valid cells where a parameter differs by row.

A new parameter from [request.extra] or a column is a line in PARAMETERS; one with its own key is a line with
`key`, and a field of that name in `Request` in `spec`.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Literal, get_args

import msgspec

Category = Literal["harassment", "hate", "illicit", "sexual"]
CATEGORIES: tuple[str, ...] = get_args(Category)
MOST_MAX_TOKENS = 10**9


class ParameterError(ValueError):
    """A cell's value is invalid. `str(error)` names the column and what was expected."""


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


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_all(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(valid, value))


@dataclass(frozen=True, slots=True)
class CellRule:
    """The valid values of a cell, in words and as a test; `read` converts the cell first.

    `of_text`: the text of a CSV cell is not read as a number before that.
    """

    expected: str
    valid: Callable[[Any], bool]
    read: Callable[[Any], Any] = _as_it_is
    of_text: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of the request body that batchrun knows.

    `key` is the job file's key for it; None: [request.extra] sets it, where all rows have the same value.
    `cell` is the rule for cells; None: it can't differ by row. `in_prompt`: it may add tokens to the input,
    which the worst case then counts.
    """

    name: str
    key: str | None = None
    cell: CellRule | None = None
    in_prompt: bool = True


PARAMETERS = (
    Parameter("model", "request.model", CellRule("a model's name", _is_text, of_text=True), in_prompt=False),
    Parameter(
        "max_tokens",
        "request.max_tokens",
        CellRule(
            f"a whole number from 1 to {MOST_MAX_TOKENS:,}",
            lambda value: _is_whole(value, 1) and value <= MOST_MAX_TOKENS,
        ),
        in_prompt=False,
    ),
    Parameter(
        "temperature",
        "request.temperature",
        CellRule("a number from 0 to 2", lambda value: _is_number(value, 0, 2)),
        in_prompt=False,
    ),
    Parameter(
        "flagged_categories",
        "request.flagged_categories",
        CellRule(
            f"categories among {', '.join(CATEGORIES)}",
            lambda value: _are_all(value, lambda word: isinstance(word, str) and word in CATEGORIES),
            _words,
            of_text=True,
        ),
        in_prompt=False,
    ),
    Parameter("stream", "request.stream", in_prompt=False),
    Parameter("top_p", cell=CellRule("a number from 0 to 1", lambda value: _is_number(value, 0, 1))),
    Parameter("top_k", cell=CellRule("a whole number from 0 up", lambda value: _is_whole(value, 0))),
    Parameter(
        "stop_sequences",
        cell=CellRule("a list of texts", lambda value: _are_all(value, _is_text), _from_json, of_text=True),
    ),
    Parameter(
        "metadata",
        cell=CellRule("an object", lambda value: isinstance(value, Mapping), _from_json, of_text=True),
    ),
)
"""Parameters with a key stand in a body in this order, which a request's identity depends on."""

OUTSIDE_PARAMETERS = {
    "free_tier": "request.free_tier",
    "messages": "prompt.messages",
    "system": "prompt.system",
}
"""Further names that [request.extra] can't set, with the keys that set them."""

KEYS = OUTSIDE_PARAMETERS | {
    parameter.name: parameter.key for parameter in PARAMETERS if parameter.key is not None
}
"""Parameters that [request.extra] must not set, with the keys that set them."""

BY_ROW = {parameter.name: parameter.cell for parameter in PARAMETERS if parameter.cell is not None}
OF_TEXT = frozenset(name for name, rule in BY_ROW.items() if rule.of_text)
OF_REQUEST = tuple(parameter.name for parameter in PARAMETERS if parameter.key is not None)
OUTSIDE_THE_PROMPT = frozenset(parameter.name for parameter in PARAMETERS if not parameter.in_prompt)


def parameter_value(parameter: str, cell: Any, column: str) -> Any:
    """Returns the value to send as `parameter` for a cell that is not null.

    Lists and objects may come as such or as JSON text, flagged categories also as words. A parameter without
    a rule is sent unchanged. Raises ParameterError.
    """
    rule = BY_ROW.get(parameter)
    if rule is None:
        return cell
    value = rule.read(cell)
    if not rule.valid(value):
        raise ParameterError(
            f"Column {column!r}: {parameter} must be {rule.expected}, not {reprlib.repr(cell)}."
        )
    return value
