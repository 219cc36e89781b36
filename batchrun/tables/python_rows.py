"""Converts record batches to Python values, fast for the common types."""

from typing import Any

import pyarrow as pa
from pyarrow import types

from batchrun.errors import InputError
from batchrun.tables.exact_values import exact_values
from batchrun.tables.plain_values import SCALARS, plain_values


def python_rows(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Returns the rows as tuples of Python values, in the order of `batch.schema.names`.

    Text is str; numbers are int, float or Decimal; binary is bytes; times are `datetime` types, truncated to
    microseconds; lists are lists; structs and maps are dicts.
    """
    if not batch.num_columns:
        return [()] * batch.num_rows
    columns = [
        python_values(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return list(zip(*columns, strict=True))


def python_values(name: str, column: pa.Array) -> list[Any]:
    """Returns the values of the column `name`, as in `python_rows`.

    A value for which Python has no type, or one with fewer digits, is as in `exact_values`.
    """
    kind = column.type
    if types.is_float32(kind) or _needs_exact(kind):
        return exact_values(column)
    if types.is_timestamp(kind) and kind.unit == "ns":
        return _from_nanoseconds(name, column)
    try:
        return former_python_values(name, column)
    except InputError:
        return exact_values(column)


def _needs_exact(kind: pa.DataType) -> bool:
    """Whether a nested value has no exact type in Python."""
    if types.is_map(kind) and not (types.is_string(kind.key_type) or types.is_large_string(kind.key_type)):
        return True
    return types.is_nested(kind) and any(
        _needs_exact(child)
        or types.is_float32(child)
        or isinstance(child, pa.BaseExtensionType)
        or (types.is_temporal(child) and getattr(child, "unit", "") == "ns")
        for child in _children(kind)
    )


def _children(kind: pa.DataType) -> list[pa.DataType]:
    if types.is_union(kind):
        return []
    return [kind.field(place).type for place in range(kind.num_fields)]


def _from_nanoseconds(name: str, column: pa.Array) -> list[Any]:
    """Returns times as `datetime` types, or as ISO 8601 where they have more digits."""
    ticks = column.cast(pa.int64()).to_pylist()
    values = former_python_values(name, column)
    if all(tick is None or tick % 1000 == 0 for tick in ticks):
        return values
    pairs = zip(values, exact_values(column), ticks, strict=True)
    return [exact if tick is not None and tick % 1000 else value for value, exact, tick in pairs]


def former_python_values(name: str, column: pa.Array) -> list[Any]:
    """Returns the values as templates formerly got them; see `rows.former`. Raises InputError."""
    if is_plain(column.type):
        return plain_values(column)
    try:
        if types.is_timestamp(column.type) or types.is_duration(column.type):
            column = column.cast(_in_microseconds(column.type), safe=False)
        plain: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(
            f"column {name!r} has a value that Python can't hold ({error}). Cast it to text"
        ) from error
    return plain


def _in_microseconds(time: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", time.tz) if types.is_timestamp(time) else pa.duration("us")


def is_plain(value: pa.DataType) -> bool:
    """Whether `plain_values` returns these values unchanged; times may be out of the range of Python."""
    if types.is_dictionary(value):
        return bool(types.is_string(value.value_type))
    if types.is_list(value) or types.is_large_list(value):
        return is_plain(value.value_type)
    if types.is_struct(value):
        return all(is_plain(field.type) for field in value)
    return bool(value in SCALARS)


def expected_value(cell: Any) -> Any:
    """Returns a cell to score by: dates, times and amounts as texts.

    A run keeps cells in a file until they are scored, the output doesn't: both must see the same value.
    """
    if isinstance(cell, list | tuple):
        return [expected_value(item) for item in cell]
    if isinstance(cell, dict):
        return {name: expected_value(item) for name, item in cell.items()}
    return cell if cell is None or isinstance(cell, str | int | float | bytes) else str(cell)
