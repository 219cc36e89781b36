"""Which rows are still to be asked for, and in which order."""

import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from batchrun.evaluation.places import key_of, place_of
from batchrun.job import Job, asks_in_random_order
from batchrun.journal import Journal
from batchrun.labelling import Labelling, Reply
from batchrun.open_rows import Row
from batchrun.output_columns import FAILED, PENDING, status_of
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.row_records import RowRecord, row_records
from batchrun.tables.python_rows import expected_value, python_rows
from batchrun.workload import ROWS_IN_A_CHUNK, Chunk, Workload


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be drawn for a sample: `row` is None where it can't be sent."""

    index: int
    expected: Any
    row: Row | None


Pending = Callable[[list[Row]], tuple[list[Row], int]]
"""Those of some rows that are still to be asked for, and how many of the others have failed."""


def pending_rows(
    workload: Workload,
    journal: Journal,
    progress: Progress,
    retry_failed_before: int = 0,
    labelling: Labelling | None = None,
) -> Generator[list[Row], None, None]:
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


def candidates(
    workload: Workload,
    journal: Journal,
    progress: Progress,
    labelling: Labelling | None,
    retry_failed_before: int,
) -> Iterator[list[Candidate]]:
    """All rows in input order, with what the journal knows of each, and what is expected of it."""
    evaluation = workload.job.evaluation
    expected = [] if evaluation is None else [evaluation.expected]
    for chunk in workload.chunks(expected):
        cells = python_rows(chunk.batch.select(expected))
        sendable = _sendable(chunk)
        records = row_records([row.request for row in sendable], journal, labelling)
        rows = {row.index: _with_known(row, records, retry_failed_before) for row in sendable}
        progress.looked_at += len(chunk.requests)
        progress.unsendable += len(chunk.requests) - len(sendable)
        # The others are to be asked, those that failed before too where they are to be asked again.
        known = [row for row in sendable if rows[row.index].known]
        statuses = [status_of(records.get(row.request.digest)) for row in known]
        progress.failed_before += statuses.count(FAILED)
        progress.answered_before += len(statuses) - statuses.count(FAILED) - statuses.count(PENDING)
        yield [
            Candidate(chunk.first + place, expected_value(cell[0]), rows.get(chunk.first + place))
            for place, cell in enumerate(cells)
        ]
    progress.rows = progress.looked_at


def _with_known(row: Row, records: dict[bytes, RowRecord], retry_failed_before: int) -> Row:
    record = records.get(row.request.digest)
    if record is None or record.history is None:
        return row
    if record.standing is not None:
        return msgspec.structs.replace(row, known=record.known)
    if not record.ended or (record.history.failed and record.history.run < retry_failed_before):
        return row
    return msgspec.structs.replace(
        row, known=((row.request.digest, Reply(record.said, run=record.history.run)),)
    )


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
            msgspec.structs.replace(row, known=record.known)
            for row, record in ended
            if status_of(record) == PENDING
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


T = TypeVar("T", Row, Candidate)


def in_random_order(
    chunks: Iterator[list[Row]], seed: int, rows_in_a_chunk: int = ROWS_IN_A_CHUNK
) -> Generator[list[Row], None, None]:
    """The same rows in ascending order of a keyed hash of their row's index.

    The place of a row among the others depends on the seed and its index alone, so that an
    interrupted run goes on in the same order. A row takes some 24 bytes of memory.
    """
    key = key_of(seed)
    places = array("Q")

    def placed() -> Iterator[list[Row]]:
        for chunk in chunks:
            places.extend(place_of(row.index, key) for row in chunk)
            yield chunk

    return in_order(placed(), Row, lambda: _positions(places), rows_in_a_chunk)


def random_order_of(job: Job) -> dict[str, Any]:
    """What the seeded random order of a job's rows depends on, as the journal keeps it with a run."""
    evaluation = job.evaluation if asks_in_random_order(job) else None
    return {
        "order": "random",
        "seed": job.output.seed,
        "cluster": None if evaluation is None else evaluation.cluster,
        "stratify": None if evaluation is None else evaluation.stratify,
    }


def in_given_order(
    chunks: Iterator[list[Row]], indexes: Sequence[int], rows_in_a_chunk: int
) -> Generator[list[Row], None, None]:
    """Those rows whose index is among `indexes`, in their order."""
    places = {index: place for place, index in enumerate(indexes)}
    found: list[int] = []

    def wanted() -> Iterator[list[Row]]:
        for chunk in chunks:
            rows = [row for row in chunk if row.index in places]
            found.extend(places[row.index] for row in rows)
            yield rows

    return in_order(wanted(), Row, lambda: sorted(range(len(found)), key=found.__getitem__), rows_in_a_chunk)


def in_order(
    chunks: Iterator[list[T]],
    kind: type[T],
    order: Callable[[], Iterable[int]],
    rows_in_a_chunk: int = ROWS_IN_A_CHUNK,
) -> Generator[list[T], None, None]:
    """The items of all chunks in another order: that of `order`, positions, called when all have been read.

    They wait in a temporary file; one takes 8 bytes of memory. Empty chunks come while `chunks` are read,
    so that whoever asks for the next one can stop in between.
    """
    offsets = array("Q")
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            for item in chunk:
                offsets.append(file.tell())
                file.write(msgspec.msgpack.encode(item))
            yield []
        offsets.append(file.tell())
        positions = iter(order())
        while part := list(islice(positions, rows_in_a_chunk)):
            shuffled = []
            for position in part:
                file.seek(offsets[position])
                encoded = file.read(offsets[position + 1] - offsets[position])
                shuffled.append(msgspec.msgpack.decode(encoded, type=kind))
            yield shuffled


def _positions(places: "array[int]") -> Iterator[int]:
    """The positions in ascending order of their places, without a Python object for each."""
    import pyarrow.compute as pc  # only here, since it takes 0.05 s

    values = pa.Array.from_buffers(pa.uint64(), len(places), [None, pa.py_buffer(places)])
    order = pc.sort_indices(values)
    for start in range(0, len(order), ROWS_IN_A_CHUNK):
        yield from order[start : start + ROWS_IN_A_CHUNK].to_pylist()
