"""Corrections and notes that a person makes row by row. They go to the file that `batchrun review` reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchrun.client.request import Request
from batchrun.errors import UsageError
from batchrun.evaluation.corrections import BY_HAND, correction
from batchrun.rows.dataset import Dataset
from batchrun.runs.reading import SeenRow
from batchrun.runs.review import Answered, cells_of, header_of, review_path
from batchrun.tables.sheet import read_whole_sheet, write_sheet

_KEYS = ("row", "why", "key", "correct")


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person says of a row: `correct` is a label of the job, `ok` or `none`, as in a review."""

    correct: str = ""
    note: str = ""


def remark_on(dataset: Dataset, index: int) -> Remark:
    """Returns what the file says of a row. Raises InputError."""
    path, prefix = review_path(dataset.job), dataset.job.output.prefix
    if not path.exists():
        return Remark()
    _, rows = _read(path, prefix)
    found = next((row for row in rows if row[f"{prefix}row"].strip() == str(index + 1)), {})
    return Remark(found.get(f"{prefix}correct", ""), found.get(_note_column(dataset), ""))


def can_be_corrected(row: SeenRow) -> bool:
    """Returns whether a review can have the row: it has ended, with an answer that was to be a label."""
    return row.result.answered and row.result.label_result is not None and isinstance(row.request, Request)


def write_remark(dataset: Dataset, row: SeenRow, remark: Remark) -> Path:
    """Writes what a person says of a row in place of what the file said; returns the file.

    Raises UsageError for a correction that is no label, or for a row that a review can't have; InputError,
    OutputError, StorageError.
    """
    label_result, request = row.result.label_result, row.request
    if label_result is None or not row.result.answered or not isinstance(request, Request):
        raise UsageError(f"Row {row.index + 1:,} has no label to correct: it has not been answered.")
    if remark.correct:
        read = correction(remark.correct, label_result.label, dataset.labelling.parser)
        if isinstance(read, str):
            raise UsageError(f"Row {row.index + 1:,}: {read}")
    answered = Answered(row.chunk, row.position, request.digest, row.result.text or "", label_result)
    path, prefix, names = review_path(dataset.job), dataset.job.output.prefix, header_of(dataset)
    header, rows = _read(path, prefix) if path.exists() else (names, [])
    fresh = dict(zip(names, cells_of(dataset, answered, BY_HAND), strict=True))
    place = next(
        (n for n, each in enumerate(rows) if each[f"{prefix}row"].strip() == fresh[f"{prefix}row"]), None
    )
    if place is None:
        rows.append(fresh)
    else:
        _refuse_changed(rows[place], fresh, prefix, path)
    said = {f"{prefix}correct": remark.correct, _note_column(dataset): remark.note}
    rows[-1 if place is None else place] |= said
    header = list(dict.fromkeys([*header, *said]))
    write_sheet(path, header, ([each.get(name, "") for name in header] for each in rows), replace=True)
    return path


def _note_column(dataset: Dataset) -> str:
    name = f"{dataset.job.output.prefix}note"
    return f"{name}_by_hand" if name in dataset.table.schema.names else name


def _read(path: Path, prefix: str) -> tuple[list[str], list[dict[str, str]]]:
    return read_whole_sheet(path, [prefix + name for name in _KEYS])


def _refuse_changed(before: Mapping[str, str], now: Mapping[str, str], prefix: str, path: Path) -> None:
    """A row of an audit stands for others by the label that it was drawn with."""
    if before[f"{prefix}key"].strip() != now[f"{prefix}key"]:
        raise UsageError(
            f"{path} has row {now[f'{prefix}row']} with another answer than it has now.\n"
            "Next: a new review, batchrun review JOB --again, or remove the row from the file."
        )
