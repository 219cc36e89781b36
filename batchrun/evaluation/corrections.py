"""A person's corrections in a review: how rows are identified, and what their cells mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from batchrun.errors import InputError
from batchrun.evaluation.audit import ForReview
from batchrun.labels.label import Label, excerpt
from batchrun.labels.parser import LabelParser

RIGHT = "ok"
NONE_FITS = "none"
"""Words allowed in `correct` besides labels, unless the job has such a label: then it is that label."""
BY_HAND = "by hand"
"""The reason of a row that a person has picked."""

_AUDIT = re.compile(r"audit: ([0-9]+) of ([0-9]+), from ([0-9]+) labels")
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Drawn:
    """The audit that a row belongs to: `number` rows, drawn from `labels` rows with a label."""

    number: int
    labels: int


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A row of the file. `index` counts from 0. `cell` is the correction, "" for an unchecked row.

    `audit` is None for a row that wasn't drawn at random.
    """

    index: int
    key: str
    cell: str
    audit: Drawn | None


@dataclass(frozen=True, slots=True)
class Correction:
    """The right label for a row. `label` is None if none fits."""

    label: Label | None


def key_of(digest: bytes, label: Label | None) -> str:
    """Returns a row's key: its request and the label that it had. Spreadsheets don't take it for a number."""
    label_text = b"-" if label is None else blake2b(label.text.encode(), digest_size=6).hexdigest().encode()
    return f"r{digest.hex()}.{label_text.decode()}"


def is_of_request(key: str, digest: bytes) -> bool:
    """Returns whether the row with this key had the request with this digest."""
    return key.startswith(f"r{digest.hex()}.")


def reasons(chosen: Sequence[ForReview], labels: int) -> list[str]:
    """Returns why each row is in the file. `labels`: the number of rows from which the audit is drawn."""
    number = sum(row.why == "audit" for row in chosen)
    told, audited = [], 0
    for row in chosen:
        audited += row.why == "audit"
        told.append(f"audit: {audited} of {number}, from {labels} labels" if row.why == "audit" else row.why)
    return told


def words(parser: LabelParser) -> list[str]:
    """Returns the words `ok` and `none` unless they are labels of the job."""
    return [word for word in (RIGHT, NONE_FITS) if not isinstance(parser.read(word), Label)]


def reviewed_row(row: str, why: str, key: str, cell: str, where: str) -> Reviewed:
    """Returns a row of the file from its cells. Raises InputError, which says `where`."""
    drawn = _AUDIT.fullmatch(why)
    if not row.isdecimal() or int(row) < 1:
        raise InputError(f"{where}: {excerpt(row)!r} is not a row number; leave that column as it was.")
    if drawn is None and why not in ("invalid", "low agreement", BY_HAND):
        raise InputError(
            f"{where}, row {row}: the column of reasons has {excerpt(why)!r}; leave it as it was."
        )
    return Reviewed(int(row) - 1, key, cell, Drawn(int(drawn[2]), int(drawn[3])) if drawn else None)


def correction(cell: str, label: Label | None, parser: LabelParser) -> Correction | str:
    """Returns the correction in the filled `cell` for a row with `label`, or a text why it isn't clear.

    A label of the job takes precedence over the words `ok` and `none`. Of a JSON label, `urgency=high` or
    `urgency=high; team=billing` corrects these properties alone.
    """
    read = parser.read(cell)
    if isinstance(read, Label):
        return Correction(read)
    word = cell.lower()
    if word == NONE_FITS:
        return Correction(None)
    if word != RIGHT:
        changed = _with_properties(cell, label, parser)
        read = read if changed is None else parser.read(changed)
        if isinstance(read, Label):
            return Correction(read)
        return f"{excerpt(cell)!r} is not a valid label: {read.reason}"
    if label is None:
        return f"{RIGHT!r} says that the label is right, and the row has none"
    return Correction(label)


def _with_properties(cell: str, label: Label | None, parser: LabelParser) -> str | None:
    """Returns a row's label as JSON with the properties of the cell; None where the cell names none."""
    kinds = {column.name: column.type for column in parser.columns}
    pairs = [part.partition("=") for part in re.split(r"[;\n]", cell) if part.strip()]
    if not pairs or not all(equals and name.strip() in kinds for name, equals, _ in pairs):
        return None
    found = {} if label is None or isinstance(label.value, str) else msgspec.json.decode(label.text)
    for name, _, value in pairs:
        found[name.strip()] = _typed(value.strip(), kinds[name.strip()])
    return msgspec.json.encode(found).decode()


def _typed(text: str, kind: str) -> object:
    """Returns the value of a property as a person writes it: text without quotes, other values as JSON."""
    if kind == "string" and text != "null":
        return text
    try:
        value: object = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
    return value


def refuse_unclear(faults: Mapping[int, str], where: str) -> None:
    """Raises InputError if there are faults, by the row's index."""
    if not faults:
        return
    told = [f"row {index + 1}: {fault}" for index, fault in list(faults.items())[:_MOST_TOLD]]
    more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
    raise InputError(f"{where}, column correct, {'; '.join(told)}{more}.")
