"""JSON Lines: one object a line. Opening reads the file once in full, for its schema and its faults."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from batchrun.errors import InputError
from batchrun.tables.csv_faults import not_utf8
from batchrun.tables.locations import Location, lines, reading
from batchrun.tables.table_file import TableFile, check_column_names

_CHUNK_ROWS = 4096
_CHUNK_BYTES = 16 << 20
_INT64 = range(-(2**63), 2**63)
_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}
_TOO_LARGE = "an integer beyond 64 bits"

_decode = msgspec.json.Decoder().decode

Row = dict[str, Any]


def open_jsonl(locations: Sequence[Location]) -> list[TableFile]:
    """Opens JSON Lines files as one table.

    The columns are the keys of all objects, in the order in which they first come; a key that an
    object lacks is null. Integers are int64; where a column also holds fractions it is float64. Text
    stays text. Raises InputError with the line that isn't JSON, or whose value has another type
    than an earlier one.
    """
    schemas: dict[pa.Schema, None] = {}
    row_counts = [_scan(location, schemas) for location in locations]
    try:
        schema = _without_nulls(pa.unify_schemas(list(schemas), promote_options="permissive"))
    except pa.ArrowException as error:
        raise _mixed_types(locations, error) from error
    check_column_names(locations[0].name, schema.names)
    files = [
        _table_file(location, schema, count) for location, count in zip(locations, row_counts, strict=True)
    ]
    if len(schemas) > 1:
        _check_conversion(locations, files)
    return files


def _check_conversion(locations: Sequence[Location], files: Sequence[TableFile]) -> None:
    """Converts every row to the common schema: a large integer may not be exact as a float64."""
    for file in files:
        try:
            for _ in file.read(file.schema.names, _CHUNK_ROWS):
                pass
        except InputError as error:
            raise _mixed_types(locations, error) from error


def _scan(location: Location, schemas: dict[pa.Schema, None]) -> int:
    """Adds the schemas of the file's chunks to `schemas`, and returns its number of rows."""
    count = 0
    with reading(location):
        for rows in _chunks(location, _CHUNK_ROWS):
            count += len(rows)
            try:
                schemas[_chunk_schema(rows)] = None
            except (pa.ArrowException, OverflowError) as error:
                raise _mixed_types([location], error) from error
    if not count:
        raise InputError(f"{location.name} holds no rows, so its columns are unknown")
    return count


def _chunk_schema(rows: list[Row]) -> pa.Schema:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, pa.array([row.get(name) for row in rows]).type) for name in names])


def _without_nulls(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [(field.name, pa.string() if pa.types.is_null(field.type) else field.type) for field in schema]
    )


def _table_file(location: Location, schema: pa.Schema, row_count: int) -> TableFile:
    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        wanted = pa.schema([schema.field(name) for name in columns])
        with reading(location):
            for chunk in _chunks(location, rows):
                arrays = [pa.array([row.get(field.name) for row in chunk], field.type) for field in wanted]
                yield pa.RecordBatch.from_arrays(arrays, schema=wanted)

    return TableFile(location.name, schema, row_count, read)


def _chunks(location: Location, rows: int) -> Iterator[list[Row]]:
    """Lists of at most `rows` objects, shorter where these are long, so that memory stays flat."""
    chunk: list[Row] = []
    size = 0
    for number, line in enumerate(lines(location), start=1):
        if line.isspace():
            continue
        chunk.append(_object(location, number, line))
        size += len(line)
        if len(chunk) == rows or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


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
        raise InputError(
            f"{location.name}: line {number}: {error}. Each line must be one JSON object"
        ) from error
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "null")
        raise InputError(f"{location.name}: line {number} is {kind}. Each line must be one JSON object")
    return value


def _mixed_types(locations: Sequence[Location], cause: Exception) -> InputError:
    """Looks again, value by value, for the two lines that don't go together."""
    first: dict[str, tuple[str, str]] = {}
    for location in locations:
        for number, line in enumerate(lines(location), start=1):
            row = {} if line.isspace() else _object(location, number, line)
            for path, kind in _kinds(row, ""):
                if kind == _TOO_LARGE:
                    return InputError(f"{location.name}: line {number}: {path!r} is {kind}. Write it as text")
                earlier, where = first.setdefault(path, (kind, f"line {number} of {location.name}"))
                if earlier != kind:
                    return InputError(
                        f"{location.name}: line {number}: {path!r} is {kind}, but {earlier} in {where}. "
                        "Give a column one type, for example text"
                    )
    return InputError(f"{locations[0].name}: {str(cause).splitlines()[0]}. Write such values as text")


def _kinds(value: object, path: str) -> Iterator[tuple[str, str]]:
    """The path and kind of `value` and of all that it holds; null goes with every kind."""
    if path and value is not None:
        yield path, _TOO_LARGE if isinstance(value, int) and value not in _INT64 else _KINDS[type(value)]
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _kinds(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for item in value:
            yield from _kinds(item, f"{path}[]")
