"""Selects the rows still to send, and their order."""

import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from batchrun.client.request import Request
from batchrun.job.spec import Job, asks_in_random_order
from batchrun.journal import Journal
from batchrun.rows.active import Row
from batchrun.rows.chunks import Chunk
from batchrun.rows.dataset import ROWS_IN_A_CHUNK, Dataset
from batchrun.rows.history import RowHistory, result_of, row_histories, row_histories_by_digest
from batchrun.rows.labelling import Labelling
from batchrun.rows.observer import Observer, RowsScanned
from batchrun.rows.ordering import key_of, sort_key
from batchrun.rows.result import FAILED, PENDING
from batchrun.rows.scratch import storing_in
from batchrun.tables.python_rows import expected_value


@dataclass(frozen=True, slots=True)
class SampleCandidate:
    """A row that may be drawn for a sample: `row` is None if it can't be sent."""

    index: int
    expected: Any
    row: Row | None


Scanned = tuple[RowsScanned, list[Row]]
"""More rows of the input: what has become of them, and those still to send."""

Pending = Callable[[Chunk], tuple[list[Row], int]]
"""Returns a chunk's rows still to send, and how many of the others have failed."""


def pending_rows(
    dataset: Dataset,
    journal: Journal,
    observer: Observer,
    labelling: Labelling,
) -> Generator[list[Row], None, None]:
    """Yields the rows that have not ended, in input order.

    A row that has failed permanently is left out too, unless `labelling` sends it again. A request may occur
    more than once: its rows share one response.
    """
    return reported(scan(dataset, journal, labelling), observer)


def scan(dataset: Dataset, journal: Journal, labelling: Labelling) -> Generator[Scanned, None, None]:
    """Yields what `pending_rows` does, with the counts that its observer hears."""
    unsettled = _without_verdict(journal, labelling) if labelling.follows_up else _unanswered(journal)
    for chunk in dataset.chunks([], journal):
        pending, failed = unsettled(chunk)
        rows, unsendable = len(chunk.digests), chunk.digests.count(None)
        answered = rows - unsendable - len(pending) - failed
        yield RowsScanned(rows, unsendable, answered, failed), pending


def reported(scanned: Iterator[Scanned], observer: Observer) -> Generator[list[Row], None, None]:
    """Yields the rows of a scan, and tells the observer what has been scanned."""
    rows = 0
    for counts, pending in scanned:
        observer.rows_scanned(counts)
        rows += counts.rows
        yield pending
    observer.rows_counted(rows)


def candidates(
    dataset: Dataset,
    journal: Journal,
    observer: Observer,
    labelling: Labelling,
) -> Iterator[list[SampleCandidate]]:
    """Yields all rows in input order, with the journal's record and the expected value of each."""
    evaluation = dataset.job.evaluation
    expected = [] if evaluation is None else [evaluation.expected]
    scanned = 0
    for chunk in dataset.chunks(expected, journal):
        cells = dataset.table.template_rows(chunk.cells, expected)
        sendable = _sendable(chunk)
        records = row_histories([row.request for row in sendable], journal, labelling)
        rows = {row.index: _with_known(row, records) for row in sendable}
        # The others are sent, including failed ones if they are to be sent again.
        known = [row for row in sendable if rows[row.index].known]
        statuses = [result_of(records.get(row.request.digest)).status for row in known]
        failed = statuses.count(FAILED)
        answered = len(statuses) - failed - statuses.count(PENDING)
        unsendable = len(chunk.requests) - len(sendable)
        observer.rows_scanned(RowsScanned(len(chunk.requests), unsendable, answered, failed))
        scanned += len(chunk.requests)
        yield [
            SampleCandidate(chunk.first + place, expected_value(cell[0]), rows.get(chunk.first + place))
            for place, cell in enumerate(cells)
        ]
    observer.rows_counted(scanned)


def _with_known(row: Row, records: dict[bytes, RowHistory]) -> Row:
    record = records.get(row.request.digest)
    if record is None:
        return row
    if record.state is not None:
        return msgspec.structs.replace(row, known=record.known)
    end = record.result.completion
    return row if end is None else msgspec.structs.replace(row, known=((row.request.digest, end),))


def _sendable(chunk: Chunk) -> list[Row]:
    return [
        Row(chunk.first + position, request)
        for position, request in enumerate(chunk.requests)
        if isinstance(request, Request)
    ]


def _unanswered(journal: Journal) -> Pending:
    """Selects among rows that take one request and are not sent again after a permanent failure."""
    known = SettledDigests(journal)

    def pending(chunk: Chunk) -> tuple[list[Row], int]:
        digests = chunk.sendable_digests
        distinct = set(digests)
        settled = known.among(distinct)
        failed = sum(map(settled.get, digests, repeat(False))) if True in settled.values() else 0
        if len(settled) == len(distinct):
            return [], failed
        return [row for row in _sendable(chunk) if row.request.digest not in settled], failed

    return pending


def _without_verdict(journal: Journal, labelling: Labelling) -> Pending:
    """Selects among rows that may take several requests: their responses say whether they have ended."""

    def pending(chunk: Chunk) -> tuple[list[Row], int]:
        digests = chunk.sendable_digests
        records = row_histories_by_digest(digests, lambda: chunk.sendable, journal, labelling)
        statuses = {digest: record.result.status for digest, record in records.items()}
        failed = sum(statuses[digest] == FAILED for digest in digests)
        if PENDING not in statuses.values():
            return [], failed
        return [
            msgspec.structs.replace(row, known=records[row.request.digest].known)
            for row in _sendable(chunk)
            if statuses[row.request.digest] == PENDING
        ], failed

    return pending


class SettledDigests:
    """The requests that need not be sent: looked up one by one, unless they come in the last run's order.

    Then they are found in the two pages of the journal that are kept, at a tenth of the cost. No
    cursor stays open between pages: it would keep the write-ahead log from being checkpointed.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._attempt = 0
        self._page: dict[bytes, bool] = {}
        self._next_page = self._read_page()

    def among(self, digests: set[bytes]) -> dict[bytes, bool]:
        """Returns the digests that need not be sent, and whether they failed permanently."""
        if digests == self._next_page.keys():
            self._page, self._next_page = self._next_page, self._read_page()
            return self._page
        settled = {digest: self._page[digest] for digest in digests & self._page.keys()}
        newer = digests & self._next_page.keys()
        settled |= {digest: self._next_page[digest] for digest in newer}
        if newer or not settled:
            self._page, self._next_page = self._next_page, self._read_page()
        unknown = tuple(digests - settled.keys())
        return settled | self._journal.settled_digests(unknown) if unknown else settled

    def _read_page(self) -> dict[bytes, bool]:
        self._attempt, page = self._journal.settled_after(self._attempt, ROWS_IN_A_CHUNK)
        return page


T = TypeVar("T", Row, SampleCandidate)


def in_random_order(
    chunks: Iterator[list[Row]], seed: int, rows_in_a_chunk: int, folder: Path
) -> Generator[list[Row], None, None]:
    """Yields the rows in ascending order of a keyed hash of their index.

    The place of a row among the others depends on the seed and its index alone, so that an
    interrupted run continues in the same order. A row takes some 24 bytes of memory.
    """
    key = key_of(seed)
    places = array("Q")

    def placed() -> Iterator[list[Row]]:
        for chunk in chunks:
            places.extend(sort_key(row.index, key) for row in chunk)
            yield chunk

    return in_order(placed(), Row, lambda: _positions(places), rows_in_a_chunk, folder)


def random_order_of(job: Job) -> dict[str, Any]:
    """Returns the inputs of a job's seeded random order, as the journal keeps them with a run."""
    evaluation = job.evaluation if asks_in_random_order(job) else None
    return {
        "order": "random",
        "seed": job.output.seed,
        "cluster": None if evaluation is None else evaluation.cluster,
        "stratify": None if evaluation is None else evaluation.stratify,
    }


def in_given_order(
    chunks: Iterator[list[Row]], indexes: Sequence[int], rows_in_a_chunk: int, folder: Path
) -> Generator[list[Row], None, None]:
    """Yields the rows whose index is in `indexes`, in that order."""
    places = {index: place for place, index in enumerate(indexes)}
    found: list[int] = []

    def wanted() -> Iterator[list[Row]]:
        for chunk in chunks:
            rows = [row for row in chunk if row.index in places]
            found.extend(places[row.index] for row in rows)
            yield rows

    def order() -> list[int]:
        return sorted(range(len(found)), key=found.__getitem__)

    return in_order(wanted(), Row, order, rows_in_a_chunk, folder)


def in_order(
    chunks: Iterator[list[T]],
    kind: type[T],
    order: Callable[[], Iterable[int]],
    rows_in_a_chunk: int,
    folder: Path,
) -> Generator[list[T], None, None]:
    """Yields the items of all chunks in the order of the positions from `order`, called after reading all.

    They wait in a temporary file in `folder`; one takes 8 bytes of memory. Empty chunks come while `chunks`
    are read, so that whoever asks for the next one can stop in between. Raises StorageError.
    """
    offsets = array("Q")
    with storing_in(folder), tempfile.TemporaryFile(dir=folder) as file:
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
    """Yields the positions in ascending order of their places, without a Python object for each."""
    import pyarrow.compute as pc  # only here, since it takes 0.05 s

    values = pa.Array.from_buffers(pa.uint64(), len(places), [None, pa.py_buffer(places)])
    order = pc.sort_indices(values)
    for start in range(0, len(order), ROWS_IN_A_CHUNK):
        yield from order[start : start + ROWS_IN_A_CHUNK].to_pylist()
