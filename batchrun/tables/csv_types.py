"""Types of CSV columns: a column has a type only where its values print exactly as the file's text."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from batchrun.tables.plain_values import plain_values

NAMED = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
}
"""The types by their names in `input.types`."""

Kinds = Mapping[str, str]
"""Kinds of values, each with the pattern that its texts match."""

EXACT: Kinds = {
    "int": r"^(0|-?[1-9][0-9]{0,18})$",
    "float": r"^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$",
    "bool": r"^(true|false)$",
    "date": r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}$",
}


def fitting_kinds(column: pa.StringArray, kinds: frozenset[str]) -> frozenset[str]:
    """Returns the `kinds` whose type reproduces every text of `column`."""
    return frozenset(kind for kind in kinds if _gives_back(column, kind))


def _gives_back(column: pa.StringArray, kind: str) -> bool:
    import pyarrow.compute as pc  # imported for CSV files only, since it takes 0.05 s

    if not _all(pc.match_substring_regex(column, EXACT[kind])):
        return False
    if kind == "bool":
        return True
    try:
        typed = column.cast(NAMED[kind])
    except pa.ArrowInvalid:  # an integer beyond 64 bits, or the 31st of February
        return False
    return kind != "float" or _all(pc.equal(printed(typed), column))


def _all(values: pa.BooleanArray) -> bool:
    return bool(values.false_count == 0)


def common_type(fitting: Sequence[frozenset[str]]) -> pa.DataType:
    """Returns a column's type, given the kinds that fit it in each file. All kinds fit only no values."""
    common = frozenset.intersection(*fitting)
    if common == frozenset(EXACT):
        return pa.string()
    return next((NAMED[kind] for kind in EXACT if kind in common), pa.string())


def printed(column: pa.Array) -> pa.Array:
    """Returns the values of a CSV column as text, as in the file and in a CSV output."""
    if types.is_floating(column.type):
        import polars as pl  # only here, since it takes 0.2 s

        return (
            pl.Series(column).cast(pl.String).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())
        )
    return column.cast(pa.string())


def printed_values(column: pa.Array) -> list[Any]:
    """Returns the values of a CSV column as Python texts, None where a value is null."""
    return plain_values(printed(column))
