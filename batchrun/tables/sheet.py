"""A CSV file for a person's spreadsheet, and what the spreadsheet made of it."""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from batchrun.errors import InputError, OutputError, StorageError
from batchrun.tables.temporary import open_temporary

MOST_CHARACTERS = 30_000
"""Of a cell: spreadsheets hold 32,767, and some put the rest into a row of its own."""

_MOST_CHARACTERS_READ = 10_000_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PLAIN_NUMBER = re.compile(r"-[0-9]+(\.[0-9]+)?")


def write_sheet(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], *, replace: bool) -> None:
    """Writes texts as CSV that a spreadsheet takes as texts. Raises OutputError, StorageError.

    A cell that a spreadsheet could take for a formula has an apostrophe before it, which keeps it from being
    run; a long one is cut. Unless `replace`, a file that is there is left alone, with OutputError.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_harmless, header))
    writer.writerows(map(_harmless, row) for row in rows)
    # The mark tells spreadsheets that it is UTF-8.
    content = text.getvalue().encode("utf-8-sig", errors="replace")
    try:
        if replace:
            _replace(path, content)
        else:
            _create(path, content)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        kind = StorageError if path.parent.is_dir() else OutputError
        raise kind(f"{path} can't be written: {error.strerror}.") from None


def refuse_existing(path: Path) -> None:
    """Raises OutputError where there is a file."""
    if path.exists():
        raise _taken(path)


def _taken(path: Path) -> OutputError:
    return OutputError(
        f"{path} is there already, and may hold corrections.\n"
        "Name another file with --to, or write over it with --again."
    )


def _create(path: Path, content: bytes) -> None:
    """Whole or not at all, and never in the place of a file: a link is made to no name that is taken."""
    temporary, file = open_temporary(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    temporary, file = open_temporary(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _harmless(cell: str) -> str:
    more = len(cell) - MOST_CHARACTERS
    if more > 0:
        cell = f"{cell[:MOST_CHARACTERS]}\n[{more} more characters]"
    runs = cell.lstrip(" ").startswith(_FORMULA) and not _PLAIN_NUMBER.fullmatch(cell)
    return f"'{cell}" if runs else cell


def read_sheet(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    """The rows that aren't empty, with `columns` as texts without blanks around them.

    Commas, semicolons and tabs are understood between cells, whichever the spreadsheet has chosen.
    Raises InputError.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8. Save it as CSV UTF-8.") from None
    csv.field_size_limit(_MOST_CHARACTERS_READ)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text, columns))
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{path} is no CSV file: {error}.") from None
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise InputError(
            f"{path} lacks the columns {names}.\nIt must be a file that `batchrun review` wrote, as CSV."
        )
    wanted = [{name: _plain(row[name]) for name in columns} for row in rows]
    return [row for row in wanted if any(row.values())]


def _delimiter(text: str, columns: Sequence[str]) -> str:
    """The one by which the first record has the most of the columns."""

    def found(delimiter: str) -> int:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        return len(set(columns).intersection(header))

    return max(",;\t", key=found)


def _plain(cell: str | None) -> str:
    """Without the apostrophe that kept it from being run."""
    text = (cell or "").strip()
    return text[1:] if text.startswith("'") and text[1:].lstrip(" ").startswith(_FORMULA) else text
