"""Reads JSON Lines, one object a line, and other JSON with rows. Opening reads the file once in full, for
its schema and faults.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import msgspec
import pyarrow as pa

from batchrun.errors import InputError
from batchrun.tables.csv_faults import not_utf8
from batchrun.tables.json_cells import (
    JSON_TEXT,
    holds_everything,
    json_texts,
    json_values,
    scalar_values,
    source_of,
)
from batchrun.tables.json_documents import documents, elements, spans_lines
from batchrun.tables.locations import Location, lines, reading
from batchrun.tables.table_file import Cells, TableFile, check_column_names

_CHUNK_ROWS = 4096
_CHUNK_BYTES = 16 << 20
_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}
_NOT_JSON = re.compile(rb"(?<![\w\"])(-?Infinity|NaN)(?![\w\"])")
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_PAIR = re.compile(_HIGH + b"(?!" + _LOW + b")|(?<!" + _HIGH + b")" + _LOW)

_decode = msgspec.json.Decoder().decode

Row = dict[str, Any]


def open_jsonl(locations: Sequence[Location]) -> list[TableFile]:
    """Opens JSON Lines files as one table.

    The columns are the keys of all objects, in the order of their first occurrence; a key that an object
    lacks is null. Integers are int64; a column with fractions is float64. Text stays text. A column stays
    JSON text where its values have no common type, or none that every output can hold. Raises InputError
    with the line that isn't JSON.
    """
    columns: dict[str, _Column] = {}
    row_counts = [_scan(location, columns) for location in locations]
    check_column_names(locations[0].name, list(columns))
    schema = pa.schema([column.field(name) for name, column in columns.items()])
    widened = [name for name, column in columns.items() if len(column.types) > 1 and not column.is_text]
    for name in widened:
        if not _converts(locations, schema.field(name)):
            columns[name].is_text = True
    schema = pa.schema([column.field(name) for name, column in columns.items()])
    cells = _cells(schema)
    return [
        _table_file(location, schema, count, cells)
        for location, count in zip(locations, row_counts, strict=True)
    ]


@dataclass
class _Column:
    """A column's types in the chunks so far. `is_text`: they have no common type."""

    types: dict[pa.DataType, None] = dataclass_field(default_factory=dict)
    is_text: bool = False

    def add(self, values: list[Any]) -> None:
        if self.is_text:
            return
        try:
            self.types[pa.array(values).type] = None
        except (pa.ArrowException, OverflowError):
            self.is_text = True

    def field(self, name: str) -> pa.Field:
        kind = None if self.is_text else self._common()
        if kind is None or not holds_everything(kind):
            self.is_text = True
            return pa.field(name, pa.string(), metadata=JSON_TEXT)
        return pa.field(name, pa.string() if pa.types.is_null(kind) else kind)

    def _common(self) -> pa.DataType | None:
        schemas = [pa.schema([("x", kind)]) for kind in self.types]
        try:
            return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except pa.ArrowException:
            return None


def _cells(schema: pa.Schema) -> Cells:
    """Templates get objects, lists and fractions as written in their line."""
    scalars = [field.name for field in schema if pa.types.is_floating(field.type)]
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    texts = [field.name for field in schema if field.metadata]
    values = dict.fromkeys([*scalars, *texts], scalar_values) | dict.fromkeys(nested, json_values)
    return Cells(values=values, sources={name: source_of(name) for name in values})


def _converts(locations: Sequence[Location], field: pa.Field) -> bool:
    """Whether every value fits the common type exactly: a large integer may not be exact as a float64."""
    try:
        for location in locations:
            for chunk in _chunks(location, _CHUNK_ROWS):
                pa.array([row.get(field.name) for row, _ in chunk], field.type)
    except (pa.ArrowException, OverflowError):
        return False
    return True


def _scan(location: Location, columns: dict[str, _Column]) -> int:
    """Adds the types in the file's chunks to `columns`, and returns the number of rows."""
    count = 0
    with reading(location):
        for chunk in _chunks(location, _CHUNK_ROWS):
            count += len(chunk)
            for name in dict.fromkeys(name for row, _ in chunk for name in row):
                columns.setdefault(name, _Column()).add([row.get(name) for row, _ in chunk])
    if not count:
        raise InputError(f"{location.name} holds no rows, so its columns are unknown")
    return count


def _table_file(location: Location, schema: pa.Schema, row_count: int, cells: Cells) -> TableFile:
    texts = {field.name: field.name for field in schema if field.metadata}
    texts |= {source: name for name, source in cells.sources.items()}

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        as_text = [name for name in columns if name in texts]
        with reading(location):
            for chunk in _chunks(location, rows):
                found = (
                    json_texts([line for _, line in chunk], [texts[name] for name in as_text])
                    if as_text
                    else []
                )
                arrays = dict(zip(as_text, found, strict=True))
                for name in columns:
                    if name not in arrays:
                        values = [row.get(name) for row, _ in chunk]
                        arrays[name] = pa.array(values, schema.field(name).type)
                yield pa.RecordBatch.from_arrays([arrays[name] for name in columns], list(columns))

    return TableFile(location.name, schema, row_count, read, cells, is_checked=True)


def _chunks(location: Location, rows: int) -> Iterator[list[tuple[Row, bytes]]]:
    """Yields lists of at most `rows` objects and their lines, fewer of long lines: memory stays flat."""
    chunk: list[tuple[Row, bytes]] = []
    size = 0
    for number, line in _lines(location):
        chunk.append((_object(location, number, line), line))
        size += len(line)
        if len(chunk) == rows or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(location: Location) -> Iterator[tuple[int, bytes]]:
    """Yields the rows' texts with the numbers of their lines: those that aren't blank, or of other JSON."""
    numbered = ((number, line) for number, line in enumerate(lines(location), start=1) if not line.isspace())
    first = next(numbered, None)
    if first is None:
        return
    if first[1].lstrip().startswith(b"[") and not _is_list(first[1], following=next(numbered, None)):
        yield from elements(location)
        return
    if first[1].lstrip().startswith(b"{") and _is_cut(first[1]) and spans_lines(location):
        yield from documents(location)
        return
    for number, line in enumerate(lines(location), start=1):
        if not line.isspace():
            yield number, line


def _is_cut(line: bytes) -> bool:
    try:
        _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return True
    return False


def _is_list(line: bytes, following: tuple[int, bytes] | None) -> bool:
    """Whether the first line is a complete list with other lines after it, and so not an array of rows."""
    return following is not None and not _is_cut(line)


def _object(location: Location, number: int, line: bytes) -> Row:
    try:
        value = _decode(line)
    except UnicodeDecodeError:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(location, number, line, error.start) from error
        raise
    except msgspec.MsgspecError as error:
        raise _not_an_object(location, number, line, error) from error
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "null")
        raise InputError(f"{location.name}: line {number} is {kind}. Each row must be one JSON object")
    return value


def _not_an_object(location: Location, number: int, line: bytes, error: Exception) -> InputError:
    where = f"{location.name}: line {number}"
    found = _NOT_JSON.search(line)
    if found is not None:
        return InputError(f"{where}: JSON has no {found[1].decode()}. Write null, or text in quotes")
    half = _HALF_PAIR.search(line)
    if half is not None and re.search("surrogate|truncated", str(error)):
        return InputError(
            f"{where}: {half[0].decode()} is half of a character, a surrogate without the other of its pair. "
            "Correct it, or write \\ufffd instead"
        )
    return InputError(f"{where}: {error}. Each row must be one JSON object")
