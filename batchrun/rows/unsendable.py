"""Rows that have no valid request: why, how many, and where the first one is."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pyarrow as pa
from msgspec import structs
from pyarrow import types

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.request import Request
from batchrun.rows.dataset import Dataset

MOST_REASONS = 4
"""Most reasons that are counted separately."""


@dataclass
class UnsendableRows:
    """Counts rows by code and message, each with the number of the first such row, from 1."""

    total: int = 0
    rows: int = 0
    reasons: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(self, requests: Iterable[Request | InvalidRow]) -> None:
        """Adds the next rows, in input order."""
        for request in requests:
            self.total += 1
            if isinstance(request, InvalidRow):
                self.rows += 1
                self._count(request)

    def add_sendable(self, rows: int) -> None:
        """Adds so many rows with valid requests."""
        self.total += rows

    def _count(self, row: InvalidRow) -> None:
        reason = (row.code, row.message)
        if reason not in self.reasons and len(self.reasons) >= MOST_REASONS:
            reason = (row.code, "for other reasons")
        rows, first = self.reasons.get(reason, (0, self.total))
        self.reasons[reason] = (rows + 1, first)

    def lines(self) -> list[str]:
        """Returns a line for each reason, the commonest first."""
        found = sorted(self.reasons.items(), key=lambda item: -item[1][0])
        return [
            f"{rows:,} of {self.total:,} rows: {code}, {message.rstrip('.')}, first in row {first:,}"
            for (code, message), (rows, first) in found
        ]


def unsendable_rows(dataset: Dataset) -> UnsendableRows:
    """Renders the whole input, unless no row of it can fail. Images are not read. Raises InputError."""
    rows = UnsendableRows()
    job = dataset.job
    plain = {column.name for column in dataset.table.schema if _always_prints(column.type)}
    if dataset.builder.always_builds(plain):
        return rows
    if job.prompt.image is not None:
        job = structs.replace(job, prompt=structs.replace(job.prompt, image=None))
        builder = RequestBuilder(job, dataset.table.schema.names, dataset.endpoint, dataset.table.cells.texts)
        dataset = replace(dataset, job=job, builder=builder)
    for chunk in dataset.chunks([]):
        if None in chunk.digests:
            rows.add(chunk.requests)
        else:
            rows.add_sendable(len(chunk.digests))
    return rows


def _always_prints(kind: pa.DataType) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_temporal(kind)
    )
