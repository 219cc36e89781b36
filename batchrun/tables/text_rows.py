"""Writes record batches as text: CSV records (RFC 4180) and JSON Lines, each value exact.

Both write timestamps, dates and times as ISO 8601, durations as ISO 8601 seconds, decimals with all
their digits and binary as base64. Nested values are JSON.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from pyarrow import types

from batchrun.tables.exact_values import exact_values
from batchrun.tables.json_cells import JSON_TEXT
from batchrun.tables.plain_values import plain_values
from batchrun.tables.python_rows import is_plain, python_values
from batchrun.tables.sheet import FORMULA_STARTS, NEGATIVE_NUMBER
from batchrun.tables.storable import as_text

if TYPE_CHECKING:
    import polars as pl

_JSON = msgspec.json.Encoder(decimal_format="string")


def csv_header(schema: pa.Schema, harmless: frozenset[str] = frozenset()) -> bytes:
    """Returns the header record of `schema`, with its line end. `harmless` is as for `csv_records`."""
    names = pa.record_batch([pa.array([name], pa.string()) for name in schema.names], schema.names)
    return csv_records(names, harmless)


@dataclass(frozen=True, slots=True)
class CsvStyle:
    """`harmless` are the columns whose cells spreadsheets must not run as formulas.

    `bom`: the file begins with the byte order mark by which spreadsheets recognize UTF-8.
    """

    harmless: frozenset[str] = frozenset()
    bom: bool = False


def csv_records(batch: pa.RecordBatch, harmless: frozenset[str] = frozenset()) -> bytes:
    """Returns the rows as CSV: null is an empty field, the empty string is "", lines end with CRLF.

    A cell of a `harmless` column that a spreadsheet would run as a formula has an apostrophe before it.
    """
    import polars as pl  # in the functions that need it, since it takes 0.2 s

    columns = [
        _csv_column(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    frame = pl.DataFrame([_unrun(column) if column.name in harmless else column for column in columns])
    return frame.write_csv(include_header=False, line_terminator="\r\n").encode()


def _unrun(column: "pl.Series") -> "pl.Series":
    import polars as pl

    if column.dtype != pl.String:
        return column
    runs = column.str.contains(f"^ *[{FORMULA_STARTS}]") & ~column.str.contains(f"^{NEGATIVE_NUMBER}$")
    return pl.select(pl.when(runs).then("'" + column).otherwise(column).alias(column.name)).to_series()


def json_lines(batch: pa.RecordBatch) -> bytes:
    """Returns the rows as JSON objects, one a line. NaN and infinities, which JSON lacks, become null."""
    columns = [_json_values(field, column) for field, column in zip(batch.schema, batch.columns, strict=True)]
    names = batch.schema.names
    return _JSON.encode_lines([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])


def _json_values(field: pa.Field, column: pa.Array) -> list[Any]:
    if field.metadata == JSON_TEXT:
        texts: list[str | None] = column.to_pylist()
        return [None if text is None else msgspec.Raw(text.encode()) for text in texts]
    if _is_time_or_decimal(column.type):
        return plain_values(_time_texts(column))
    if is_plain(column.type) and not types.is_binary(column.type):
        return python_values(field.name, column)
    return exact_values(column)


def _csv_column(name: str, column: pa.Array) -> "pl.Series":
    import polars as pl

    kind = column.type
    if _is_time_or_decimal(kind):
        return pl.Series(name, _time_texts(column))
    if (is_plain(kind) or types.is_float16(kind)) and not (types.is_binary(kind) or types.is_nested(kind)):
        return pl.Series(name, column)
    return pl.Series(name, [as_text(value) for value in exact_values(column)], dtype=pl.String)


def _is_time_or_decimal(kind: pa.DataType) -> bool:
    return bool(
        types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind)
    )


def _time_texts(column: pa.Array) -> pa.Array:
    """Does the same as `exact_values`, by Arrow where possible, which is fast."""
    kind = column.type
    try:
        texts = _timestamps(column) if types.is_timestamp(kind) else column.cast(pa.string())
        if types.is_time(kind) or (types.is_decimal(kind) and kind.scale >= 0) or _have_four_digits(texts):
            return texts
    except pa.ArrowException:  # a time zone unknown to Arrow
        pass
    return pa.array([as_text(value) for value in exact_values(column)], pa.string())


def _have_four_digits(dates: pa.Array) -> bool:
    """Whether all years have four digits, as ISO 8601 requires for years without a sign."""
    import pyarrow.compute as pc

    return bool(pc.match_substring_regex(dates, "^[0-9]{4}-").false_count == 0)


def _timestamps(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # imported here, since it takes 0.05 s

    zone = column.type.tz
    if zone == "UTC":  # works without a time zone database, which small systems lack
        return pc.strftime(column.cast(pa.timestamp(column.type.unit)), "%Y-%m-%dT%H:%M:%SZ")
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%S%Ez" if zone else "%Y-%m-%dT%H:%M:%S")
