"""Counts a job's rows by their state in the journal; bounds the cost of the rows to send."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchrun.amounts import NOTHING, Amount
from batchrun.client.builder import InvalidRow
from batchrun.client.request import Request
from batchrun.engine.pricing import PriceList
from batchrun.journal import Journal
from batchrun.rows.chunks import Chunk
from batchrun.rows.dataset import Dataset
from batchrun.rows.duplicates import OccurrenceCounter
from batchrun.rows.history import RowHistory, row_histories, with_caps_seen
from batchrun.rows.labelling import Labelling
from batchrun.rows.result import FAILED, INVALID, PENDING
from batchrun.rows.scratch import scratch_folder
from batchrun.rows.unsendable import UnsendableRows
from batchrun.runs.caching import CacheTally
from batchrun.runs.plan.ended_rows import EndedRows
from batchrun.runs.plan.sample import BottomKSample, RandomOrder, SampledRow, spend_of
from batchrun.runs.plan.shown import ShownRequests

if TYPE_CHECKING:
    from batchrun.evaluation.sample import SampleTally

BYTES_PER_TOKEN = 4
"""The guess before any answer."""


@dataclass
class Counts:
    """`by_status` counts requests once, by the statuses of the output; `unsendable` rows have none.

    `to_send` are rows; `in_progress` of them have sent requests already. `requests` is the number that they
    take for sure, with `input_guess` and `output_bound` tokens; `requests_at_most` cost `worst`, and
    `worst_unrepaired` in nano-USD where no answer needs a repair. `worst_row`
    and `worst_request` are worst cases in nano-USD, `worst_first` is that of a row of several requests which
    needs no repair. `reasons` says why rows failed or are invalid, as a summary does. `size_to_send` is the
    length in bytes of the first requests of the rows to send, `ended` sums over the rows that have ended,
    `cached` what the cache has done for rows that mark parts of their prompts.
    """

    total: int = 0
    duplicates: int = 0
    unsendable: UnsendableRows = field(default_factory=UnsendableRows)
    in_progress: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    requests_at_most: int = 0
    input_guess: int = 0
    output_bound: int = 0
    worst: Amount = NOTHING
    worst_unrepaired: int = 0
    worst_row: int = 0
    worst_request: int = 0
    worst_first: int = 0
    first: Request | None = None
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    size_to_send: int = 0
    ended: EndedRows = field(default_factory=EndedRows)
    cached: CacheTally = field(default_factory=CacheTally)

    @property
    def to_send(self) -> int:
        return self.by_status[PENDING]

    def add_reason(self, code: str | None, row: int) -> None:
        """Counts a row that failed or is invalid; None: it didn't, and isn't."""
        if code is not None:
            reason = self.reasons.setdefault(code, {"rows": 0, "example": row})
            reason["rows"] += 1

    def add(
        self,
        worst: Amount,
        highest: Amount,
        requests: int,
        at_most: int,
        input_guess: int,
        output_bound: int,
        unrepaired: int,
    ) -> None:
        """Adds a row to be sent: its worst case, its most expensive request, its certain needs; `unrepaired`
        is the worst case in nano-USD of the requests that it takes without repairs."""
        self.worst = self.worst.plus(worst)
        self.worst_unrepaired += unrepaired
        self.worst_row = max(self.worst_row, worst.nano_usd)
        self.worst_request = max(self.worst_request, highest.nano_usd)
        self.requests += requests
        self.requests_at_most += at_most
        self.input_guess += input_guess
        self.output_bound += output_bound

    def add_alike(self, rows: int, worst: Amount, output_bound: int) -> None:
        """Adds rows to be sent that take one request each, all of the same worst case. Their `input_guess` is
        added by the caller."""
        self.worst = self.worst.plus(worst.times(rows))
        self.worst_unrepaired += rows * worst.nano_usd
        self.worst_row = max(self.worst_row, worst.nano_usd)
        self.worst_request = max(self.worst_request, worst.nano_usd)
        self.requests += rows
        self.requests_at_most += rows
        self.output_bound += rows * output_bound


@dataclass
class RowCounter:
    """Counts chunk by chunk; fills a draw where there is one, and the tally of an evaluation.

    `random_runs` are the runs whose rows may be in the draw: rows of other runs are not a random part of all.
    """

    dataset: Dataset
    journal: Journal | None
    price_list: PriceList
    order: RandomOrder | None = None
    draw: BottomKSample = field(default_factory=lambda: BottomKSample(0))
    random_runs: frozenset[int] = frozenset()
    tally: "SampleTally | None" = None
    shown: ShownRequests = field(default_factory=lambda: ShownRequests(0, 0))
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._occurrences = OccurrenceCounter(scratch_folder(self.dataset.job))

    @cached_property
    def _labelling(self) -> Labelling:
        labelling = self.dataset.labelling
        return labelling if self.journal is None else with_caps_seen(labelling, self.journal)

    def count(self) -> Counts:
        """Reads the whole input. Raises InputError, JournalError."""
        evaluation = self.dataset.job.evaluation
        column = None if evaluation is None or self.tally is None else evaluation.expected
        for chunk in self.dataset.chunks([] if column is None else [column], self.journal):
            cells = None if column is None else self.dataset.table.template_values(column, chunk.cells)
            self._count_chunk(chunk, cells)
        return self.counts

    def _count_chunk(self, chunk: Chunk, expected: Sequence[Any] | None) -> None:
        requests = chunk.sendable
        self.counts.total += len(chunk.requests)
        self.counts.unsendable.add(chunk.requests)
        known = self._look_up(requests)
        unseen = self._occurrences.add(tuple({request.digest for request in requests}))
        if not known.statuses and self._needs_sums_alone:
            self._count_new(requests, unseen)
            return
        drawn: list[tuple[int, Request, bool]] = []
        for offset, request in enumerate(chunk.requests):
            record: RowHistory | InvalidRow | None = None
            duplicate = False
            if isinstance(request, InvalidRow):
                record = request
            else:
                duplicate = request.digest not in unseen
                unseen.discard(request.digest)
                status = known.statuses.get(request.digest, PENDING)
                record = known.records.get(request.digest)
                self._count_row(request, status, record, duplicate)
                if not duplicate:
                    self.counts.add_reason(known.reasons.get(request.digest), chunk.first + offset + 1)
                    self.counts.cached.add(request.cached, record)
                    if status == PENDING:
                        self.shown.add(chunk.first + offset, request)
                if self.order is not None and self._may_draw(chunk.first + offset, status, duplicate):
                    drawn.append((chunk.first + offset, request, duplicate))
            if self.tally is not None and expected is not None:
                self.tally.add(record, expected[offset], duplicate)
        if self.order is not None and drawn:
            self._draw(self.order, drawn, known)

    @cached_property
    def _needs_sums_alone(self) -> bool:
        """Returns whether rows to send are only summed up, and take one request each."""
        return self.order is None and self.tally is None and not self.shown.most and not self._takes_several

    def _count_new(self, requests: Sequence[Request], unseen: set[bytes]) -> None:
        """Does what `_count_row` does, for requests of which the journal knows none: bound by bound."""
        first_of: dict[bytes, Request] = {}
        for request in requests:
            first_of.setdefault(request.digest, request)
        new = [request for digest, request in first_of.items() if digest in unseen]
        counts = self.counts
        counts.duplicates += len(requests) - len(new)
        counts.by_status[PENDING] += len(new)
        counts.first = counts.first or next(iter(new), None)
        counts.size_to_send += sum(map(_size, new))
        counts.input_guess += sum(map(_input_guess, new))
        bounds = Counter((request.input_bound, request.output_bound or 0, request.cached) for request in new)
        for (input_bound, output_bound, cached), rows in bounds.items():
            worst = self.price_list.worst_case(input_bound, output_bound, cached)
            counts.add_alike(rows, worst, output_bound)

    def _count_row(self, request: Request, status: str, record: RowHistory | None, duplicate: bool) -> None:
        counts = self.counts
        if duplicate:
            counts.duplicates += 1
            return
        counts.by_status[status] += 1
        if status != PENDING:
            spend = None if record is None else spend_of(record)
            if spend is not None:
                counts.ended.add(_size(request), spend)
            return
        counts.first = counts.first or request
        counts.size_to_send += _size(request)
        if not self._takes_several:
            output_bound = request.output_bound or 0
            worst = self.price_list.worst_case(request.input_bound, output_bound, request.cached)
            counts.add(worst, worst, 1, 1, _input_guess(request), output_bound, worst.nano_usd)
        else:
            _add_labelled(counts, request, self.price_list, self._labelling, record)

    def _may_draw(self, index: int, status: str, duplicate: bool) -> bool:
        if self.order is None or (duplicate and self.order.rows_alone):
            return False
        if status != PENDING and not self.random_runs:
            return False
        return self.draw.wants(self.order.place(index))

    def _draw(self, order: RandomOrder, rows: Sequence[tuple[int, Request, bool]], known: "_Known") -> None:
        for index, request, duplicate in rows:
            spend = None
            if known.statuses.get(request.digest, PENDING) != PENDING:
                record = known.records[request.digest]
                spend = spend_of(record)
                if record.history is None or record.history.run not in self.random_runs:
                    continue
            cluster = -1 if order.cluster is None else order.cluster(index)
            self.draw.add(SampledRow(order.place(index), index, spend, duplicate, cluster, _size(request)))

    @cached_property
    def _takes_several(self) -> bool:
        """Returns whether a row may take more than one request."""
        return self._labelling.labelled or self._labelling.follows_up

    def _look_up(self, requests: Sequence[Request]) -> "_Known":
        if self.journal is None:
            return _Known({}, {}, {})
        if self._takes_several or self.tally is not None:  # then a row's state needs its record
            records = row_histories(requests, self.journal, self._labelling)
            return _Known(_statuses(records), records, _reasons(records))
        settled = self.journal.settled_digests(tuple({request.digest for request in requests}))
        # Only the response says whether it is a whole answer, and the attempt why there is none.
        ended = [one for one in requests if one.digest in settled]
        records = row_histories(ended, self.journal, self._labelling)
        failed = dict.fromkeys((digest for digest, has_failed in settled.items() if has_failed), FAILED)
        return _Known(_statuses(records) | failed, records, _reasons(records))


def _statuses(records: dict[bytes, RowHistory]) -> dict[bytes, str]:
    return {digest: record.result.status for digest, record in records.items()}


def _reasons(records: dict[bytes, RowHistory]) -> dict[bytes, str]:
    """Returns the `error_code` of rows that failed or are invalid."""
    flawed = {
        digest: record for digest, record in records.items() if record.result.status in (FAILED, INVALID)
    }
    return {
        digest: record.result.flaw or (record.history and record.history.error_code) or "unknown"
        for digest, record in flawed.items()
    }


@dataclass(frozen=True, slots=True)
class _Known:
    """The journal's data about rows, by their requests' digests; a row without a status is pending."""

    statuses: dict[bytes, str]
    records: dict[bytes, RowHistory]
    reasons: dict[bytes, str]


def _add_labelled(
    counts: Counts, request: Request, price_list: PriceList, labelling: Labelling, record: RowHistory | None
) -> None:
    """Adds a row that takes votes and repairs; of a half-done row, only the remaining requests."""
    output_bound = request.output_bound or 0
    worst, highest = _worst_of_row(request, price_list, labelling)
    base = price_list.worst_case(request.input_bound, output_bound, request.cached)
    counts.worst_first = max(counts.worst_first, labelling.votes * base.nano_usd)
    if record is None or record.state is None or not record.known:
        sure = labelling.first_requests
        counts.add(
            worst,
            highest,
            sure,
            labelling.most_requests,
            sure * _input_guess(request),
            sure * output_bound,
            labelling.votes * base.nano_usd,
        )
        return
    counts.in_progress += 1
    for _ in record.known:
        worst = worst.minus(base)  # none of its requests has a lower worst case
    open_requests = record.state.open
    sure = len(open_requests)
    at_most = max(sure, labelling.most_requests - len(record.known))
    counts.add(
        worst,
        highest,
        sure,
        at_most,
        sum(map(_input_guess, open_requests)),
        sure * output_bound,
        sure * base.nano_usd,
    )


def _worst_of_row(request: Request, price_list: PriceList, labelling: Labelling) -> tuple[Amount, Amount]:
    """Returns a row's worst case, and that of its most expensive request: the last repair."""
    output_bound = max(request.output_bound or 0, *labelling.raises, 0)
    longer = labelling.most_tokens_of_repair(output_bound)
    row = highest = NOTHING
    for number in range(labelling.most_requests // labelling.votes):
        longest = request.input_bound + min(number, labelling.repair) * longer
        highest = price_list.worst_case(longest, output_bound, request.cached)
        for _ in range(labelling.votes):
            row = row.plus(highest)
    return row, highest


def _input_guess(request: Request) -> int:
    return min(len(request.body) // BYTES_PER_TOKEN, request.input_bound)


def _size(request: Request) -> int:
    # An image has far fewer tokens than bytes; the bound counts it as an image.
    return min(len(request.body), BYTES_PER_TOKEN * request.input_bound)
