"""The rows of an evaluation in the order of asking, and the monitor that follows them."""

from collections.abc import Generator, Iterator

import msgspec

from batchrun.evaluation.metrics import Metric
from batchrun.job import asks_in_random_order
from batchrun.journal import Journal
from batchrun.labelling import Labelling
from batchrun.ledger import Ledger
from batchrun.open_rows import Ended, Row
from batchrun.pending import Candidate, candidates, in_order
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.row_records import row_records
from batchrun.sampling.frame import evaluation_of, sampling_frame, sampling_plan
from batchrun.sampling.monitor import Monitor, Spending
from batchrun.workload import Workload


def drawn_rows(
    workload: Workload,
    metric: Metric,
    journal: Journal,
    reader: Journal,
    run: int,
    progress: Progress,
    spending: Spending,
    retry_failed_before: int,
    labelling: Labelling | None,
) -> tuple[Generator[list[Row], None, None], Monitor]:
    """All rows in the order of asking, which the journal knows before the first is asked for."""
    frame = sampling_frame(workload)
    journal.note_sampling(run, msgspec.json.encode(sampling_plan(workload, frame)).decode())

    def look_up(request: Request) -> Ended | None:
        record = row_records([request], reader, labelling).get(request.digest)
        if record is None or not record.ended:
            return None
        verdict = None if record.standing is None else record.standing.verdict
        return Ended(request, record.text, verdict)

    at_random = asks_in_random_order(workload.job)
    monitor = Monitor(
        frame, evaluation_of(workload), metric, progress, look_up, spending if at_random else None
    )
    rows = candidates(workload, reader, progress, labelling, retry_failed_before)
    if at_random:
        rows = in_order(rows, Candidate, lambda: frame.order, workload.rows_in_a_chunk)
    return _followed(rows, monitor), monitor


def _followed(rows: Iterator[list[Candidate]], monitor: Monitor) -> Generator[list[Row], None, None]:
    for chunk in rows:
        yield monitor.expect(chunk)


def mean_cost(ledger: Ledger, before_nano_usd: int, progress: Progress) -> Spending:
    """By this run's ledger, what was spent before it, and the rows that had their answers then."""

    def spending() -> tuple[float, float] | None:
        left = ledger.left("nano_usd")
        rows = progress.answered_before + ledger.settled.rows
        if left is None or not rows:
            return None
        spent = before_nano_usd + ledger.settled.nano_usd + ledger.uncertain.nano_usd
        return spent / rows, spent + left + ledger.reserved.nano_usd

    return spending
