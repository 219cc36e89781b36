"""Reads a sheet of a spreadsheet's workbook: its cells are texts, as those of a CSV file are.

The sheet is in memory while it is copied to a temporary file, from which all passes read.
"""

import csv
import datetime as dt
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from batchrun.errors import InputError, JobError
from batchrun.tables.copies import CopiedLocation, copied
from batchrun.tables.locations import Location, reading

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

_MOST_INTEGRAL = 1e21  # beyond, a number is written with an exponent


def open_sheet(
    location: Location, sheet: str | None, folder: Path | None
) -> tuple[CopiedLocation, list[str]]:
    """Returns a sheet as tab-separated text in a temporary copy in `folder`, and what to say about it.

    `sheet` is its name; None stands for the first one. Formulas count as their last values. Columns without
    a header and values at the right, and rows without values at the end, are left out. Raises InputError,
    and JobError for a sheet that the workbook lacks.
    """
    name = location.name
    workbook = _open(location)
    if sheet is not None and sheet not in workbook.sheet_names:
        raise JobError(f"[input] sheet: {name} has no sheet {sheet!r}. It has {_in_words(workbook)}")
    notes = []
    if sheet is None and len(workbook.sheet_names) > 1:
        notes.append(
            f"{name} has the sheets {_in_words(workbook)}: the first is read, input.sheet names another"
        )
    rows = _texts(workbook, sheet or workbook.sheet_names[0])
    if not rows:
        raise InputError(f"{name}: the sheet {sheet or workbook.sheet_names[0]!r} is empty")
    kept, dropped = _without_empty_edges(rows)
    if dropped:
        notes.append(f"{name}: left out as empty: {dropped}")

    def write(copy: IO[bytes]) -> None:
        text = io.TextIOWrapper(copy, "utf-8", newline="")
        csv.writer(text, delimiter="\t", lineterminator="\n").writerows(kept)
        text.flush()
        text.detach()

    return copied(name, ("tsv", None), write, folder), notes


def _open(location: Location) -> "CalamineWorkbook":
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise InputError(
            f"{location.name}: workbooks are read by python-calamine. "
            "Install it: pip install 'batchrun-llm[excel]'"
        ) from None
    with reading(location), location.open_file() as file:
        content = file.read()
    try:
        return CalamineWorkbook.from_filelike(io.BytesIO(content))
    except CalamineError as error:
        raise InputError(f"{location.name} is not a workbook that can be read: {error}") from error


def _in_words(workbook: "CalamineWorkbook") -> str:
    return ", ".join(map(repr, workbook.sheet_names))


def _texts(workbook: "CalamineWorkbook", sheet: str) -> list[list[str]]:
    return [[_text(cell) for cell in row] for row in workbook.get_sheet_by_name(sheet).to_python()]


def _text(cell: Any) -> str:
    """Returns a cell's value as text: a number as its shortest digits, a time as ISO 8601."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _MOST_INTEGRAL:
        return str(int(cell))
    if isinstance(cell, dt.date | dt.time):
        return cell.isoformat()
    return str(cell)


def _without_empty_edges(rows: Sequence[list[str]]) -> tuple[list[list[str]], str]:
    """Returns the rows without empty ones at the end and empty columns at the right, and what that were."""
    height = max((place for place, row in enumerate(rows, start=1) if _width(row)), default=0)
    width = max(map(_width, rows), default=0)
    dropped = [
        f"{count} {kind}{'' if count == 1 else 's'} at the {edge}"
        for count, kind, edge in (
            (len(rows) - height, "row", "end"),
            (max(map(len, rows)) - width, "column", "right"),
        )
        if count
    ]
    return [row[:width] for row in rows[:height]], " and ".join(dropped)


def _width(row: Sequence[str]) -> int:
    return max((place for place, cell in enumerate(row, start=1) if cell.strip()), default=0)
