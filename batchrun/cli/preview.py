"""A preview of the output: rows that have ended, in few columns."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from batchrun.job.spec import Job
from batchrun.text import single_line

LONGEST_UNCUT = 14
"""Columns up to this width are shown whole; the others share the remaining width."""
NARROWEST = 6
BETWEEN_COLUMNS = 3
MOST_OF_INPUT = 3
"""Columns of the template that are shown."""


def print_preview(job: Job, path: Path, most: int) -> None:
    """Prints the first rows of the output that have ended, on stderr.

    Columns are the template's first ones, the answer, the label, and the error if a row has one.
    """
    from rich.console import Console

    from batchrun.rows.columns import AddedColumns
    from batchrun.rows.dataset import labelling_of
    from batchrun.tables.reader import open_table, python_rows

    prefix, added = job.output.prefix, AddedColumns(labelling_of(job), job.evaluation is not None)
    labels = [field.name for field in added.label_fields() if field.name != "samples"]
    known = {name: prefix + name for name in ("status", "output", *labels, "error", "cost_usd")}
    table = open_table(str(path), path.parent)
    of_batchrun = {prefix + name for name in added.schema.names}
    asked = f"{job.prompt.template} {job.prompt.messages}"
    inputs = [name for name in table.schema.names if name not in of_batchrun and _in(asked, name)]
    names = [*inputs[:MOST_OF_INPUT], *(name for name in known.values() if name in table.schema.names)]
    status = names.index(known["status"])
    ended = (row for batch in table.batches(names) for row in python_rows(batch) if row[status] != "pending")
    rows = [[single_line(_cell(value)) for value in row] for row in islice(ended, most)]
    if rows:
        console = Console(stderr=True, markup=False, highlight=False)
        columns = _shown(names, rows, [known["error"], prefix + "label_error"], console.width)
        _print_rows(
            console, [names[each] for each in columns], [[row[each] for each in columns] for row in rows]
        )


def _in(template: str, column: str) -> bool:
    return re.search(rf"\b{re.escape(column)}\b", template) is not None


def _shown(names: list[str], rows: list[list[str]], errors: list[str], width: int) -> list[int]:
    """Returns the positions of the columns: errors only if there are some, and no more than fit."""
    useful = [
        place for place, name in enumerate(names) if name not in errors or any(row[place] for row in rows)
    ]
    most = max(1, (width + BETWEEN_COLUMNS) // (NARROWEST + BETWEEN_COLUMNS))
    return useful[-most:]


def _print_rows(console: Any, names: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False, expand=True)
    widths = [
        max(NARROWEST, *map(len, (name, *column)))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    ]
    room = console.width - BETWEEN_COLUMNS * (len(names) - 1)
    long = sum(width > LONGEST_UNCUT for width in widths)
    whole = sum(width for width in widths if width <= LONGEST_UNCUT) + NARROWEST * long <= room
    for name, width in zip(names, widths, strict=True):
        short = whole and width <= LONGEST_UNCUT
        table.add_column(
            single_line(name),
            overflow="ellipsis",
            no_wrap=True,
            width=width if short else None,
            min_width=NARROWEST,
            ratio=None if short else 1,
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
