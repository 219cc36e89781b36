"""Reads CSV and TSV strictly: finds every fault and every type before returning the first row.

Opening reads the file once in full. pyarrow parses it (with flat memory, and distinguishing a quoted "" from
an empty field); where its leniency could hide a fault, `csv_faults` checks again, record by record.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import csv

from batchrun.errors import InputError, JobError
from batchrun.tables.csv_faults import (
    MAX_RECORD_BYTES,
    Header,
    find_fault,
    line_of_row,
    read_header,
    title_advice,
)
from batchrun.tables.csv_former_types import ALL_FORMER, former_kinds, former_type
from batchrun.tables.csv_types import EXACT, NAMED, common_type, fitting_kinds, printed_values
from batchrun.tables.locations import Location, reading
from batchrun.tables.table_file import Cells, TableFile, check_column_names, no_such_type_column, slices

_BLOCK_BYTES = 1 << 20

# A quote with text on both sides neither opens nor closes a field. The literal comes first, which makes
# the search fast.
_STRAY_QUOTE = rb'"(?![%(sep)s\r\n"])(?<![%(sep)s\r\n"]")'


@dataclass(frozen=True)
class _Scan:
    """The result of one pass over a file: the rows, and each column's types that fit all its values."""

    location: Location
    header: Header
    block_bytes: int
    row_count: int
    fitting: Mapping[str, frozenset[str]]


def open_csv(
    locations: Sequence[Location], given: Mapping[str, str] | None = None, skip_lines: int = 0
) -> list[TableFile]:
    """Opens delimited text files as one table: a column gets the type that fits it in all of them.

    A column is int64, float64, bool or date32 only where every value, printed, is the text in the file; else
    it is string, also without values. An unquoted empty field is null, a quoted one is the empty string.
    The header comes after `skip_lines` lines; blank lines are not rows. `given` are column types by their
    names in `NAMED`; they apply whatever the texts are. A template gets the text of a cell, unless the type
    is given.

    Raises InputError with the line of a fault, and for a cell that can't have the type given.
    """
    given = given or {}
    scans = [_scan(location, skip_lines) for location in locations]
    types = {
        name: NAMED[given[name]] if name in given else common_type(_of_column(scans, name))
        for scan in scans
        for name in scan.fitting
    }
    for name in given:
        if name not in types:
            raise JobError(no_such_type_column(name, list(types)))
    for scan in scans:
        _check_given(scan, {name: NAMED[kind] for name, kind in given.items() if name in scan.fitting})
    cells = _cells(scans, types, given)
    return [_table_file(scan, types, cells) for scan in scans]


def _of_column(scans: Sequence["_Scan"], name: str) -> list[frozenset[str]]:
    return [scan.fitting[name] for scan in scans if name in scan.fitting]


def _check_given(scan: _Scan, types: Mapping[str, pa.DataType]) -> None:
    """Raises InputError for the first cell that can't have the type given for its column."""
    for name, kind in types.items():
        row = 0
        for batch in _texts(scan, [name]) if scan.row_count else ():
            try:
                batch.column(0).cast(kind)
            except pa.ArrowInvalid:
                raise _wrong_type(scan, name, kind, batch.column(0), row) from None
            row += batch.num_rows


def _wrong_type(scan: _Scan, name: str, kind: pa.DataType, column: pa.Array, row: int) -> InputError:
    for offset in range(len(column)):
        try:
            column.slice(offset, 1).cast(kind)
        except pa.ArrowInvalid:
            row += offset + 1
            break
    named = next(key for key, value in NAMED.items() if value == kind)
    line = line_of_row(scan.location, scan.header, row)
    return InputError(
        f"{scan.location.name}: line {line}: column {name!r} holds a value that is not of the type {named}. "
        "Correct the value, or input.types"
    )


def _texts(scan: _Scan, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([(name, pa.string()) for name in scan.fitting])
    with reading(scan.location):
        yield from _parse(scan.location, scan.header, schema, scan.block_bytes, columns)


def _cells(scans: Sequence[_Scan], types: Mapping[str, pa.DataType], given: Mapping[str, str]) -> Cells:
    """Returns how templates get cells: as the file's text, unless a type is given."""
    typed = [name for name, kind in types.items() if kind != pa.string() and name not in given]

    def former() -> dict[str, pa.DataType]:
        found = [_fit_former(scan) for scan in scans]
        return {
            name: former_type([fitting[name] for fitting in found if name in fitting]) for name in types
        } | {name: NAMED[kind] for name, kind in given.items()}

    return Cells(
        values=dict.fromkeys(typed, printed_values), former_types=former, texts=frozenset(types) - set(given)
    )


def _fit_former(scan: _Scan) -> dict[str, frozenset[str]]:
    fitting = dict.fromkeys(scan.fitting, ALL_FORMER)
    for batch in _texts(scan, list(scan.fitting)) if scan.row_count else ():
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            fitting[name] = former_kinds(column, fitting[name])
    return fitting


def _table_file(scan: _Scan, types: Mapping[str, pa.DataType], cells: Cells) -> TableFile:
    schema = pa.schema([(name, types[name]) for name in scan.fitting])

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        if not scan.row_count:
            return
        with reading(scan.location):
            for batch in _parse(scan.location, scan.header, schema, scan.block_bytes, columns):
                yield from slices(batch, rows)

    dropped = len(scan.header.unnamed)
    notes: tuple[str, ...] = ()
    if dropped:
        columns_in_words = "1 column" if dropped == 1 else f"{dropped} columns"
        notes = (f"{scan.location.name}: {columns_in_words} at the right without names or values left out",)
    return TableFile(scan.location.name, schema, scan.row_count, read, cells, is_checked=True, notes=notes)


def _scan(location: Location, skip_lines: int) -> _Scan:
    with reading(location):
        header = read_header(location, skip_lines)
        _check_header(location, header)
        if header.is_all:
            kinds = dict.fromkeys(header.names, frozenset(EXACT))
            return _Scan(location, header, _BLOCK_BYTES, 0, _named(location, header, kinds))
        block_bytes, rows, kinds = _fit_file(location, header)
        suspicious, line_count = _survey(location, header.separator)
        # Where each record is one line, no quote contains a line break.
        if suspicious or line_count != rows + 1 + header.skipped:
            find_fault(location, header)
    return _Scan(location, header, block_bytes, rows, _named(location, header, kinds))


def _check_header(location: Location, header: Header) -> None:
    try:
        check_column_names(location.name, header.names)
    except InputError as error:
        raise _perhaps_a_title(location, header, error) from None


def _perhaps_a_title(location: Location, header: Header, error: InputError) -> InputError:
    advice = title_advice(location, header)
    return InputError(f"{error}. {advice}") if advice else error


def _named(
    location: Location, header: Header, kinds: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Returns the kinds of the columns that have a name. Raises InputError where another holds a value."""
    for name in header.unnamed:
        if kinds[name] != frozenset(EXACT):
            column = header.names.index(name) + 1
            error = InputError(
                f"{location.name}: column {column} has no name, but values. Name it in the file"
            )
            raise _perhaps_a_title(location, header, error)
    return {name: fitting for name, fitting in kinds.items() if name not in header.unnamed}


def _fit_file(location: Location, header: Header) -> tuple[int, int, dict[str, frozenset[str]]]:
    """Returns the block size that the longest record needs, the number of rows, and the kinds that fit."""
    schema = pa.schema([(name, pa.string()) for name in header.names])
    block_bytes = _BLOCK_BYTES
    while True:
        try:
            batches = _parse(location, header, schema, block_bytes, header.names)
            return block_bytes, *_fit(batches)
        except pa.ArrowInvalid:
            find_fault(location, header)
            if block_bytes == MAX_RECORD_BYTES:
                raise
            block_bytes = MAX_RECORD_BYTES


def _survey(location: Location, separator: str) -> tuple[bool, int]:
    """Returns whether quotes are odd in number or in unusual places, and the number of line ends."""
    stray_quote = re.compile(_STRAY_QUOTE % {b"sep": separator.encode()})
    quotes = line_ends = 0
    stray = False
    before = b"\n"
    with location.open_stream() as stream:
        while chunk := stream.read(_BLOCK_BYTES):
            quotes += chunk.count(b'"')
            line_ends += chunk.count(b"\n")
            stray = stray or b"\0" in chunk or bool(stray_quote.search(before + chunk))
            before = chunk[-1:]
    return stray or quotes % 2 == 1, line_ends + (before != b"\n")


def _parse(
    location: Location, header: Header, schema: pa.Schema, block_bytes: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with location.open_stream() as stream:
        reader = csv.open_csv(
            stream,
            csv.ReadOptions(
                block_size=block_bytes,
                use_threads=False,
                skip_rows=header.skipped,
                column_names=header.names if header.is_renamed else None,
                skip_rows_after_names=int(header.is_renamed),
            ),
            csv.ParseOptions(delimiter=header.separator, newlines_in_values=True),
            csv.ConvertOptions(
                column_types=schema,
                include_columns=list(columns),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        yield from (batch for batch in reader if batch.num_rows)


def _fit(batches: Iterator[pa.RecordBatch]) -> tuple[int, dict[str, frozenset[str]]]:
    """Counts the rows and narrows down, column by column, the kinds that fit all values so far."""
    rows = 0
    fitting: dict[str, frozenset[str]] = {}
    for batch in batches:
        rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            fitting[name] = fitting_kinds(column, fitting.get(name, frozenset(EXACT)))
    return rows, fitting
