"""One input file with a known schema: the interface that all formats share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
from pyarrow import types

from batchrun.errors import InputError
from batchrun.text import in_another_form

ReadColumns = Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Cells:
    """How templates get a file's cells, where these are not the values of the column's type.

    `values` makes a column's values, from itself or from the batch column that `sources` names for it.
    `texts` are the columns whose cells are text whatever they hold. `former_types` returns all columns' types
    by which templates got cells before; it may read the file.
    """

    values: Mapping[str, Callable[[pa.Array], list[Any]]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    former_types: Callable[[], Mapping[str, pa.DataType]] = dict


@dataclass(frozen=True)
class TableFile:
    """A file that can be read again and again.

    `read(columns, rows)` yields batches of at most `rows` rows, in the file's order, that hold at
    least `columns`. It raises InputError where the file is damaged. `is_checked`: the file has been read in
    full, and every output can hold its values. `notes` are for the user.
    """

    name: str
    schema: pa.Schema
    row_count: int | None
    read: ReadColumns
    cells: Cells = field(default_factory=Cells)
    is_checked: bool = False
    notes: tuple[str, ...] = ()


def check_column_names(name: str, columns: Sequence[str]) -> None:
    """Raises InputError when a column of the file `name` has no name or shares it with another."""
    for position, column in enumerate(columns):
        if not column.strip():
            raise InputError(f"{name}: column {position + 1} has no name. Name it in the file")
        if column in columns[:position]:
            first = columns.index(column) + 1
            raise InputError(
                f"{name}: columns {first} and {position + 1} are both named {column!r}. Rename one"
            )


def check_fields(name: str, schema: pa.Schema) -> None:
    """Raises InputError as `check_column_names`, and when a nested type has two fields of one name."""
    check_column_names(name, schema.names)
    for column in schema:
        twice = _field_twice(column.type)
        if twice is not None:
            raise InputError(f"{name}: column {column.name!r} has two fields named {twice!r}. Rename one")


def _field_twice(kind: pa.DataType) -> str | None:
    if isinstance(kind, pa.BaseExtensionType):
        return _field_twice(kind.storage_type)
    if not types.is_nested(kind):
        return None
    fields = [kind.field(place) for place in range(kind.num_fields)]
    names = [field.name for field in fields] if types.is_struct(kind) else []
    own = next((name for name in names if names.count(name) > 1), None)
    return own or next((twice for field in fields if (twice := _field_twice(field.type)) is not None), None)


def slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Yields `batch` in pieces of at most `rows` rows, without copying."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def no_such_type_column(name: str, columns: Sequence[str]) -> str:
    """Returns the error text for a column in `input.types` that the input lacks."""
    near = get_close_matches(name, columns, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    same = in_another_form(name, columns)
    if same is not None:
        hint = f"; copy the name from the input, where it is in another Unicode form: {same!a}"
    return f"[input] types names the column {name!r}, which the input doesn't have{hint}"
