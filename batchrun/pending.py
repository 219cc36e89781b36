"""Which requests are still to be asked, and in which order."""

import tempfile
from array import array
from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batchrun.evaluation.places import key_of, place_of
from batchrun.journal import Journal
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.workload import ROWS_IN_A_CHUNK, Workload

IndexedRequest = tuple[int, Request]


def pending_requests(
    workload: Workload, journal: Journal, progress: Progress, retry_failed_before: int = 0
) -> Iterator[list[IndexedRequest]]:
    """The requests without an answer, with the indexes of their rows, in input order.

    A request that failed for good is left out too, unless that was in a run before
    `retry_failed_before`. A request may come up more than once: its rows share one answer.
    """
    rows = 0
    known = _Settled(journal, retry_failed_before)
    for chunk in workload.chunks([]):
        requests = [
            (chunk.first + position, request)
            for position, request in enumerate(chunk.requests)
            if isinstance(request, Request)
        ]
        settled = known.among({request.digest for _, request in requests})
        pending = [(row, request) for row, request in requests if request.digest not in settled]
        failed = sum(settled.get(request.digest, False) for _, request in requests)
        rows += len(chunk.requests)
        progress.looked_at = rows
        progress.invalid += len(chunk.requests) - len(requests)
        progress.failed_before += failed
        progress.answered_before += len(requests) - len(pending) - failed
        yield pending
    progress.rows = rows


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
    chunks: Iterator[list[IndexedRequest]], seed: int, rows_in_a_chunk: int = ROWS_IN_A_CHUNK
) -> Iterator[list[IndexedRequest]]:
    """The same requests in ascending order of a keyed hash of their row's index.

    The place of a row among the others depends on the seed and its index alone, so that an
    interrupted run goes on in the same order. Bodies wait in a temporary file; a row takes some 32
    bytes of memory. Empty chunks come while `chunks` are read, so that whoever asks for the next one
    can stop in between.
    """
    key = key_of(seed)
    places = array("Q")
    offsets = array("Q")
    rows = array("Q")
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            for row, request in chunk:
                rows.append(row)
                offsets.append(file.tell())
                places.append(place_of(row, key))
                file.write(msgspec.msgpack.encode(request))
            yield []
        offsets.append(file.tell())
        order = _order(places)
        for start in range(0, len(order), rows_in_a_chunk):
            shuffled = []
            for position in order[start : start + rows_in_a_chunk].to_pylist():
                file.seek(offsets[position])
                encoded = file.read(offsets[position + 1] - offsets[position])
                shuffled.append((rows[position], msgspec.msgpack.decode(encoded, type=Request)))
            yield shuffled


def _order(places: "array[int]") -> pa.Array:
    """The positions in ascending order of their places, without a Python object for each."""
    values = pa.Array.from_buffers(pa.uint64(), len(places), [None, pa.py_buffer(places)])
    return pc.sort_indices(values)
