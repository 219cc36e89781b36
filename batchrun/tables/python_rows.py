"""Record batches as Python values, fast for the common types."""

from typing import Any

import polars as pl
import pyarrow as pa
from pyarrow import types

from batchrun.errors import InputError

_PLAIN = {
    *(pa.string(), pa.large_string(), pa.binary(), pa.bool_(), pa.float32(), pa.float64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
}


def python_rows(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """The rows as tuples of Python values, in the order of `batch.schema.names`.

    Text is str; numbers are int, float or Decimal; binary is bytes; times are from `datetime`, cut
    to microseconds; lists are lists; structs and maps are dicts. Raises InputError for a value that
    Python has no type for, such as a date after the year 9999 or a map that has a key twice.
    """
    if not batch.num_columns:
        return [()] * batch.num_rows
    columns = [
        python_values(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return list(zip(*columns, strict=True))


def python_values(name: str, column: pa.Array) -> list[Any]:
    """The values of the column `name`, as `python_rows` gives them."""
    if _is_plain(column.type):
        values: list[Any] = pl.Series(column).to_list()
        return values
    try:
        if types.is_timestamp(column.type) or types.is_duration(column.type):
            column = column.cast(_in_microseconds(column.type), safe=False)
        plain: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"column {name!r} has a value that Python can't hold ({error}). Cast it to text"
        ) from error
    return plain


def _in_microseconds(time: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", time.tz) if types.is_timestamp(time) else pa.duration("us")


def _is_plain(value: pa.DataType) -> bool:
    """Whether polars, which is fast, gives these values as they are; times may be out of its range."""
    if types.is_dictionary(value):
        return bool(types.is_string(value.value_type))
    if types.is_list(value) or types.is_large_list(value):
        return _is_plain(value.value_type)
    if types.is_struct(value):
        return all(_is_plain(field.type) for field in value)
    return bool(value in _PLAIN)


def expected_value(cell: Any) -> Any:
    """A cell to score by: dates, times and amounts as texts.

    A run keeps cells in a file on the way to their scores, the output doesn't: both have to see the same.
    """
    if isinstance(cell, list | tuple):
        return [expected_value(item) for item in cell]
    if isinstance(cell, dict):
        return {name: expected_value(item) for name, item in cell.items()}
    return cell if cell is None or isinstance(cell, str | int | float | bytes) else str(cell)
