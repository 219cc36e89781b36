"""The output, derived from input and journal: one row for each row of the input."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

import batchrun
from batchrun.books import milliseconds
from batchrun.job import Job, output_path, public_job
from batchrun.journal import Journal, Totals
from batchrun.occurrences import OccurrenceCounter
from batchrun.output_columns import SHARED, STATUS, STATUSES, output_batch
from batchrun.prompts import Request
from batchrun.row_records import row_records
from batchrun.run_folder import open_journal_of
from batchrun.summary import Summary, as_it_stands, summary_of
from batchrun.tables.reader import Table
from batchrun.tables.writer import check_writable, replace_table
from batchrun.workload import Chunk, Workload, open_workload

Rows = dict[str, int]
Metadata = Callable[[Mapping[str, int]], Mapping[str, str]]


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

        def metadata(rows: Mapping[str, int]) -> dict[str, str]:
            summary.update(
                summary_of(
                    as_it_stands(rows),
                    rows,
                    totals,
                    Totals(),
                    budget_nano_usd=job.budget.nano_usd,
                    started_at=now,
                    finished_at=now,
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

    `metadata` makes the file's key-value metadata of those counts; `check` is called now and then, and may
    end it by what it raises. Raises StorageError, JournalError.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("total", *STATUSES, "shared"), 0))
    occurrences = OccurrenceCounter()
    with replace_table(path, workload.schema, lambda: metadata(counts)) as table:
        for chunk in workload.chunks():
            check()
            rows = _chunk_rows(workload, chunk, journal, occurrences, counts)
            table.write(output_batch(chunk.batch, rows, workload.schema))
    return dict(counts)


def output_metadata(job: Job, summary: Summary) -> dict[str, str]:
    """The output file's key-value metadata."""
    return {
        "batchrun.version": batchrun.__version__,
        "batchrun.job": msgspec.json.encode(public_job(job)).decode(),
        "batchrun.summary": msgspec.json.encode(summary).decode(),
    }


def _chunk_rows(
    workload: Workload, chunk: Chunk, journal: Journal, occurrences: OccurrenceCounter, counts: Counter[str]
) -> list[tuple[Any, ...]]:
    sendable = [request for request in chunk.requests if isinstance(request, Request)]
    records = row_records(sendable, journal, workload.labelling)
    added = workload.added
    rows = []
    for request in chunk.requests:
        if isinstance(request, Request):
            duplicate = occurrences.count(request.digest) > 1
            row = added.values(records.get(request.digest), duplicate)
        else:
            row = added.values(request, duplicate=False)
        rows.append(row)
        counts[row[STATUS]] += 1
        counts["shared"] += row[SHARED]
    counts["total"] += len(rows)
    return rows
