"""Reads a CSV file's header, and finds, slowly and exactly, the line that breaks the rules."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from shlex import quote

from batchrun.errors import InputError
from batchrun.tables.locations import Location, lines

MAX_RECORD_BYTES = 64 << 20
# Tells Excel the separator, which hides the line.
_SEPARATOR_LINE = re.compile(r'("?)sep=([,;|\t])\1\r?\n?', re.IGNORECASE)
_INDEX_NAMES = ("index", "unnamed_index", "unnamed_index_of_the_file")
_MOST_TITLE_LINES = 50
_UNNAMED = "\0column "  # no name in a file begins so
_GUESSED_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Header:
    """The column names. `is_all`: the file ends with the header; `skipped` counts the lines before it.

    `is_renamed`: not all names are those in the file. A first column without one, such as an index written by
    pandas, gets one; last ones without, as Excel leaves them, get those in `unnamed`.
    """

    names: tuple[str, ...]
    separator: str
    is_all: bool
    skipped: int = 0
    is_renamed: bool = False

    @property
    def unnamed(self) -> list[str]:
        """The names of the last columns that have none in the file."""
        return [name for name in self.names if name.startswith(_UNNAMED)]


def read_header(location: Location, skip_lines: int = 0) -> Header:
    """Reads the first record after `skip_lines` lines. Raises InputError where there is none.

    A .tsv is separated by tabs, a .csv by commas; a .csv whose header has no comma outside quotes
    but has semicolons, tabs or bars there is separated by the first of these.
    """
    rest = islice(_text_lines(location), skip_lines, None)
    blank, record = _record(rest)
    skipped = skip_lines + blank
    named = _SEPARATOR_LINE.fullmatch(record[0]) if record else None
    if named:
        blank, record = _record(rest)
        skipped += 1 + blank
    if not record:
        after = f" after {skipped} lines" if skipped else ""
        raise InputError(f"{location.name} holds no header and no rows{after}")
    separator = named[2] if named else "\t" if location.format == "tsv" else _separator("".join(record))
    try:
        names = next(csv.reader(record, delimiter=separator, strict=True))
    except csv.Error as error:
        line = skipped + 1
        raise InputError(
            f"{location.name}: the header (line {line}): {_explain(error, separator)}"
        ) from error
    is_all = not any(line.strip("\r\n") for line in rest)
    given = _with_names(names)
    return Header(tuple(given), separator, is_all, skipped, given != names)


def _with_names(names: list[str]) -> list[str]:
    """Returns the names of a header, with one for a first and last ones that have none in the file."""
    width = max((place for place, name in enumerate(names, start=1) if name.strip()), default=0)
    if not width:
        return names
    index = next(name for name in _INDEX_NAMES if name not in names)
    first = names[0] if names[0].strip() else index
    return [first, *names[1:width], *(f"{_UNNAMED}{place}" for place in range(width, len(names)))]


def _record(lines_left: Iterator[str]) -> tuple[int, list[str]]:
    """Returns the number of blank lines before the next record, and the record's lines."""
    blank = 0
    record: list[str] = []
    for line in lines_left:
        if record or line.strip("\r\n"):
            record.append(line)
        else:
            blank += 1
        if record and sum(part.count('"') for part in record) % 2 == 0:
            break
    return blank, record


def title_advice(location: Location, header: Header) -> str:
    """Returns what to do if the header's line looks like a title and a later one like the header, or "".

    A header has more names than the lines before it have fields, and as many as the line after it.
    """
    most = len(header.names) - len(header.unnamed)
    records = list(_first_records(location))
    for (number, names), (_, following) in pairwise(records):
        is_header = len(names) > most and all(name.strip()[:1].isalpha() for name in names)
        if number > header.skipped + 1 and is_header and len(following) == len(names):
            skipped = number - 1
            setting = f"input.skip_lines = {skipped} (init: --skip-lines {skipped})"
            return f"If the header is line {number}, set {setting}"
    return ""


def _first_records(location: Location) -> Iterator[tuple[int, list[str]]]:
    """Yields the first lines that are not blank, as records, with their numbers."""
    for number, line in enumerate(islice(_text_lines(location), _MOST_TITLE_LINES), start=1):
        if line.strip():
            separator = "\t" if location.format == "tsv" else _separator(line)
            yield number, next(csv.reader([line], delimiter=separator))


def _separator(header: str) -> str:
    unquoted = "".join(header.split('"')[::2])
    return next((separator for separator in _GUESSED_SEPARATORS if separator in unquoted), ",")


def find_fault(location: Location, header: Header) -> None:
    """Raises InputError for the file's first fault: its line, what is wrong, what to do.

    Returns without a fault. Faults are bytes that are not UTF-8, NUL bytes, quotes that don't match, and
    records with more or fewer fields than the header.
    """
    with _long_fields():
        _check_records(location, header)


@contextmanager
def _long_fields() -> Iterator[None]:
    limit = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _check_records(location: Location, header: Header) -> None:
    lines_of_records = islice(_text_lines(location), header.skipped, None)
    reader = csv.reader(lines_of_records, delimiter=header.separator, strict=True)
    start = 1 + header.skipped
    try:
        for record in reader:
            if record and len(record) != len(header.names):
                raise _ragged(location, start, record, header)
            start = reader.line_num + 1 + header.skipped
    except csv.Error as error:
        raise InputError(f"{location.name}: line {start}: {_explain(error, header.separator)}") from error


def line_of_row(location: Location, header: Header, row: int) -> int:
    """Returns the line in which a row begins; rows are counted from 1, lines as an editor counts them."""
    reader = csv.reader(islice(_text_lines(location), header.skipped, None), delimiter=header.separator)
    records = start = 0
    with _long_fields():
        for record in reader:
            if record and records == row:
                break
            records += bool(record)
            start = reader.line_num
    return start + 1 + header.skipped


def _ragged(location: Location, line: int, record: Sequence[str], header: Header) -> InputError:
    found, expected = len(record), len(header.names)
    if any(field.lstrip(" ").startswith('"') and field[0] == " " for field in record):
        advice = "A blank stands before a quote, which therefore quotes nothing: remove the blank"
    elif found > expected:
        advice = title_advice(location, header) or "Put quotes around a field that holds the separator"
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
    """Returns the error for a line whose byte at `position` (from 0) can't be UTF-8."""
    encoding = "utf-16" if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    return InputError(
        f"{location.name}: line {number}, byte {position + 1} (0x{line[position]:02x}) is not UTF-8. "
        f"Convert the file, for example: iconv -f {encoding} -t utf-8 {quote(location.name)} > converted"
    )
