"""The rows of a job, counted by what the journal knows of them; what those to be sent can cost at most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrun.amounts import NOTHING, Amount
from batchrun.journal import Journal
from batchrun.labelling import Labelling
from batchrun.occurrences import OccurrenceCounter
from batchrun.output_columns import FAILED, OK, PENDING, status_of
from batchrun.planning.drawing import Draw, Drawn, RandomOrder, RowSpend, spend_of
from batchrun.pricing import Tariff
from batchrun.prompts import InvalidRow, Request
from batchrun.row_records import RowRecord, row_records
from batchrun.tables.python_rows import python_values
from batchrun.workload import Chunk, Workload

if TYPE_CHECKING:
    from batchrun.sampling.sample import SampleTally

NO_SPEND = RowSpend(0, 0, 0, 0.0, 0)
BYTES_PER_TOKEN = 4
"""The guess before any answer."""


@dataclass
class Counts:
    """`by_status` counts requests once, by the statuses of the output; `unsendable` rows have none.

    `to_send` are rows, `half_done` those of them that have asked for something already. `requests` are those
    that they take for sure, with `input_guess` and `output_bound` tokens; `requests_at_most` cost `worst`.
    `dearest_row` and `dearest_request` are worst cases in nano-USD. `spent` has the sums over the rows of a
    job with labels that have come to their end.
    """

    total: int = 0
    duplicates: int = 0
    unsendable: int = 0
    half_done: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    requests_at_most: int = 0
    input_guess: int = 0
    output_bound: int = 0
    worst: Amount = NOTHING
    dearest_row: int = 0
    dearest_request: int = 0
    first: Request | None = None
    spent: RowSpend = NO_SPEND

    @property
    def to_send(self) -> int:
        return self.by_status[PENDING]

    def add(
        self, worst: Amount, dearest: Amount, requests: int, at_most: int, input_guess: int, output_bound: int
    ) -> None:
        """Adds a row to be sent: its worst case, that of its dearest request, and what it takes for sure."""
        self.worst = self.worst.plus(worst)
        self.dearest_row = max(self.dearest_row, worst.nano_usd)
        self.dearest_request = max(self.dearest_request, dearest.nano_usd)
        self.requests += requests
        self.requests_at_most += at_most
        self.input_guess += input_guess
        self.output_bound += output_bound


@dataclass
class RowCounter:
    """Counts chunk by chunk; fills a draw where there is one, and the tally of an evaluation.

    `random_runs` are the runs whose rows may stand in the draw: what other runs have asked for is no random
    part of the rows.
    """

    workload: Workload
    journal: Journal | None
    tariff: Tariff
    order: RandomOrder | None = None
    draw: Draw = field(default_factory=lambda: Draw(0))
    random_runs: frozenset[int] = frozenset()
    tally: "SampleTally | None" = None
    counts: Counts = field(default_factory=Counts)
    _occurrences: OccurrenceCounter = field(default_factory=OccurrenceCounter)

    def count(self) -> Counts:
        """Reads the whole input. Raises InputError, JournalError."""
        evaluation = self.workload.job.evaluation
        column = None if evaluation is None or self.tally is None else evaluation.expected
        for chunk in self.workload.chunks([] if column is None else [column]):
            cells = None if column is None else python_values(column, chunk.batch.column(column))
            self._count_chunk(chunk, cells)
        return self.counts

    def _count_chunk(self, chunk: Chunk, expected: Sequence[Any] | None) -> None:
        requests = [request for request in chunk.requests if isinstance(request, Request)]
        self.counts.total += len(chunk.requests)
        self.counts.unsendable += len(chunk.requests) - len(requests)
        known = self._look_up(requests)
        unseen = self._occurrences.add(tuple({request.digest for request in requests}))
        drawn: list[tuple[int, Request, bool]] = []
        for offset, request in enumerate(chunk.requests):
            record: RowRecord | InvalidRow | None = None
            duplicate = False
            if isinstance(request, InvalidRow):
                record = request
            else:
                duplicate = request.digest not in unseen
                unseen.discard(request.digest)
                status = known.statuses.get(request.digest, PENDING)
                record = known.records.get(request.digest)
                self._count_row(request, status, record, duplicate)
                if self.order is not None and self._may_draw(chunk.first + offset, status, duplicate):
                    drawn.append((chunk.first + offset, request, duplicate))
            if self.tally is not None and expected is not None:
                self.tally.add(record, expected[offset], duplicate)
        if self.order is not None and drawn:
            self._draw(self.order, drawn, known)

    def _count_row(self, request: Request, status: str, record: RowRecord | None, duplicate: bool) -> None:
        counts, labelling = self.counts, self.workload.labelling
        if duplicate:
            counts.duplicates += 1
            return
        counts.by_status[status] += 1
        if status != PENDING:
            if record is not None:
                counts.spent = _plus(counts.spent, spend_of(record))
            return
        counts.first = counts.first or request
        if labelling is None:
            worst = self.tariff.worst_case(request.input_bound, request.output_bound or 0)
            counts.add(worst, worst, 1, 1, _input_guess(request), request.output_bound or 0)
        else:
            _add_labelled(counts, request, self.tariff, labelling, record)

    def _may_draw(self, index: int, status: str, duplicate: bool) -> bool:
        if self.order is None or (duplicate and self.order.rows_alone):
            return False
        if status != PENDING and not self.random_runs:
            return False
        return self.draw.wants(self.order.place(index))

    def _draw(self, order: RandomOrder, rows: Sequence[tuple[int, Request, bool]], known: "_Known") -> None:
        records = known.records
        if self.journal is not None and not self._by_records:
            ended = [request for _, request, _ in rows if request.digest in known.statuses]
            records = row_records(ended, self.journal, None)
        for index, request, duplicate in rows:
            spend = None
            if known.statuses.get(request.digest, PENDING) != PENDING:
                record = records[request.digest]
                spend = spend_of(record)
                if record.history is None or record.history.run not in self.random_runs:
                    continue
            cluster = -1 if order.cluster is None else order.cluster(index)
            self.draw.add(Drawn(order.place(index), index, spend, duplicate, cluster))

    @property
    def _by_records(self) -> bool:
        """Whether it takes the record of a row to say where it stands."""
        return self.workload.labelling is not None or self.tally is not None

    def _look_up(self, requests: Sequence[Request]) -> "_Known":
        if self.journal is None:
            return _Known({}, {})
        if self._by_records:
            records = row_records(requests, self.journal, self.workload.labelling)
            return _Known({digest: status_of(record) for digest, record in records.items()}, records)
        settled = self.journal.settled_digests(tuple({request.digest for request in requests}))
        return _Known({digest: FAILED if failed else OK for digest, failed in settled.items()}, {})


@dataclass(frozen=True, slots=True)
class _Known:
    """What the journal knows of rows, by the digest of their requests; without a status, a row is pending."""

    statuses: dict[bytes, str]
    records: dict[bytes, RowRecord]


def _add_labelled(
    counts: Counts, request: Request, tariff: Tariff, labelling: Labelling, record: RowRecord | None
) -> None:
    """Adds a row that takes votes and repairs; of one that is half done, what it still takes."""
    output_bound = request.output_bound or 0
    worst, dearest = _worst_of_row(request, tariff, labelling)
    if record is None or record.standing is None or not record.known:
        sure = labelling.first_requests
        counts.add(
            worst, dearest, sure, labelling.most_requests, sure * _input_guess(request), sure * output_bound
        )
        return
    counts.half_done += 1
    base = tariff.worst_case(request.input_bound, output_bound)
    for _ in record.known:
        worst = worst.minus(base)  # none of its requests has a lower worst case
    open_requests = record.standing.open
    sure = len(open_requests)
    at_most = max(sure, labelling.most_requests - len(record.known))
    counts.add(worst, dearest, sure, at_most, sum(map(_input_guess, open_requests)), sure * output_bound)


def _worst_of_row(request: Request, tariff: Tariff, labelling: Labelling) -> tuple[Amount, Amount]:
    """What the row of a request can cost at most, and its dearest request: the last repair."""
    longer, output_bound = labelling.most_tokens_of_repair, request.output_bound or 0
    row = dearest = NOTHING
    for repairs in range(labelling.repair + 1):
        dearest = tariff.worst_case(request.input_bound + repairs * longer, output_bound)
        for _ in range(labelling.votes):
            row = row.plus(dearest)
    return row, dearest


def _input_guess(request: Request) -> int:
    # An image has far fewer tokens than bytes: the bound, which counts it as an image, says how few.
    return min(len(request.body) // BYTES_PER_TOKEN, request.input_bound)


def _plus(sums: RowSpend, row: RowSpend | None) -> RowSpend:
    if row is None:
        return sums
    unpriced = sums.nano_usd is None or row.nano_usd is None
    return RowSpend(
        None if unpriced else (sums.nano_usd or 0) + (row.nano_usd or 0),
        sums.input_tokens + row.input_tokens,
        sums.output_tokens + row.output_tokens,
        sums.milliseconds + row.milliseconds,
        sums.requests + row.requests,
    )
