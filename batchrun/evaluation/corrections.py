"""What a person has said of the rows of a review: how a row is known again, and what a cell means."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from batchrun.errors import InputError
from batchrun.evaluation.review import ForReview
from batchrun.labels import Label, excerpt
from batchrun.labels.reading import Reader

RIGHT = "ok"
NONE_FITS = "none"
"""What `correct` may say besides a label, unless the job has such a label: then it is that label."""

_AUDIT = re.compile(r"audit: ([0-9]+) of ([0-9]+), from ([0-9]+) labels")
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Drawn:
    """The audit that a row belongs to: `number` rows, drawn from `labels` rows with a label."""

    number: int
    labels: int


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A row of the file. `index` counts from 0. `cell` says what is right, "" where nobody looked.

    `audit` is None for a row that wasn't drawn at random.
    """

    index: int
    key: str
    cell: str
    audit: Drawn | None


@dataclass(frozen=True, slots=True)
class Correction:
    """What is right for a row. `label` is None where none fits."""

    label: Label | None


def key_of(digest: bytes, label: Label | None) -> str:
    """What a row is known by: its request and the label that it had. No spreadsheet takes it for a number."""
    said = b"-" if label is None else blake2b(label.text.encode(), digest_size=6).hexdigest().encode()
    return f"r{digest.hex()}.{said.decode()}"


def is_of_request(key: str, digest: bytes) -> bool:
    """Whether the row with this key had the request with this digest."""
    return key.startswith(f"r{digest.hex()}.")


def reasons(chosen: Sequence[ForReview], labels: int) -> list[str]:
    """Why each row is in the file, in words. `labels`: how many rows have a label, of which the audit is."""
    number = sum(row.why == "audit" for row in chosen)
    told, audited = [], 0
    for row in chosen:
        audited += row.why == "audit"
        told.append(f"audit: {audited} of {number}, from {labels} labels" if row.why == "audit" else row.why)
    return told


def words(reader: Reader) -> list[str]:
    """Those of `ok` and `none` that mean what they say: the others are labels of the job."""
    return [word for word in (RIGHT, NONE_FITS) if not isinstance(reader.read(word), Label)]


def reviewed_row(row: str, why: str, key: str, cell: str, where: str) -> Reviewed:
    """A row of the file, of its cells. Raises InputError, which says `where`."""
    drawn = _AUDIT.fullmatch(why)
    if not row.isdecimal() or int(row) < 1:
        raise InputError(f"{where}: {excerpt(row)!r} is no row's number; leave that column as it was.")
    if drawn is None and why not in ("invalid", "low agreement"):
        raise InputError(
            f"{where}, row {row}: the column of reasons has {excerpt(why)!r}; leave it as it was."
        )
    return Reviewed(int(row) - 1, key, cell, Drawn(int(drawn[2]), int(drawn[3])) if drawn else None)


def correction(cell: str, label: Label | None, reader: Reader) -> Correction | str:
    """What the filled `cell` says of a row with `label`; a text says why that isn't clear.

    A label of the job goes before the words `ok` and `none`.
    """
    read = reader.read(cell)
    if isinstance(read, Label):
        return Correction(read)
    word = cell.lower()
    if word == NONE_FITS:
        return Correction(None)
    if word != RIGHT:
        return f"{excerpt(cell)!r} is no valid label: {read.reason}"
    if label is None:
        return f"{RIGHT!r} says that the label is right, and the row has none"
    return Correction(label)


def refuse_unclear(faults: Mapping[int, str], where: str) -> None:
    """Raises InputError where there are faults, by the row's index."""
    if not faults:
        return
    told = [f"row {index + 1}: {fault}" for index, fault in list(faults.items())[:_MOST_TOLD]]
    more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
    raise InputError(f"{where}, column correct, {'; '.join(told)}{more}.")
