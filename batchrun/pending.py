"""Which rows are still to be asked for, and in which order."""

import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batchrun.evaluation.places import key_of, place_of
from batchrun.journal import Journal
from batchrun.labelling import Labelling
from batchrun.open_rows import Row
from batchrun.output_columns import FAILED, PENDING, status_of
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.row_records import row_records
from batchrun.workload import ROWS_IN_A_CHUNK, Chunk, Workload

Pending = Callable[[list[Row]], tuple[list[Row], int]]
"""Those of some rows that are still to be asked for, and how many of the others have failed."""


def pending_rows(
    workload: Workload,
    journal: Journal,
    progress: Progress,
    retry_failed_before: int = 0,
    labelling: Labelling | None = None,
) -> Iterator[list[Row]]:
    """The rows that have not come to their end, in input order.

    A row that failed for good is left out too, unless that was in a run before `retry_failed_before`.
    A request may come up more than once: its rows share one answer.
    """
    rows = 0
    unsettled = (
        _without_verdict(journal, labelling)
        if labelling is not None and labelling.follows_up
        else _unanswered(journal, retry_failed_before)
    )
    for chunk in workload.chunks([]):
        sendable = _sendable(chunk)
        pending, failed = unsettled(sendable)
        rows += len(chunk.requests)
        progress.looked_at = rows
        progress.unsendable += len(chunk.requests) - len(sendable)
        progress.failed_before += failed
        progress.answered_before += len(sendable) - len(pending) - failed
        yield pending
    progress.rows = rows


def _sendable(chunk: Chunk) -> list[Row]:
    return [
        Row(chunk.first + position, request)
        for position, request in enumerate(chunk.requests)
        if isinstance(request, Request)
    ]


def _unanswered(journal: Journal, retry_failed_before: int) -> Pending:
    """For rows that take one request."""
    known = _Settled(journal, retry_failed_before)

    def pending(rows: list[Row]) -> tuple[list[Row], int]:
        settled = known.among({row.request.digest for row in rows})
        failed = sum(settled.get(row.request.digest, False) for row in rows)
        return [row for row in rows if row.request.digest not in settled], failed

    return pending


def _without_verdict(journal: Journal, labelling: Labelling) -> Pending:
    """For rows that may take several: their answers say whether they have come to an end."""

    def pending(rows: list[Row]) -> tuple[list[Row], int]:
        records = row_records([row.request for row in rows], journal, labelling)
        ended = [(row, records[row.request.digest]) for row in rows]
        failed = sum(status_of(record) == FAILED for _, record in ended)
        return [
            replace(row, known=record.known) for row, record in ended if status_of(record) == PENDING
        ], failed

    return pending


class _Settled:
    """Which requests need no asking: looked up one by one, unless they come in the order of last time.

    Then they are found in the two pages of the journal that are kept, at a tenth of the cost. No
    cursor stays open between pages: it would keep the write-ahead log from being checkpointed.
    """

    def __init__(self, journal: Journal, retry_failed_before: int) -> None:
        self._journal = journal
        self._retry_failed_before = retry_failed_before
        self._attempt = 0
        self._page: dict[bytes, bool] = {}
        self._next_page = self._read_page()

    def among(self, digests: set[bytes]) -> dict[bytes, bool]:
        """Those of the digests that need no asking, and whether they failed for good."""
        pages = self._page | self._next_page
        settled = {digest: pages[digest] for digest in digests & pages.keys()}
        if not settled or not self._next_page.keys().isdisjoint(settled):
            self._page, self._next_page = self._next_page, self._read_page()
        unknown = tuple(digests - settled.keys())
        return settled | self._journal.settled_digests(unknown, self._retry_failed_before)

    def _read_page(self) -> dict[bytes, bool]:
        page = self._journal.settled_after(self._attempt, ROWS_IN_A_CHUNK, self._retry_failed_before)
        if page:
            self._attempt = page[-1][0]
        return {digest: failed for _, digest, failed in page}


def in_random_order(
    chunks: Iterator[list[Row]], seed: int, rows_in_a_chunk: int = ROWS_IN_A_CHUNK
) -> Iterator[list[Row]]:
    """The same rows in ascending order of a keyed hash of their row's index.

    The place of a row among the others depends on the seed and its index alone, so that an
    interrupted run goes on in the same order. Bodies wait in a temporary file; a row takes some 24
    bytes of memory. Empty chunks come while `chunks` are read, so that whoever asks for the next one
    can stop in between.
    """
    key = key_of(seed)
    places = array("Q")
    offsets = array("Q")
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            for row in chunk:
                offsets.append(file.tell())
                places.append(place_of(row.index, key))
                file.write(msgspec.msgpack.encode(row))
            yield []
        offsets.append(file.tell())
        order = _order(places)
        for start in range(0, len(order), rows_in_a_chunk):
            shuffled = []
            for position in order[start : start + rows_in_a_chunk].to_pylist():
                file.seek(offsets[position])
                encoded = file.read(offsets[position + 1] - offsets[position])
                shuffled.append(msgspec.msgpack.decode(encoded, type=Row))
            yield shuffled


def _order(places: "array[int]") -> pa.Array:
    """The positions in ascending order of their places, without a Python object for each."""
    values = pa.Array.from_buffers(pa.uint64(), len(places), [None, pa.py_buffer(places)])
    return pc.sort_indices(values)
