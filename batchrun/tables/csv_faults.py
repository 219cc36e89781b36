"""The header of a CSV file, and the slow, exact look for the line on which it breaks the rules."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from batchrun.errors import InputError
from batchrun.tables.locations import Location, lines

MAX_RECORD_BYTES = 64 << 20
_GUESSED_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Header:
    """The names of the columns. `is_all` tells that no record follows."""

    names: tuple[str, ...]
    separator: str
    is_all: bool


def read_header(location: Location) -> Header:
    """Reads the first record. Raises InputError where there is none, or where it is no header.

    A .tsv is separated by tabs, a .csv by commas; a .csv whose header has no comma outside quotes
    but has semicolons, tabs or bars there is separated by the first of these.
    """
    rest = _text_lines(location)
    record: list[str] = []
    for line in rest:
        if record or line.strip("\r\n"):
            record.append(line)
        if record and sum(part.count('"') for part in record) % 2 == 0:
            break
    if not record:
        raise InputError(f"{location.name} holds no header and no rows")
    separator = "\t" if location.format == "tsv" else _separator("".join(record))
    try:
        names = next(csv.reader(record, delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(f"{location.name}: the header (line 1): {_explain(error, separator)}") from error
    return Header(tuple(names), separator, is_all=not any(line.strip("\r\n") for line in rest))


def _separator(header: str) -> str:
    unquoted = "".join(header.split('"')[::2])
    return next((separator for separator in _GUESSED_SEPARATORS if separator in unquoted), ",")


def find_fault(location: Location, header: Header) -> None:
    """Raises InputError for the first fault of the file: its line, what is wrong, what to do.

    Returns where there is none. Faults are bytes that are not UTF-8, NUL bytes, quotes that don't
    match, and records with more or fewer fields than the header.
    """
    limit = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        _check_records(location, header)
    finally:
        csv.field_size_limit(limit)


def _check_records(location: Location, header: Header) -> None:
    reader = csv.reader(_text_lines(location), delimiter=header.separator, strict=True)
    start = 1
    try:
        for record in reader:
            if record and len(record) != len(header.names):
                raise _ragged(location, start, len(record), len(header.names))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{location.name}: line {start}: {_explain(error, header.separator)}") from error


def _ragged(location: Location, line: int, found: int, expected: int) -> InputError:
    if found > expected:
        advice = "Put quotes around a field that holds the separator"
    else:
        advice = "Add the missing fields (they may be empty), or put quotes around a field with a line break"
    return InputError(
        f"{location.name}: line {line} has {_fields(found)}, the header has {expected}. {advice}"
    )


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _explain(error: csv.Error, separator: str) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quote is opened in this record and never closed. Close it"
    if "field limit" in text:
        megabytes = MAX_RECORD_BYTES >> 20
        return f"a field of this record is longer than {megabytes} MiB: perhaps a quote is never closed"
    if "expected after" in text:
        return f'there is text after a closing quote, before {separator!r}. Write a quote inside quotes as ""'
    return text


def _text_lines(location: Location) -> Iterator[str]:
    for number, line in enumerate(lines(location), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(location, number, line, error.start) from error
        if "\0" in text:
            raise InputError(
                f"{location.name}: line {number} holds a NUL byte at byte {line.index(0) + 1}. The file is "
                "damaged, or not UTF-8 (UTF-16 has such bytes: iconv -f utf-16 -t utf-8)"
            )
        yield text


def not_utf8(location: Location, number: int, line: bytes, position: int) -> InputError:
    """The error for a line whose byte at `position` (from 0) can't be UTF-8."""
    encoding = "utf-16" if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
    return InputError(
        f"{location.name}: line {number}, byte {position + 1} (0x{line[position]:02x}) is not UTF-8. "
        f"Convert the file, for example: iconv -f {encoding} -t utf-8 {location.name} > converted"
    )
