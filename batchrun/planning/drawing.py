"""Which rows are drawn at random: the first of the order in which random runs ask."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from batchrun.evaluation.places import key_of, place_of
from batchrun.job import asks_in_random_order
from batchrun.journal import Journal
from batchrun.pending import random_order_of
from batchrun.row_records import RowRecord
from batchrun.workload import Workload


class RowSpend(NamedTuple):
    """What a row has taken that has come to its end, with all its requests; what is uncertain counts.

    `nano_usd` is None where the cost of an answer is unknown. `milliseconds` is the time of its answers.
    """

    nano_usd: int | None
    input_tokens: int
    output_tokens: int
    milliseconds: float
    requests: int


class Drawn(NamedTuple):
    """A row of the draw, by its index in the input. `spend` is None as long as it has not come to its end.

    `duplicate`: an earlier row has the same request, and bears the cost.
    """

    place: int
    row: int
    spend: RowSpend | None
    duplicate: bool
    cluster: int


@dataclass(frozen=True)
class RandomOrder:
    """`place` says where a row stands among all others, by its index; `cluster` to which cluster it belongs.

    `rows_alone`: a request is drawn by its first row alone, so that each has the same chance. An evaluation
    draws rows instead, with the requests that they share. `drawn` is what the journal keeps of it.
    """

    place: Callable[[int], int]
    rows_alone: bool
    drawn: dict[str, Any]
    cluster: Callable[[int], int] | None = None


class Draw:
    """The first `most` of the rows that are added, by their places. Some 200 bytes for each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, Drawn]] = []

    def wants(self, place: int) -> bool:
        return len(self._heap) < self._most or place < -self._heap[0][0]

    def add(self, row: Drawn) -> None:
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (-row.place, row))
        elif self.wants(row.place):
            heapq.heapreplace(self._heap, (-row.place, row))

    def rows(self) -> list[Drawn]:
        """In the order of asking."""
        return sorted(row for _, row in self._heap)

    def sample(self) -> list[Drawn]:
        """The rows up to the first that has not come to its end: a random sample of all that may be added."""
        rows = self.rows()
        ended = next((place for place, row in enumerate(rows) if row.spend is None), len(rows))
        return [row for row in rows[:ended] if not row.duplicate]


def random_order(workload: Workload) -> RandomOrder:
    """The order in which an evaluation asks, or `output.order = "random"`. Raises InputError."""
    job = workload.job
    if job.evaluation is None or not asks_in_random_order(job):
        key = key_of(job.output.seed)
        return RandomOrder(lambda index: place_of(index, key), rows_alone=True, drawn=random_order_of(job))
    import numpy as np

    from batchrun.sampling.frame import sampling_frame, sampling_plan

    frame = sampling_frame(workload)
    ranks = np.empty(frame.order.size, np.int64)
    ranks[frame.order] = np.arange(frame.order.size)
    codes = frame.groups.codes
    return RandomOrder(
        lambda index: int(ranks[index]),
        rows_alone=False,
        drawn=sampling_plan(workload, frame),
        cluster=(lambda index: int(codes[index])) if job.evaluation.cluster else None,
    )


def random_runs(workload: Workload, journal: Journal) -> frozenset[int]:
    """The numbers of the runs that have drawn their rows in the order that the job has now."""
    order = random_order_of(workload.job)
    notes = {run: msgspec.json.decode(note) for run, note in journal.samplings().items()}
    return frozenset(run for run, note in notes.items() if {key: note.get(key) for key in order} == order)


def spend_of(record: RowRecord) -> RowSpend | None:
    history = record.history
    if history is None or not record.ended:
        return None
    unpriced = history.answer is not None and history.nano_usd is None
    answers = sum(reply.text is not None for _, reply in record.known) if record.standing else 1
    return RowSpend(
        None if unpriced else (history.nano_usd or 0) + history.uncertain_nano_usd,
        history.input_tokens or 0,
        history.output_tokens or 0,
        (history.latency_ms or 0.0) * answers,
        history.attempts,
    )
