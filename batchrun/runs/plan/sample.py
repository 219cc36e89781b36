"""Random draws of rows: the first rows of the order in which random runs send."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from batchrun.job.spec import asks_in_random_order
from batchrun.journal import Journal
from batchrun.rows.dataset import Dataset
from batchrun.rows.history import RowHistory
from batchrun.rows.ordering import key_of, sort_key
from batchrun.rows.selection import random_order_of


class RowSpend(NamedTuple):
    """The use of an ended row with all its requests; uncertain spend counts.

    `nano_usd` is None if the cost of a response is unknown. `milliseconds` is the time of its responses.
    """

    nano_usd: int | None
    input_tokens: int
    output_tokens: int
    milliseconds: float
    requests: int


class SampledRow(NamedTuple):
    """A row of the draw, by its index in the input. `spend` is None until it has ended.

    `duplicate`: an earlier row has the same request and the cost. `size` is its request's length in bytes.
    """

    place: int
    row: int
    spend: RowSpend | None
    duplicate: bool
    cluster: int
    size: int = 0


@dataclass(frozen=True)
class RandomOrder:
    """`place` returns a row's position in the order, by its index; `cluster` the cluster that it belongs to.

    `rows_alone`: a request is drawn by its first row alone, so that each has the same chance. An evaluation
    draws rows instead, with the requests that they share. `drawn` is what the journal keeps of it.
    """

    place: Callable[[int], int]
    rows_alone: bool
    drawn: dict[str, Any]
    cluster: Callable[[int], int] | None = None


class BottomKSample:
    """The first `most` of the rows that are added, by their places. Some 200 bytes for each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, SampledRow]] = []

    def wants(self, place: int) -> bool:
        return len(self._heap) < self._most or place < -self._heap[0][0]

    def add(self, row: SampledRow) -> None:
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (-row.place, row))
        elif self.wants(row.place):
            heapq.heapreplace(self._heap, (-row.place, row))

    def rows(self) -> list[SampledRow]:
        """Returns the rows in sending order."""
        return sorted(row for _, row in self._heap)

    def sample(self) -> list[SampledRow]:
        """Returns the rows up to the first that has not ended: a random sample of all that may be added."""
        rows = self.rows()
        ended = next((place for place, row in enumerate(rows) if row.spend is None), len(rows))
        return [row for row in rows[:ended] if not row.duplicate]


def random_order(dataset: Dataset) -> RandomOrder:
    """Returns the order in which an evaluation, or `output.order = "random"`, sends. Raises InputError."""
    job = dataset.job
    if job.evaluation is None or not asks_in_random_order(job):
        key = key_of(job.output.seed)
        return RandomOrder(lambda index: sort_key(index, key), rows_alone=True, drawn=random_order_of(job))
    import numpy as np

    from batchrun.evaluation.frame import sampling_frame, sampling_plan

    frame = sampling_frame(dataset)
    ranks = np.empty(frame.order.size, np.int64)
    ranks[frame.order] = np.arange(frame.order.size)
    codes = frame.groups.codes
    return RandomOrder(
        lambda index: int(ranks[index]),
        rows_alone=False,
        drawn=sampling_plan(dataset, frame),
        cluster=(lambda index: int(codes[index])) if job.evaluation.cluster else None,
    )


def random_runs(dataset: Dataset, journal: Journal) -> frozenset[int]:
    """Returns the numbers of the runs that drew their rows in the job's current order."""
    order = random_order_of(dataset.job)
    notes = {run: msgspec.json.decode(note) for run, note in journal.samplings().items()}
    return frozenset(run for run, note in notes.items() if {key: note.get(key) for key in order} == order)


def spend_of(record: RowHistory) -> RowSpend | None:
    history = record.history
    if history is None or not record.result.ended:
        return None
    unpriced = history.answer is not None and history.nano_usd is None
    answers = sum(completion.text is not None for _, completion in record.known) if record.state else 1
    return RowSpend(
        None if unpriced else (history.nano_usd or 0) + history.uncertain_nano_usd,
        history.input_tokens or 0,
        history.output_tokens or 0,
        (history.latency_ms or 0.0) * answers,
        history.attempts,
    )
