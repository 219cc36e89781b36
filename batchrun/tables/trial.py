"""Encodes the whole input before anything is sent, so that the output can't fail on it later."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from batchrun.errors import InputError, OutputError
from batchrun.tables.exact_values import zone_is_unknown
from batchrun.tables.python_rows import is_plain
from batchrun.tables.reader import Table
from batchrun.tables.storable import storable_schema
from batchrun.tables.writer import trial_writer
from batchrun.text import first_line

_MOST_CHARACTERS_OF_A_TYPE = 80


def check_values(path: Path, table: Table) -> list[str]:
    """Reads `table` once in full and encodes its values as for `path`, without storing them.

    Text files have been read in full when they were opened, and every output can hold their types. Returns
    messages on the columns that the output holds as another type. Raises InputError for values that can't be
    read, OutputError for values that can't be written.
    """
    if all(part.is_checked for part in table.parts):
        return []
    _refuse_unknown_zones(path, table.schema)
    special = [field.name for field in table.schema if not is_plain(field.type)]
    with trial_writer(path, pa.schema([table.schema.field(name) for name in special])) as writer:
        for batch in table.batches():
            _check_text(table, batch)
            if special:
                _write(path, writer.write, batch.select(special))
    return _changes(path, table.schema)


def _refuse_unknown_zones(path: Path, schema: pa.Schema) -> None:
    """Refuses times whose offset from UTC a text would have to state; Parquet keeps the zone's name."""
    column = next((field for field in schema if zone_is_unknown(field.type)), None)
    if column is not None and path.suffix.lower() != ".parquet":
        raise OutputError(
            f"{path} can't hold the column {column.name!r} ({column.type}): its time zone is unknown here, "
            "so its times can't be written as text.\nCast it to UTC or a zone such as Europe/Berlin in the "
            "input, or write .parquet."
        )


def _check_text(table: Table, batch: pa.RecordBatch) -> None:
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise InputError(
            f"{table.files[0]}: {first_line(error)}. The file is damaged: write it again"
        ) from error


def _write(path: Path, write: Callable[[pa.RecordBatch], None], batch: pa.RecordBatch) -> None:
    try:
        write(batch)
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError) as error:
        kinds = ", ".join(f"{field.name!r} ({_shortened(field.type)})" for field in batch.schema)
        raise OutputError(
            f"{path} can't hold a value of one of the columns {kinds}: {first_line(error)}. "
            "Drop or cast the column in the input"
        ) from error


def _changes(path: Path, schema: pa.Schema) -> list[str]:
    if path.suffix.lower() != ".parquet":
        return []
    return [
        f"column {before.name!r} of type {_shortened(before.type)} is written as {after.type}: "
        "Parquet has no such type, or not all its readers do"
        for before, after in zip(schema, storable_schema(schema), strict=True)
        if before.type != after.type
    ]


def _shortened(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= _MOST_CHARACTERS_OF_A_TYPE else f"{text[:_MOST_CHARACTERS_OF_A_TYPE]}..."
