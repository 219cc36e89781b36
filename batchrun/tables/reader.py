"""Tables in: one interface over CSV, TSV, JSON Lines, Parquet and Arrow IPC, in files or object stores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchrun.errors import InputError
from batchrun.tables.arrow_file import open_ipc, open_parquet, open_remote_parquet
from batchrun.tables.csv_file import open_csv
from batchrun.tables.jsonl_file import open_jsonl
from batchrun.tables.locations import Location, find_locations, format_of, scheme_of
from batchrun.tables.python_rows import python_rows
from batchrun.tables.table_file import TableFile, check_column_names

__all__ = ["Table", "in_memory", "open_table", "python_rows"]

BATCH_ROWS = 8192

_ARROW_SCHEMES = ("file", "s3", "gs", "abfs", "abfss")
_POLARS_SCHEMES = ("https", "http", "az")


@dataclass(frozen=True)
class Table:
    """An input whose schema is known and that can be read again and again, in the same order."""

    schema: pa.Schema
    files: tuple[str, ...]
    row_count: int | None
    parts: tuple[TableFile, ...]

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows in input order, in batches of 1 to `rows` rows, with `columns` in their order.

        Each call reads the files anew; memory doesn't grow with them. Raises InputError where a file
        is damaged or has changed since it was opened.
        """
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        for part in self.parts:
            # A batch without a column would not know its number of rows.
            for batch in part.read(names or self.schema.names[:1], rows):
                if batch.num_rows:
                    selected = batch.select(names).replace_schema_metadata(None)
                    yield selected if selected.schema.equals(schema) else selected.cast(schema)


def open_table(path: str, base: Path) -> Table:
    """Opens the input that a job names.

    `path` is a path relative to `base`, a glob (its files sorted by name), or an object-store URL.
    The ending says the format: .csv .tsv .jsonl .ndjson (also with .gz or .zst), .parquet .pq,
    .arrow .ipc .feather. Text files are read once in full, so that types hold for all rows and faults
    are found now. Raises InputError.
    """
    scheme = scheme_of(path)
    if scheme in _POLARS_SCHEMES:
        if format_of(path.partition("?")[0])[0] != "parquet":
            raise InputError(f"{path}: over {scheme}:// only Parquet can be read. Download the file first")
        parts = [open_remote_parquet(path)]
    elif scheme is None or scheme in _ARROW_SCHEMES:
        parts = _open(find_locations(path, base))
    else:
        known = " ".join(f"{name}://" for name in (*_ARROW_SCHEMES, *_POLARS_SCHEMES))
        raise InputError(f"{path}: nothing here reads {scheme}://. Known: {known}")
    for part in parts[1:]:
        _check_same_schema(parts[0], part)
    counts = [part.row_count for part in parts]
    total = None if None in counts else sum(count for count in counts if count is not None)
    return Table(parts[0].schema, tuple(part.name for part in parts), total, tuple(parts))


def in_memory(data: pa.Table, name: str) -> Table:
    """A table that is in memory already, under the name that messages call it. Raises InputError.

    Its rows are handed out as slices, without copying but where a slice spans chunks of `data`.
    """
    schema = data.schema.remove_metadata()
    check_column_names(name, schema.names)
    if not schema.names:
        raise InputError(f"{name} has no columns")

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        wanted = data.select(list(columns))
        for start in range(0, wanted.num_rows, rows):
            yield from wanted.slice(start, rows).combine_chunks().to_batches()

    return Table(schema, (name,), data.num_rows, (TableFile(name, schema, data.num_rows, read),))


def _open(locations: Sequence[Location]) -> list[TableFile]:
    kinds = {location.format for location in locations}
    if len(kinds) > 1:
        other = next(location for location in locations if location.format != locations[0].format)
        raise InputError(
            f"{locations[0].name} and {other.name} are of different kinds. Match one kind of file"
        )
    match kinds.pop():
        case "csv" | "tsv":
            return open_csv(locations)
        case "jsonl":
            return open_jsonl(locations)
        case "ipc":
            return [open_ipc(location) for location in locations]
        case _:
            return [open_parquet(location) for location in locations]


def _check_same_schema(first: TableFile, other: TableFile) -> None:
    if first.schema.equals(other.schema):
        return
    files = f"{other.name} and {first.name} don't have one schema"
    for missing in [*first.schema.names, *other.schema.names]:
        if missing not in first.schema.names or missing not in other.schema.names:
            owner, lacking = (first, other) if missing in first.schema.names else (other, first)
            raise InputError(f"{files}: {owner.name} has a column {missing!r}, {lacking.name} has not")
    for ours, theirs in zip(first.schema, other.schema, strict=True):
        if ours.name != theirs.name:
            raise InputError(f"{files}: where one has column {ours.name!r}, the other has {theirs.name!r}")
        if not ours.equals(theirs):
            raise InputError(
                f"{files}: column {ours.name!r} is {_describe(theirs)} in one, {_describe(ours)} in the other"
            )


def _describe(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"
