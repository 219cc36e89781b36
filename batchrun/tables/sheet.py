"""Writes a CSV file for a person's spreadsheet, and reads it back."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from batchrun.errors import InputError, OutputError, cause_of, unwritable
from batchrun.tables.atomic import Replacement
from batchrun.tables.near_paths import did_you_mean

MOST_CHARACTERS = 30_000
"""The limit of one cell: spreadsheets hold 32,767, and some put the rest into a row of its own."""

_MOST_CHARACTERS_READ = 10_000_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
FORMULA_STARTS = "=+@\t\r-"
"""First characters, also behind blanks, of a cell that a spreadsheet may run as a formula."""
NEGATIVE_NUMBER = r"-[0-9]+(\.[0-9]+)?"
_CUT = re.compile(r"\n\[[0-9]+ more characters\]$")
_PLAIN_NUMBER = re.compile(NEGATIVE_NUMBER)


def write_sheet(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], *, replace: bool) -> None:
    """Writes CSV whose cells a spreadsheet reads as text. Raises OutputError, StorageError.

    A cell that a spreadsheet could run as a formula has an apostrophe before it, which prevents that; a long
    cell is cut. Raises OutputError for an existing file, unless `replace`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_harmless, header))
    writer.writerows(map(_harmless, row) for row in rows)
    # The byte order mark tells spreadsheets that it is UTF-8.
    content = text.getvalue().encode("utf-8-sig", errors="replace")
    try:
        with Replacement(path) as replacement:
            replacement.file.write(content)
            if replace:
                replacement.commit()
            else:
                replacement.commit_new()
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise unwritable(f"{path} can't be written: {cause_of(error)}.", error) from None


def refuse_existing(path: Path) -> None:
    """Raises OutputError for an existing file."""
    if path.exists():
        raise _taken(path)


def _taken(path: Path) -> OutputError:
    return OutputError(
        f"{path} is there already, and may hold corrections.\n"
        "Name another file with --to, or write over it with --again."
    )


def _harmless(cell: str) -> str:
    more = len(cell) - MOST_CHARACTERS
    if more > 0 and not _CUT.search(cell):
        cell = f"{cell[:MOST_CHARACTERS]}\n[{more} more characters]"
    runs = cell.lstrip(" ").startswith(_FORMULA) and not _PLAIN_NUMBER.fullmatch(cell)
    return f"'{cell}" if runs else cell


def read_sheet(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    """Returns the rows that aren't empty, with `columns` as texts without surrounding blanks.

    Cells may be separated by commas, semicolons or tabs, as the spreadsheet chose. Raises InputError.
    """
    _, rows = _read_cells(path, columns)
    wanted = [{name: _plain(row[name].strip()) for name in columns} for row in rows]
    return [row for row in wanted if any(row.values())]


def read_whole_sheet(path: Path, columns: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the header, which must have `columns`, and all rows as texts.

    Raises InputError.
    """
    header, rows = _read_cells(path, columns)
    return header, [{name: _plain(cell) for name, cell in row.items()} for row in rows]


def _read_cells(path: Path, columns: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the header and the rows, of cells as they stand in the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}{did_you_mean(path) or '.'}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8. Save it as CSV UTF-8.") from None
    csv.field_size_limit(_MOST_CHARACTERS_READ)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text, columns))
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}.") from None
    header = list(reader.fieldnames or ())
    missing = [name for name in columns if name not in header]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise InputError(
            f"{path} lacks the columns {names}.\nIt must be a file that `batchrun review` wrote, as CSV."
        )
    return header, [{name: row[name] or "" for name in header} for row in rows]


def _delimiter(text: str, columns: Sequence[str]) -> str:
    """Returns the separator with which the first record has most of the columns."""

    def found(delimiter: str) -> int:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        return len(set(columns).intersection(header))

    return max(",;\t", key=found)


def _plain(text: str) -> str:
    """Returns the cell without the apostrophe against running it."""
    return text[1:] if text.startswith("'") and text[1:].lstrip(" ").startswith(_FORMULA) else text
