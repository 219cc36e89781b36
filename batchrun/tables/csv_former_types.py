"""Former types of CSV columns in prompts, before their text stayed text: 3.10 was rendered as 3.1.

Kept for journals of that time, which store requests under the digests of such prompts.
"""

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
# Integers in a float column: as many digits as a double holds exactly.
_FLOAT = r"^(0|-?[1-9][0-9]{0,14}|-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))$"
_NOT_SIGNIFICANT = r"^-?(0?\.0*)?|\.|[eE].*$"
_FLOAT_DIGITS = 17  # the shortest text that identifies a double has at most 17

_KINDS = {
    "true": (pa.bool_(), r"^(true|false)$"),
    "True": (pa.bool_(), r"^(True|False)$"),
    "TRUE": (pa.bool_(), r"^(TRUE|FALSE)$"),
    "integer": (pa.int64(), _INTEGER),
    "float": (pa.float64(), _FLOAT),
}
ALL_FORMER = frozenset(_KINDS)


def former_kinds(column: pa.StringArray, kinds: frozenset[str]) -> frozenset[str]:
    """Returns the `kinds` that fit all values of `column`."""
    return frozenset(kind for kind in kinds if _fits(kind, column))


def former_type(fitting: Sequence[frozenset[str]]) -> pa.DataType:
    """Returns the first kind that fits a column in all files. All kinds fit only a column without values."""
    common = frozenset.intersection(*fitting)
    if common == ALL_FORMER:
        return pa.string()
    return next((target for kind, (target, _) in _KINDS.items() if kind in common), pa.string())


def _fits(kind: str, column: pa.StringArray) -> bool:
    import pyarrow.compute as pc  # imported for CSV files only, since it takes 0.05 s

    target, pattern = _KINDS[kind]
    if not _all(pc.match_substring_regex(column, pattern)):
        return False
    if pa.types.is_boolean(target):
        return True
    try:
        numbers = column.cast(target)
    except pa.ArrowInvalid:  # an integer beyond 64 bits
        return False
    if pa.types.is_integer(target):
        return True
    digits = pc.binary_length(pc.replace_substring_regex(column, _NOT_SIGNIFICANT, ""))
    return _all(pc.is_finite(numbers)) and _all(pc.less_equal(digits, _FLOAT_DIGITS))


def _all(values: pa.BooleanArray) -> bool:
    return bool(values.false_count == 0)


def former_value(cell: str | None) -> Any:
    """Returns the value that a template got for a cell, in a column whose cells were all of one kind."""
    if cell is None:
        return None
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if re.match(_INTEGER, cell):
        return int(cell)
    return float(cell) if re.match(_FLOAT, cell) else cell
