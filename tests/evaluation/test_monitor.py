"""The monitor of an evaluation: what it is told in which thread."""

from pathlib import Path

import numpy as np

from batchrun.client.request import Request
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.monitor import EvaluationMonitor
from batchrun.evaluation.statistics.sampling_order import Groups
from batchrun.exchange import Completion
from batchrun.job.evaluation import EarlyStop, Evaluation
from batchrun.rows.active import Row
from batchrun.rows.metrics import make_metric
from batchrun.rows.observer import Observer
from batchrun.rows.result import OK, PENDING_ROW, RowResult
from batchrun.rows.selection import SampleCandidate


def test_it_stops_the_run_where_rows_end_and_not_where_they_are_read(tmp_path: Path) -> None:
    """A row that can't be sent completes the first of 30 clusters, after which enough is known."""
    groups = Groups(np.repeat(np.arange(30, dtype=np.int32), 2), [f"author {n}" for n in range(30)])
    frame = SamplingFrame(np.arange(60), np.ones(60, np.bool_), groups)
    evaluation = Evaluation(
        expected="gold", metric="exact", cluster="author", stop=EarlyStop(half_width=0.495)
    )
    metric = make_metric(evaluation, tmp_path)
    monitor = EvaluationMonitor(frame, evaluation, metric, Observer(), lambda _: PENDING_ROW, None)
    first, third = (Request(b"", bytes([row]) * 16, 1, 1) for row in (0, 2))
    assert monitor.expect([SampleCandidate(0, "yes", Row(0, first))]) == [Row(0, first)]
    monitor.row_ended(first, RowResult(OK, Completion("yes")))
    assert monitor.expect([SampleCandidate(1, "yes", None), SampleCandidate(2, "yes", Row(2, third))]) == [
        Row(2, third)
    ]
    decided_while_reading = monitor.enough
    monitor.row_ended(third, RowResult(OK, Completion("yes")))
    assert decided_while_reading is None
    assert monitor.enough is not None
