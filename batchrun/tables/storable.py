"""Converts values to types that Parquet has, exactly."""

from functools import cache

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from batchrun.tables.exact_values import exact_values
from batchrun.tables.json_cells import holds_everything

_JSON = msgspec.json.Encoder(decimal_format="string")


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """Returns `schema` with a Parquet type in place of each type that Parquet lacks."""
    fields = [field.with_type(_storable(field.type)) for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


@cache
def _storable(kind: pa.DataType) -> pa.DataType:
    plain = _without_views(kind)
    if _is_held(plain):
        return plain
    return _storable(kind.value_type) if types.is_dictionary(kind) else pa.string()


def _is_held(kind: pa.DataType) -> bool:
    if not holds_everything(kind):
        return False
    try:
        table = pa.table({"x": pa.nulls(1, kind)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        # Not read_table, which imports pyarrow.dataset, at 0.07 s.
        pq.ParquetFile(pa.BufferReader(sink.getvalue())).read()
    except (pa.ArrowException, OSError, TypeError, ValueError):
        return False
    return True


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Returns the type with plain texts in place of views, which pyarrow can't write inside structs."""
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind) or types.is_large_list(kind):
        make = pa.list_ if types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_without_views(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    return kind


def stored(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns the values of `column` as the type that `storable_schema` gives it."""
    if column.type == kind:
        return column
    try:
        values = column.dictionary_decode() if types.is_dictionary(column.type) else column
        if not types.is_string(kind) or types.is_string_view(values.type):
            return values.cast(kind)
    except pa.ArrowException:
        pass  # a type that Arrow can't cast
    return pa.array([as_text(value) for value in exact_values(column)], kind)


def as_text(value: object) -> str | None:
    """Returns a value from `exact_values` as text: nested ones as JSON, decimals with all their digits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict | bool | float):
        return _JSON.encode(value).decode()
    return f"{value:f}" if not isinstance(value, int) else str(value)
