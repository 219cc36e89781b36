"""The monitor of an evaluation: what it is told in which thread."""

from pathlib import Path

import numpy as np

from batchrun.evaluation.metrics import make_metric
from batchrun.evaluation.permutation import Groups
from batchrun.job.evaluation import EarlyStop, Evaluation
from batchrun.open_rows import Ended, Row
from batchrun.pending import Candidate
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.sampling.frame import SamplingFrame
from batchrun.sampling.monitor import Monitor


def test_it_stops_the_run_where_rows_end_and_not_where_they_are_read(tmp_path: Path) -> None:
    """A row that can't be sent completes the first of 30 clusters, after which enough is known."""
    groups = Groups(np.repeat(np.arange(30, dtype=np.int32), 2), [f"author {n}" for n in range(30)])
    frame = SamplingFrame(np.arange(60), np.ones(60, np.bool_), groups)
    evaluation = Evaluation(
        expected="gold", metric="exact", cluster="author", stop=EarlyStop(half_width=0.495)
    )
    metric = make_metric(evaluation, tmp_path)
    monitor = Monitor(frame, evaluation, metric, Progress(), lambda _: None, None)
    stops: list[object] = []
    monitor.stop = stops.append
    first, third = (Request(b"", bytes([row]) * 16, 1, 1) for row in (0, 2))
    assert monitor.expect([Candidate(0, "yes", Row(0, first))]) == [Row(0, first)]
    monitor.ended(Ended(first, "yes"))
    assert monitor.expect([Candidate(1, "yes", None), Candidate(2, "yes", Row(2, third))]) == [Row(2, third)]
    assert stops == []
    monitor.ended(Ended(third, "yes"))
    assert len(stops) == 1
