"""Cells of JSON as written in their line: their values for templates, and columns that stay JSON text."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import types

from batchrun.text import NumberAsWritten

JSON_TEXT = {b"batchrun.json": b"1"}
"""Metadata of a column that holds JSON text."""

_DEEPEST = 32  # levels: some Parquet readers fail above that
_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def source_of(name: str) -> str:
    """Returns the name under which a batch carries the JSON texts of the column `name`."""
    return f"\0{name}"


def json_texts(lines: Sequence[bytes], names: Sequence[str]) -> list[pa.Array]:
    """Returns the JSON texts of the members `names` in the objects of `lines`; null for null members."""
    members = [_decode_members(line) for line in lines]
    return [pa.array([_text(row.get(name)) for row in members], pa.string()) for name in names]


def _text(value: msgspec.Raw | None) -> str | None:
    text = None if value is None else bytes(value).decode()
    return None if text == "null" else text


def json_values(column: pa.Array) -> list[Any]:
    """Returns the values of JSON texts. Numbers print as they are written."""
    return [None if text is None else _decode(text) for text in column.to_pylist()]


def number_as_written(text: str) -> float | Decimal | NumberAsWritten:
    """Returns a number that prints as `text` in JSON."""
    number = float(text)
    if _encode(number).decode() == text:
        return number
    exact = Decimal(text)
    return exact if str(exact) == text else NumberAsWritten(text)


_decode = msgspec.json.Decoder(float_hook=number_as_written).decode


def scalar_values(column: pa.Array) -> list[Any]:
    """Returns the values of JSON texts; their fractions print as written, outside JSON too."""
    return [Decimal(str(value)) if isinstance(value, float) else value for value in json_values(column)]


def holds_everything(kind: pa.DataType, depth: int = 0) -> bool:
    """Whether every output can hold a column of the type: no empty object, not nested too deep."""
    if depth > _DEEPEST:
        return False
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(holds_everything(field.type, depth + 1) for field in kind)
    return not types.is_list(kind) or holds_everything(kind.value_type, depth + 1)
