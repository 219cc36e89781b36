"""Record batches as text: CSV records (RFC 4180) and JSON Lines, each value exact.

Both write timestamps, dates and times as ISO 8601, durations as ISO 8601 seconds, decimals with all
their digits and binary as base64. Nested values are JSON.
"""

from decimal import Decimal
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
from pyarrow import types

from batchrun.tables.python_rows import python_values

_JSON = msgspec.json.Encoder(decimal_format="string")
_DECIMAL_PLACES = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def csv_header(schema: pa.Schema) -> bytes:
    """The header record of `schema`, with its line end."""
    return _csv(pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String)), include_header=True)


def csv_records(batch: pa.RecordBatch) -> bytes:
    """The rows as CSV: null is nothing, the empty string is "", lines end with CRLF."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return _csv(pl.DataFrame([_csv_column(name, column) for name, column in columns]), include_header=False)


def _csv(frame: pl.DataFrame, *, include_header: bool) -> bytes:
    return frame.write_csv(include_header=include_header, line_terminator="\r\n").encode()


def json_lines(batch: pa.RecordBatch) -> bytes:
    """The rows as JSON objects, one a line. NaN and infinities, which JSON lacks, are null."""
    names = batch.schema.names
    columns = [python_values(name, _exact(column)) for name, column in zip(names, batch.columns, strict=True)]
    return _JSON.encode_lines([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])


def _csv_column(name: str, column: pa.Array) -> pl.Series:
    column = _exact(column)
    if types.is_nested(column.type):
        texts = [
            None if value is None else _JSON.encode(value).decode() for value in python_values(name, column)
        ]
        return pl.Series(name, texts, dtype=pl.String)
    series = pl.Series(name, column)
    return series.bin.encode("base64") if series.dtype == pl.Binary else series


def _exact(column: pa.Array) -> pa.Array:
    """`column` with text in place of what CSV and JSON have no type for."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _exact(column.storage)
    if types.is_dictionary(kind):
        return _exact(column.dictionary_decode())
    if types.is_timestamp(kind):
        return _timestamps(column)
    if types.is_duration(kind):
        return pa.array(
            [_duration(ticks, kind.unit) for ticks in column.cast(pa.int64()).to_pylist()], pa.string()
        )
    if types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind):
        return column.cast(pa.string())
    return column.cast(_exact_type(kind))


def _timestamps(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # only here, since it takes 0.05 s

    zone = column.type.tz
    if zone == "UTC":  # needs no table of time zones, which small systems lack
        return pc.strftime(column.cast(pa.timestamp(column.type.unit)), "%Y-%m-%dT%H:%M:%SZ")
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%S%Ez" if zone else "%Y-%m-%dT%H:%M:%S")


def _duration(ticks: int | None, unit: str) -> str | None:
    return None if ticks is None else f"PT{Decimal(ticks).scaleb(-_DECIMAL_PLACES[unit]):f}S"


def _exact_type(kind: Any) -> pa.DataType:
    """The type to cast to so that no value is cut: inside lists and structs Python has no nanoseconds."""
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.large_list(_exact_type(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_exact_type(field.type)) for field in kind])
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.string()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_string_view(kind):
        return pa.string()
    return kind
