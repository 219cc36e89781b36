"""The rows of an evaluation in sending order, and the monitor that follows them."""

from collections.abc import Generator, Iterator

import msgspec

from batchrun.client.request import Request
from batchrun.evaluation.frame import evaluation_of, sampling_frame, sampling_plan
from batchrun.evaluation.monitor import EvaluationMonitor, Spending
from batchrun.job.spec import asks_in_random_order
from batchrun.journal import Journal
from batchrun.rows.active import Row
from batchrun.rows.dataset import Dataset
from batchrun.rows.history import result_of, row_histories
from batchrun.rows.labelling import Labelling
from batchrun.rows.metrics import Metric
from batchrun.rows.observer import Observer
from batchrun.rows.result import RowResult
from batchrun.rows.scratch import scratch_folder
from batchrun.rows.selection import SampleCandidate, candidates, in_order


def drawn_rows(
    dataset: Dataset,
    metric: Metric,
    journal: Journal,
    reader: Journal,
    run: int,
    observer: Observer,
    spending: Spending,
    labelling: Labelling,
) -> tuple[Generator[list[Row], None, None], EvaluationMonitor]:
    """Returns all rows in sending order, which the journal records before the first is sent."""
    frame = sampling_frame(dataset)
    journal.note_sampling(run, msgspec.json.encode(sampling_plan(dataset, frame)).decode())

    def look_up(request: Request) -> RowResult:
        return result_of(row_histories([request], reader, labelling).get(request.digest))

    at_random = asks_in_random_order(dataset.job)
    monitor = EvaluationMonitor(
        frame, evaluation_of(dataset), metric, observer, look_up, spending if at_random else None
    )
    rows = candidates(dataset, reader, observer, labelling)
    if at_random:
        rows = in_order(
            rows, SampleCandidate, lambda: frame.order, dataset.rows_in_a_chunk, scratch_folder(dataset.job)
        )
    return _followed(rows, monitor), monitor


def _followed(
    rows: Iterator[list[SampleCandidate]], monitor: EvaluationMonitor
) -> Generator[list[Row], None, None]:
    for chunk in rows:
        yield monitor.expect(chunk)
