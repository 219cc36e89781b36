"""Python values of plain columns."""

from typing import Any

import pyarrow as pa
from pyarrow import types

SCALARS = {
    *(pa.string(), pa.large_string(), pa.binary(), pa.bool_(), pa.float32(), pa.float64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
}


def plain_values(column: pa.Array) -> list[Any]:
    """Returns the values of a column of a type for which `python_rows.is_plain` holds."""
    values: list[Any]
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type in SCALARS:
        values = column.to_pylist()
        return values
    import polars as pl  # only here, since it takes 0.2 s and 40 MB

    values = pl.Series(column).to_list()
    return values
