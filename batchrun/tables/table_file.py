"""One input file, once its schema is known: the shape that all formats share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batchrun.errors import InputError

ReadColumns = Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class TableFile:
    """A file that can be read again and again.

    `read(columns, rows)` yields batches of at most `rows` rows, in the file's order, that hold at
    least `columns`. It raises InputError where the file is damaged.
    """

    name: str
    schema: pa.Schema
    row_count: int | None
    read: ReadColumns


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


def slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """`batch` in pieces of at most `rows` rows, without copying."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
