"""Reads tables: one interface to all formats, in files, archives, databases and object stores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from batchrun.errors import InputError, JobError
from batchrun.tables.arrow_file import open_ipc, open_parquet, open_remote_parquet
from batchrun.tables.copies import CopiedLocation
from batchrun.tables.csv_file import open_csv
from batchrun.tables.csv_former_types import former_value
from batchrun.tables.csv_types import printed, printed_values
from batchrun.tables.database import database_of, open_query
from batchrun.tables.download import download
from batchrun.tables.endings import ARROW_SCHEMES, format_of
from batchrun.tables.hive import with_folder_columns
from batchrun.tables.hub import copies_from_hub
from batchrun.tables.jsonl_file import open_jsonl
from batchrun.tables.locations import Location, check_content, find_locations, scheme_of
from batchrun.tables.options import ReadOptions
from batchrun.tables.python_rows import former_python_values, python_rows, python_values
from batchrun.tables.table_file import Cells, TableFile, check_fields
from batchrun.tables.workbook import open_sheet
from batchrun.tables.zip_file import unpack
from batchrun.text import without_secrets

__all__ = ["Table", "in_memory", "open_table", "python_rows"]

BATCH_ROWS = 8192


def _open_text(locations: Sequence[Location], options: ReadOptions) -> list[TableFile]:
    return open_csv(locations, options.types, options.skip_lines)


# Openers by the formats in `endings.READ`, but for those in `_COPIED`, which become one of the others.
_OPENERS: dict[str, Callable[[Sequence[Location], ReadOptions], list[TableFile]]] = {
    "csv": _open_text,
    "tsv": _open_text,
    "jsonl": lambda locations, _: open_jsonl(locations),
    "ipc": lambda locations, _: [open_ipc(location) for location in locations],
    "parquet": lambda locations, _: [open_parquet(location) for location in locations],
}
_COPIED = ("zip", "workbook")
_POLARS_SCHEMES = ("https", "http", "az")


@dataclass(frozen=True)
class Table:
    """An input with a known schema, which can be read repeatedly, in the same order.

    `in_place` says that its files are on this machine and no copies, so that another process can open them.
    """

    schema: pa.Schema
    files: tuple[str, ...]
    row_count: int | None
    parts: tuple[TableFile, ...]
    notes: tuple[str, ...] = ()
    in_place: bool = False

    @property
    def cells(self) -> Cells:
        """How templates get cells. All files of a table agree on it."""
        return self.parts[0].cells

    def template_values(self, name: str, batch: pa.RecordBatch) -> list[Any]:
        """Returns the values of the column `name` as for templates, and for comparison with answers."""
        column = batch.column(self.cells.sources.get(name, name))
        values = self.cells.values.get(name)
        return python_values(name, column) if values is None else values(column)

    def sources(self, names: Sequence[str]) -> list[str]:
        """Returns the further columns that `template_values` needs in a batch for `names`."""
        return [self.cells.sources[name] for name in names if name in self.cells.sources]

    def template_rows(self, batch: pa.RecordBatch, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns the rows of `batch` as tuples of values from `template_values`."""
        if not names:
            return [()] * batch.num_rows
        return list(zip(*(self.template_values(name, batch) for name in names), strict=True))

    def former_rows(
        self, batch: pa.RecordBatch, names: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> list[tuple[Any, ...]]:
        """Returns the rows as templates got them before a CSV's text stayed text.

        `types` come from `cells.former_types`; a cell without one has the type that fits it alone.
        """
        if not names:
            return [()] * batch.num_rows
        return list(zip(*(self._former_values(batch, name, types) for name in names), strict=True))

    def _former_values(self, batch: pa.RecordBatch, name: str, types: Mapping[str, pa.DataType]) -> list[Any]:
        column, kind = batch.column(name), types.get(name)
        if name in self.cells.texts and kind is None:
            return [former_value(cell) for cell in printed_values(column)]
        return former_python_values(
            name, column if kind in (None, column.type) else printed(column).cast(kind)
        )

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows in input order, in batches of 1 to `rows` rows, with `columns` in their order.

        Each call reads the files again; memory doesn't grow with them. Raises InputError where a file
        is damaged or has changed since it was opened.
        """
        names = self.schema.names if columns is None else list(columns)
        hidden = frozenset(self.cells.sources.values())
        schema = pa.schema(
            [pa.field(name, pa.string()) if name in hidden else self.schema.field(name) for name in names]
        )
        for part in self.parts:
            # A batch without a column would not know its number of rows.
            for batch in part.read(names or self.schema.names[:1], rows):
                if batch.num_rows:
                    selected = batch.select(names).replace_schema_metadata(None)
                    yield selected if selected.schema.equals(schema) else selected.cast(schema)


def open_table(path: str, base: Path, options: ReadOptions | None = None) -> Table:
    """Opens a job's input.

    `path` is a path relative to `base`, a glob (its files sorted by name), a URL, or with a query a database.
    The ending determines the format (`endings.READ`). Text files are read once in full, so that types hold
    for all rows and faults are found now. What can't be read again in place is copied to a temporary file.
    Raises InputError, and JobError for options that don't go with the input.
    """
    options = options or ReadOptions()
    parts, notes, in_place = _parts(path, base, options)
    if options.hive:
        parts = [with_folder_columns(part) for part in parts]
    schema = parts[0].schema
    for part in parts[1:]:
        schema = _common_schema(parts[0].name, schema, part)
    counts = [part.row_count for part in parts]
    total = None if None in counts else sum(count for count in counts if count is not None)
    notes += [note for part in parts for note in part.notes]
    return Table(schema, tuple(part.name for part in parts), total, tuple(parts), tuple(notes), in_place)


def _parts(path: str, base: Path, options: ReadOptions) -> tuple[list[TableFile], list[str], bool]:
    """Returns the files, notes, and whether all of the files are read in place, on this machine."""
    scheme, name = scheme_of(path), without_secrets(path)
    if options.query is not None or database_of(path):
        return _open([open_query(path, base, options.query, options.scratch)], options)
    if scheme in _POLARS_SCHEMES:
        if format_of(name)[0] == "parquet":
            return [open_remote_parquet(path)], [], False
        if scheme == "az":
            raise InputError(f"{name}: over az:// only Parquet can be read. Download the file first")
        return _open([download(path, options.scratch)], options)
    if scheme == "hf":
        return _open(copies_from_hub(path, options.scratch), options)
    if scheme is None or scheme in ARROW_SCHEMES:
        return _open(find_locations(path, base, options.endpoint_url), options)
    known = " ".join(f"{name}://" for name in (*ARROW_SCHEMES, *_POLARS_SCHEMES, "hf"))
    raise InputError(f"{name}: batchrun can't read {scheme}://. Known: {known}")


def in_memory(data: pa.Table, name: str) -> Table:
    """Returns a table over data in memory; messages call it `name`. Raises InputError.

    Its rows are returned as slices, copied only where a slice spans chunks of `data`.
    """
    schema = data.schema
    check_fields(name, schema)
    if not schema.names:
        raise InputError(f"{name} has no columns")

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        wanted = data.select(list(columns))
        for start in range(0, wanted.num_rows, rows):
            yield from wanted.slice(start, rows).combine_chunks().to_batches()

    return Table(schema, (name,), data.num_rows, (TableFile(name, schema, data.num_rows, read),))


def _open(given: Sequence[Location], options: ReadOptions) -> tuple[list[TableFile], list[str], bool]:
    notes: list[str] = []
    locations = [_in_place(location, options, notes) for location in given]
    kinds = {location.format for location in locations}
    if len(kinds) > 1:
        other = next(location for location in locations if location.format != locations[0].format)
        raise InputError(
            f"{locations[0].name} and {other.name} are of different kinds. Match one kind of file"
        )
    kind = kinds.pop()
    if options.types and kind not in ("csv", "tsv"):
        raise JobError(f"[input] types: {locations[0].name} has types already; only CSV columns take one")
    if options.skip_lines and kind not in ("csv", "tsv"):
        raise JobError(f"[input] skip_lines: {locations[0].name} has no header; only CSV and sheets have")
    in_place = all(isinstance(location.filesystem, LocalFileSystem) for location in locations)
    is_copied = any(isinstance(location, CopiedLocation) for location in locations)
    return _OPENERS[kind](locations, options), notes, in_place and not is_copied


def _in_place(location: Location, options: ReadOptions, notes: list[str]) -> Location:
    """Returns a location that can be read again and again, and adds what is to be said to `notes`."""
    check_content(location)
    if location.format == "zip":
        location = unpack(location, options.scratch)
        check_content(location)
    if location.format == "workbook":
        location, said = open_sheet(location, options.sheet, options.scratch)
        notes += said
    elif options.sheet is not None:
        raise JobError(f"[input] sheet: {location.name} is not a workbook, and has no sheets")
    return location


def _common_schema(name: str, first: pa.Schema, other: TableFile) -> pa.Schema:
    """Returns the common schema of the files so far and `other`. Raises InputError where there is none.

    Columns may differ in order, in nullability, in the width of integers, and in Arrow's text type.
    """
    if first.equals(other.schema):
        return first
    files = f"{other.name} and {name} don't have one schema"
    for missing in [*first.names, *other.schema.names]:
        if missing not in first.names or missing not in other.schema.names:
            owner, lacking = (name, other.name) if missing in first.names else (other.name, name)
            raise InputError(f"{files}: {owner} has a column {missing!r}, {lacking} has not")
    fields = []
    for ours in first:
        theirs = other.schema.field(ours.name)
        common = _common_type(ours.type, theirs.type)
        if common is None:
            raise InputError(
                f"{files}: column {ours.name!r} is {_describe(theirs)} in one, {_describe(ours)} in the other"
            )
        fields.append(ours.with_type(common).with_nullable(ours.nullable or theirs.nullable))
    return pa.schema(fields, metadata=first.metadata)


_WIDTHS = (
    (pa.string(), pa.string_view(), pa.large_string()),
    (pa.binary(), pa.binary_view(), pa.large_binary()),
    (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    (pa.float32(), pa.float64()),
)
"""Types that hold the same values, the widest last."""


def _common_type(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    if ours == theirs:
        return ours
    for widths in _WIDTHS:
        if ours in widths and theirs in widths:
            return max(ours, theirs, key=widths.index)
    return None


def _describe(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"
