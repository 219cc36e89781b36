"""Columns from the names of folders: `year=2024/country=de/part.parquet`, as Hive and Spark write tables."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from urllib.parse import unquote

import pyarrow as pa

from batchrun.errors import InputError
from batchrun.tables.table_file import TableFile

_NULL = "__HIVE_DEFAULT_PARTITION__"


def with_folder_columns(part: TableFile) -> TableFile:
    """Returns `part` with a text column for each folder `key=value` in its path, after its own columns.

    Raises InputError where a folder's key is also a column, and where the path has no such folder.
    """
    folders = _folders(part.name)
    if not folders:
        raise InputError(f"{part.name}: [input] hive: no folder in its path is named key=value")
    taken = next((key for key in folders if key in part.schema.names), None)
    if taken is not None:
        raise InputError(f"{part.name}: [input] hive: {taken!r} is a folder's key and a column. Rename one")
    schema = pa.schema([*part.schema, *((key, pa.string()) for key in folders)], part.schema.metadata)

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        # A batch without a column would not know its number of rows.
        own = [name for name in columns if name not in folders] or part.schema.names[:1]
        for batch in part.read(own, rows):
            arrays = list(batch.columns)
            arrays += [pa.repeat(pa.scalar(value, pa.string()), batch.num_rows) for value in folders.values()]
            yield pa.RecordBatch.from_arrays(arrays, [*batch.schema.names, *folders])

    return replace(part, schema=schema, read=read)


def _folders(name: str) -> dict[str, str | None]:
    pairs = [folder.partition("=") for folder in PurePath(name).parts[:-1] if "=" in folder]
    return {
        unquote(key): None if value == _NULL else unquote(value)
        for key, _, value in pairs
        if key.isidentifier()
    }
