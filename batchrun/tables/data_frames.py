"""Converts data frames of other libraries to Arrow tables."""

import sys
from typing import Any

import polars as pl
import pyarrow as pa

from batchrun.errors import InputError

_KINDS = "a polars, pandas or pyarrow table, or another with __arrow_c_stream__"


def arrow_table(data: Any) -> pa.Table:
    """Returns `data` as an Arrow table: a pyarrow Table or RecordBatch, a DataFrame of polars or pandas, or
    anything else with `__arrow_c_stream__`. The index of a pandas DataFrame is left out.

    Raises InputError for anything else, and for columns that Arrow has no type for.
    """
    try:
        return _converted(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        # The last part names the column; earlier parts may quote a cell.
        raise InputError(f"the input has a column that Arrow can't hold: {error.args[-1]}") from error


def _converted(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pl.LazyFrame):
        raise InputError("the input is a LazyFrame: collect() it first")
    if isinstance(data, pl.DataFrame):
        return _from_polars(data)
    # The caller of a pandas DataFrame has imported pandas.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, pa.RecordBatch) or hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    raise InputError(f"expected {_KINDS} as the input, got {type(data).__name__}")


def _from_polars(frame: pl.DataFrame) -> pa.Table:
    for name, kind in frame.schema.items():
        # Arrow would get the addresses of the objects.
        if kind == pl.Object:
            raise InputError(f"the input's column {name!r} holds Python objects; cast it to text")
    return frame.to_arrow()
