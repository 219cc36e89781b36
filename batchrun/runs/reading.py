"""Rows for a person to read: what was sent, what came back, what it cost."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from batchrun.amounts import NANO
from batchrun.client.builder import InvalidRow
from batchrun.client.messages.prompt import turns_of
from batchrun.client.request import Request
from batchrun.clock import instant
from batchrun.journal import Journal
from batchrun.journal.attempts import AttemptMade, attempts_of
from batchrun.rows.chunks import Chunk
from batchrun.rows.columns import STATUS
from batchrun.rows.dataset import Dataset
from batchrun.rows.history import RowHistory, result_of
from batchrun.rows.result import RowResult
from batchrun.runs.output import RowWriter
from batchrun.runs.run_folder import open_journal_of
from batchrun.tables.python_rows import python_rows

ReadableRow = dict[str, Any]
"""A row as JSON-able values; docs/looking.md names them."""

_SAME_NAMES = (
    *("status", "error_code", "error", "input_tokens", "output_tokens", "cost_usd", "uncertain_usd"),
    *("latency_ms", "shared", "label_error", "agreement", "samples", "score"),
)
"""Values that have the names of the output's columns; None where the output has no such column."""


@dataclass(frozen=True)
class SeenRow:
    """A row of the input beside its record in the journal, the `position`th of its chunk."""

    dataset: Dataset
    chunk: Chunk
    position: int
    record: RowHistory | InvalidRow | None
    values: tuple[Any, ...]

    @property
    def index(self) -> int:
        return self.chunk.first + self.position

    @property
    def request(self) -> Request | InvalidRow:
        return self.chunk.requests[self.position]

    @property
    def result(self) -> RowResult:
        return result_of(self.record)

    @property
    def status(self) -> str:
        return str(self.values[STATUS])

    @cached_property
    def added(self) -> dict[str, Any]:
        """The values of the added columns by their names, without the job's prefix."""
        return dict(zip(self.dataset.added.schema.names, self.values, strict=True))

    @cached_property
    def cells(self) -> dict[str, Any]:
        """The input's cells that were read, by their columns."""
        batch = self.chunk.batch
        (values,) = python_rows(batch.slice(self.position, 1))
        return dict(zip(batch.schema.names, values, strict=True))

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The identities of all requests that the row has taken, or may have."""
        if isinstance(self.request, InvalidRow):
            return ()
        state = self.record.state if isinstance(self.record, RowHistory) else None
        return (self.request.digest,) if state is None else state.asked

    @property
    def disagrees(self) -> bool:
        """Returns whether the answer isn't the expected one, or the votes differ."""
        score, agreement = self.added.get("score"), self.added.get("agreement")
        return (score is not None and score < 1) or (agreement is not None and agreement < 1)


def seen_rows(dataset: Dataset, journal: Journal, writer: RowWriter) -> Iterator[SeenRow]:
    """Yields all rows in input order, with all of the input's columns. Raises JournalError."""
    for chunk in dataset.chunks(journal=journal):
        for position, (record, values) in enumerate(writer.records(chunk)):
            yield SeenRow(dataset, chunk, position, record, values)


def read_rows(dataset: Dataset, indexes: Sequence[int]) -> list[ReadableRow]:
    """Returns the rows with these indexes, in this order. Raises UsageError, JournalError."""
    wanted = set(indexes)
    found: dict[int, ReadableRow] = {}
    with closing(open_journal_of(dataset.job)) as journal:
        for row in seen_rows(dataset, journal, RowWriter(dataset, journal)):
            if row.index in wanted:
                found[row.index] = readable(row, journal)
            if len(found) == len(wanted):
                break
    return [found[index] for index in indexes]


def readable(row: SeenRow, journal: Journal) -> ReadableRow:
    """Returns the row with its prompt, its answer and its attempts."""
    return without_attempts(row) | {"attempts": made_attempts(journal, row.digests)}


def without_attempts(row: SeenRow) -> ReadableRow:
    """Returns the row with its prompt and its answer; reads nothing more."""
    request, result, added = row.request, row.result, row.added
    evaluation = row.dataset.job.evaluation
    used = row.dataset.builder.columns
    return {
        "row": row.index + 1,
        **{name: added.get(name) for name in _SAME_NAMES},
        "input": {name: cell_text(cell) for name, cell in row.cells.items() if name not in used},
        "prompt": [] if isinstance(request, InvalidRow) else turns_of(request.body),
        "answer": result.text if result.answered else None,
        "label": result.label_text if row.dataset.labelling.labelled and result.ended else None,
        "expected": None if evaluation is None else cell_text(row.cells[evaluation.expected]),
    }


def made_attempts(journal: Journal, digests: Sequence[bytes]) -> list[dict[str, Any]]:
    """Returns the attempts of a row's requests, in sending order. Raises JournalError."""
    return [_attempt(made) for made in attempts_of(journal, digests)]


def _attempt(made: AttemptMade) -> dict[str, Any]:
    return {
        "run": made.run,
        "at": instant(made.started_at),
        "seconds": (made.finished_at - made.started_at) / 1000,
        "outcome": made.outcome,
        "usd": None if made.nano_usd is None else made.nano_usd / NANO,
        "http_status": made.http_status,
        "error_code": made.error_code,
        "error": made.error,
    }


def cell_text(value: Any) -> str:
    """Returns a cell as text; a null is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list | dict):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)


Kept = TypeVar("Kept")


class Lowest(Generic[Kept]):
    """The `most` items with the lowest keys of all that were added. An item is made only if it is kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Kept]] = []  # keys negated: the highest is at the top
        self._added = 0

    def add(self, key: float, make: Callable[[], Kept]) -> None:
        self._added += 1  # of two equal keys, the first one stays
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (-key, -self._added, make()))
        elif self._heap and -key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (-key, -self._added, make()))

    def items(self) -> list[Kept]:
        """Returns the kept items, the lowest key first."""
        return [item for _, _, item in sorted(self._heap, key=lambda kept: (-kept[0], -kept[1]))]
