"""The output, derived from input and journal: one row for each row of the input."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchrun.books import milliseconds
from batchrun.job import Job, output_path, public_job
from batchrun.journal import Journal, Totals
from batchrun.occurrences import OccurrenceCounter
from batchrun.output_columns import SHARED, STATUS, STATUSES, output_batch, votes_saved
from batchrun.prompts import Request
from batchrun.row_records import row_records
from batchrun.run_folder import open_journal_of
from batchrun.summary import Summary, as_it_stands, summary_of
from batchrun.tables.python_rows import expected_value, python_values
from batchrun.tables.reader import Table
from batchrun.tables.writer import check_writable, replace_table
from batchrun.version import __version__
from batchrun.workload import Chunk, Workload, open_workload

if TYPE_CHECKING:
    from batchrun.evaluation.metrics import Metric
    from batchrun.sampling.sample import SampleTally

Rows = dict[str, int]
Findings = dict[str, Any]
"""What the rows say besides their counts, as JSON-able parts of the summary: `labels`, `evaluation`."""
Metadata = Callable[[Mapping[str, int], Findings], Mapping[str, str]]


def export_job(
    job: Job, *, sandbox: bool = False, table: Table | None = None, to: Path | None = None
) -> tuple[Summary, Path]:
    """Writes the output from the journal as it stands, to the job's output or to another file.

    A `table` takes the place of the job's input. Returns the summary and the file's path. Raises UsageError
    where nothing has been run yet, JournalError, StorageError.
    """
    path = to or output_path(job)
    journal = open_journal_of(job)
    try:
        workload = open_workload(job, sandbox=sandbox, table=table)
        check_writable(path, workload.schema)
        totals = journal.totals(sandbox)
        now = milliseconds()
        summary: Summary = {}

        def metadata(rows: Mapping[str, int], findings: Findings) -> dict[str, str]:
            summary.update(
                summary_of(
                    as_it_stands(rows),
                    rows,
                    totals,
                    Totals(),
                    budget_nano_usd=job.budget.nano_usd,
                    started_at=now,
                    finished_at=now,
                    **findings,
                )
            )
            return output_metadata(job, summary)

        write_output(workload, journal, path, metadata)
        return summary, path
    finally:
        journal.close()


def write_output(
    workload: Workload,
    journal: Journal,
    path: Path,
    metadata: Metadata,
    check: Callable[[], object] = lambda: None,
) -> Rows:
    """Writes the output atomically; returns the counts of rows: by status, `shared` and `total`.

    `metadata` makes the file's key-value metadata of those counts and of what else the rows say; `check` is
    called now and then, and may end it by what it raises. Raises StorageError, JournalError.
    """
    rows = RowWriter(workload, journal)
    with replace_table(path, workload.schema, lambda: metadata(rows.counts, rows.findings())) as table:
        for chunk in workload.chunks():
            check()
            table.write(output_batch(chunk.batch, rows.values(chunk), workload.schema))
    return dict(rows.counts)


def output_metadata(job: Job, summary: Summary) -> dict[str, str]:
    """The output file's key-value metadata."""
    return {
        "batchrun.version": __version__,
        "batchrun.job": msgspec.json.encode(public_job(job)).decode(),
        "batchrun.summary": msgspec.json.encode(summary).decode(),
    }


class RowWriter:
    """Makes the output's rows, chunk by chunk, and keeps count of them."""

    def __init__(self, workload: Workload, journal: Journal) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(("total", *STATUSES, "shared"), 0))
        self._workload = workload
        self._journal = journal
        self._occurrences = OccurrenceCounter()
        self._votes_saved = 0
        self.tally = None if workload.metric is None else _open_tally(workload, workload.metric)

    def values(self, chunk: Chunk) -> list[tuple[Any, ...]]:
        """The values of the added columns, for each row of the chunk."""
        sendable = [request for request in chunk.requests if isinstance(request, Request)]
        records = row_records(sendable, self._journal, self._workload.labelling)
        unseen = self._occurrences.add(tuple({request.digest for request in sendable}))
        expected = self._expected(chunk)
        added, counts = self._workload.added, self.counts
        rows = []
        for request, cell in zip(chunk.requests, expected, strict=True):
            duplicate = isinstance(request, Request) and request.digest not in unseen
            if isinstance(request, Request):
                unseen.discard(request.digest)
            record = records.get(request.digest) if isinstance(request, Request) else request
            score = None if self.tally is None else self.tally.add(record, cell, duplicate)
            row = added.values(record, duplicate, score)
            rows.append(row)
            counts[row[STATUS]] += 1
            counts["shared"] += row[SHARED]
            self._votes_saved += 0 if duplicate else votes_saved(record)
        counts["total"] += len(rows)
        return rows

    def findings(self) -> Findings:
        """What all rows say, once they have been seen."""
        findings: Findings = {}
        if self._workload.labelling is not None:
            findings["labels"] = {"votes_saved": self._votes_saved}
        if self.tally is not None:
            from batchrun.sampling.report import report_of

            findings["evaluation"] = report_of(self._workload, self.tally)
        return findings

    def _expected(self, chunk: Chunk) -> Sequence[Any]:
        evaluation = self._workload.job.evaluation
        if evaluation is None:
            return [None] * len(chunk.requests)
        cells = python_values(evaluation.expected, chunk.batch.column(evaluation.expected))
        return [expected_value(cell) for cell in cells]


def _open_tally(workload: Workload, metric: "Metric") -> "SampleTally":
    from batchrun.sampling.frame import sampling_frame
    from batchrun.sampling.sample import SampleTally

    return SampleTally(sampling_frame(workload), metric, classes=metric.name == "choice")
