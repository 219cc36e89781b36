"""CSV and TSV, strictly: every fault and every type is found before the first row is handed out.

Opening reads the file once in full. pyarrow parses it (flat in memory, and a quoted "" stays apart
from nothing at all); where its leniency could hide a fault, `csv_faults` looks again, record by record.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import csv

from batchrun.tables.csv_faults import MAX_RECORD_BYTES, Header, find_fault, read_header
from batchrun.tables.locations import Location, reading
from batchrun.tables.table_file import TableFile, check_column_names, slices

_BLOCK_BYTES = 1 << 20

# A quote with text on both sides neither opens nor closes a field. The literal comes first, so that
# the search is fast.
_STRAY_QUOTE = rb'"(?![%(sep)s\r\n"])(?<![%(sep)s\r\n"]")'

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
# Integers in a column of floats: as many digits as a double holds exactly.
_FLOAT = r"^(0|-?[1-9][0-9]{0,14}|-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))$"
_NOT_SIGNIFICANT = r"^-?(0?\.0*)?|\.|[eE].*$"
_FLOAT_DIGITS = 17  # the shortest text that tells any double from its neighbours has at most 17

_KINDS = {
    "true": (pa.bool_(), r"^(true|false)$"),
    "True": (pa.bool_(), r"^(True|False)$"),
    "TRUE": (pa.bool_(), r"^(TRUE|FALSE)$"),
    "integer": (pa.int64(), _INTEGER),
    "float": (pa.float64(), _FLOAT),
}
_ALL_KINDS = frozenset(_KINDS)


@dataclass(frozen=True)
class _Scan:
    """What one pass over a file found: rows, and for each column the types that fit all its values."""

    location: Location
    separator: str
    block_bytes: int
    row_count: int
    fitting: Mapping[str, frozenset[str]]


def open_csv(locations: Sequence[Location]) -> list[TableFile]:
    """Opens delimited text files as one table: a column gets the type that fits it in all of them.

    int64 where all values are plain integers (no leading zeros, no plus sign) in range; float64 where
    all are plain decimal numbers that a double holds; bool where all are true/false in one
    spelling; else string. No value at all gives string. An unquoted nothing is null, a quoted
    nothing is the empty string. Blank lines are no rows. Raises InputError with the line of a fault.
    """
    scans = [_scan(location) for location in locations]
    types = {
        name: _column_type([scan.fitting[name] for scan in scans if name in scan.fitting])
        for scan in scans
        for name in scan.fitting
    }
    return [_table_file(scan, types) for scan in scans]


def _table_file(scan: _Scan, types: Mapping[str, pa.DataType]) -> TableFile:
    schema = pa.schema([(name, types[name]) for name in scan.fitting])

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        if not scan.row_count:
            return
        with reading(scan.location):
            for batch in _parse(scan.location, scan.separator, schema, scan.block_bytes, columns):
                yield from slices(batch, rows)

    return TableFile(scan.location.name, schema, scan.row_count, read)


def _scan(location: Location) -> _Scan:
    with reading(location):
        header = read_header(location)
        check_column_names(location.name, header.names)
        if header.is_all:
            kinds = dict.fromkeys(header.names, _ALL_KINDS)
            return _Scan(location, header.separator, _BLOCK_BYTES, 0, kinds)
        block_bytes, rows, kinds = _fit_file(location, header)
        suspicious, line_count = _survey(location, header.separator)
        # Where each record is one line, no quote can have swallowed a line break.
        if suspicious or line_count != rows + 1:
            find_fault(location, header)
    return _Scan(location, header.separator, block_bytes, rows, kinds)


def _fit_file(location: Location, header: Header) -> tuple[int, int, dict[str, frozenset[str]]]:
    """The block size that the longest record needs, the number of rows, and the kinds that fit."""
    schema = pa.schema([(name, pa.string()) for name in header.names])
    block_bytes = _BLOCK_BYTES
    while True:
        try:
            batches = _parse(location, header.separator, schema, block_bytes, header.names)
            return block_bytes, *_fit(batches)
        except pa.ArrowInvalid:
            find_fault(location, header)
            if block_bytes == MAX_RECORD_BYTES:
                raise
            block_bytes = MAX_RECORD_BYTES


def _survey(location: Location, separator: str) -> tuple[bool, int]:
    """Whether quotes are odd in number or in strange places, and the number of line ends."""
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
    location: Location, separator: str, schema: pa.Schema, block_bytes: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with location.open_stream() as stream:
        reader = csv.open_csv(
            stream,
            csv.ReadOptions(block_size=block_bytes, use_threads=False),
            csv.ParseOptions(delimiter=separator, newlines_in_values=True),
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
            kinds = fitting.get(name, _ALL_KINDS)
            fitting[name] = frozenset(kind for kind in kinds if _fits(kind, column))
    return rows, fitting


def _fits(kind: str, column: pa.StringArray) -> bool:
    import pyarrow.compute as pc  # only for a CSV file, since it takes 0.05 s

    target, pattern = _KINDS[kind]
    if not _all(pc.match_substring_regex(column, pattern)):
        return False
    if pa.types.is_boolean(target):
        return True
    try:
        numbers = column.cast(target)
    except pa.ArrowInvalid:  # an integer beyond 64 bits
        return False
    if pa.types.is_integer(target):
        return True
    digits = pc.binary_length(pc.replace_substring_regex(column, _NOT_SIGNIFICANT, ""))
    return _all(pc.is_finite(numbers)) and _all(pc.less_equal(digits, _FLOAT_DIGITS))


def _all(values: pa.BooleanArray) -> bool:
    return bool(values.false_count == 0)


def _column_type(fitting: Sequence[frozenset[str]]) -> pa.DataType:
    """The first kind that fits a column in all files. All kinds fit only where there is no value."""
    common = frozenset.intersection(*fitting)
    if common == _ALL_KINDS:
        return pa.string()
    return next((target for kind, (target, _) in _KINDS.items() if kind in common), pa.string())
