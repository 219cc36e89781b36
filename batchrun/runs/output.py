"""The output, derived from input and journal: one row for each row of the input."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from batchrun.client.builder import InvalidRow
from batchrun.clock import milliseconds
from batchrun.errors import UsageError
from batchrun.exchange import NO_CACHE, CacheLifetime
from batchrun.job.spec import Job, output_path, public_job
from batchrun.journal import Journal, Totals
from batchrun.labels.counting import LabelCounts
from batchrun.rows.chunks import Chunk
from batchrun.rows.columns import COLUMNS, ERROR_CODE, SHARED, STATUS, answered_columns, output_batch
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.duplicates import SeenRequests
from batchrun.rows.history import RowHistory, first_attempt, result_of, row_histories_by_digest
from batchrun.rows.lookup import PagedLookup
from batchrun.rows.result import FAILED, INVALID, OK, STATUSES
from batchrun.rows.scratch import scratch_folder
from batchrun.runs.caching import CacheTally, prices_of
from batchrun.runs.changes import change_since_last_run
from batchrun.runs.paths import check_paths
from batchrun.runs.run_folder import open_journal_of
from batchrun.runs.summary import Summary, as_it_stands, summary_of
from batchrun.tables.object_store import check_uploadable, upload
from batchrun.tables.python_rows import expected_value
from batchrun.tables.reader import Table
from batchrun.tables.text_rows import CsvStyle
from batchrun.tables.writer import check_writable, replace_table
from batchrun.version import __version__

if TYPE_CHECKING:
    from batchrun.evaluation.sample import SampleTally
    from batchrun.rows.metrics import Metric

Rows = dict[str, int]
Findings = dict[str, Any]
"""Findings from the rows besides their counts, as JSON-able parts of the summary, such as `labels`."""
Recorded = tuple[RowHistory | InvalidRow | None, tuple[Any, ...]]
"""A row's record, None for a row never sent, with its values of the added columns."""
Metadata = Callable[[Mapping[str, int], Findings], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class WrittenOutput:
    """A written output: the counts of its rows by status, `shared` and `total`, what else they say, and the
    SHA-256 of the file, as hex."""

    rows: Rows
    findings: Findings
    content: str


def export_job(
    job: Job,
    *,
    sandbox: bool = False,
    table: Table | None = None,
    to: Path | None = None,
    temporary_output: Path | None = None,
) -> tuple[Summary, Path]:
    """Writes the output from the journal as it stands, to the job's output, to another file, or to a file
    `temporary_output` in their place.

    A `table` takes the place of the job's input. Returns the summary and the file's path. Raises UsageError
    where nothing has been run yet, JournalError, StorageError.
    """
    path = temporary_output or to or output_path(job)
    check_paths(job, {"--to": to}, may_be_output=True)
    journal = open_journal_of(job)
    try:
        dataset = open_dataset(job, sandbox=sandbox, table=table)
        check_output(job, path)
        if path.exists():
            _refuse_fewer_answers(dataset, journal, path, sandbox=sandbox)
        totals = journal.totals(sandbox)
        now = milliseconds()
        summary: Summary = {}

        def metadata(rows: Mapping[str, int], findings: Findings) -> dict[str, str]:
            summary.update(
                summary_of(
                    as_it_stands(rows, findings["reasons"]),
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

        write_output(dataset, journal, path, metadata)
        return summary, path
    finally:
        journal.close()


def _refuse_fewer_answers(dataset: Dataset, journal: Journal, path: Path, *, sandbox: bool) -> None:
    if not sandbox and journal.totals(sandbox=True).answered and not journal.totals(sandbox=False).answered:
        raise UsageError(
            "Only runs with the sandbox have answers, and this export would have none.\n"
            f"{path} is as it was. Export with --sandbox, or to another file (--to)."
        )
    change = change_since_last_run(dataset, journal, sandbox=sandbox)
    if change is not None:
        raise UsageError(
            f"{change.lost:,} of {change.answers:,} answers of the last run are not those of this job, since "
            f"these differ: {', '.join(change.what)}.\n"
            f"{path} is as it was. Export with the job and the options of the run, or to another file (--to)."
        )


def write_output(
    dataset: Dataset,
    journal: Journal,
    path: Path,
    metadata: Metadata,
    check: Callable[[], object] = lambda: None,
) -> WrittenOutput:
    """Writes the output atomically.

    `metadata` makes the file's key-value metadata of those counts and of what else the rows say; `check` is
    called now and then, and may end it by what it raises. Of a job whose output is a URL, the file is then
    uploaded. Raises StorageError, JournalError.
    """
    rows = RowWriter(dataset, journal)
    findings: Findings = {}

    def facts() -> Mapping[str, str]:
        findings.update(rows.findings())
        return metadata(rows.counts, findings)

    with replace_table(path, dataset.schema, facts, _csv_style(dataset)) as table:
        for chunk in dataset.chunks(journal=journal):
            check()
            table.write(rows.batch(chunk))
    job = dataset.job
    if "://" in job.output.path and path == output_path(job):
        upload(path, job.output.path, job.output.endpoint_url)
    return WrittenOutput(dict(rows.counts), findings, table.content)


def check_output(job: Job, path: Path) -> None:
    """Raises OutputError where the output can't be written to `path`, or to the object store of the job."""
    check_writable(path)
    if "://" in job.output.path and path == output_path(job):
        check_uploadable(job.output.path, job.output.endpoint_url)


def _csv_style(dataset: Dataset) -> CsvStyle:
    """Returns the CSV style: a CSV's cells stay as they are, others are made safe unless the job forbids."""
    output = dataset.job.output
    harmless = (
        frozenset(dataset.schema.names) - dataset.table.cells.texts if output.csv_safe else frozenset[str]()
    )
    return CsvStyle(harmless, output.csv_bom)


def output_metadata(job: Job, summary: Summary) -> dict[str, str]:
    """The output file's key-value metadata. Who changed caps during the run stays with the run."""
    known = {key: value for key, value in summary.items() if key != "adjustments"}
    return {
        "batchrun.version": __version__,
        "batchrun.job": msgspec.json.encode(public_job(job)).decode(),
        "batchrun.summary": msgspec.json.encode(known).decode(),
    }


class RowWriter:
    """Makes the output's rows, chunk by chunk, and keeps count of them."""

    def __init__(self, dataset: Dataset, journal: Journal, tally: "SampleTally | None" = None) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(("total", *STATUSES, "shared"), 0))
        self._dataset = dataset
        self._journal = journal
        self._lookup = PagedLookup(journal)
        self._seen = SeenRequests(scratch_folder(dataset.job))
        self._votes_saved = 0
        self._labels = LabelCounts(dataset.job.labels)
        self._cached = CacheTally()
        self._reasons: dict[str, dict[str, Any]] = {}
        self.tally = tally
        if tally is None and dataset.metric is not None:
            self.tally = _open_tally(dataset, dataset.metric)

    def batch(self, chunk: Chunk) -> pa.RecordBatch:
        """The rows of the output."""
        records, unseen = self._found(chunk)
        schema = self._dataset.schema
        if chunk.plain and self._dataset.added.is_plain and len(unseen) == len(chunk.digests):
            in_order = [records[digest] for digest in chunk.sendable_digests]
            columns = answered_columns(in_order)
            if columns is not None:
                self._count_answered(in_order)
                return pa.RecordBatch.from_arrays([*chunk.batch.columns, *columns], schema=schema)
        rows = [values for _, values in self._rows(chunk, records, unseen)]
        return output_batch(chunk.batch, rows, schema)

    def values(self, chunk: Chunk) -> list[tuple[Any, ...]]:
        """The values of the added columns, for each row of the chunk."""
        return [values for _, values in self.records(chunk)]

    def records(self, chunk: Chunk) -> list[Recorded]:
        """Each row's record, None for a row never sent, with its values of the added columns."""
        return self._rows(chunk, *self._found(chunk))

    def _found(self, chunk: Chunk) -> tuple[dict[bytes, RowHistory], set[bytes]]:
        """Returns the records of the rows, and the digests that no earlier row has."""
        digests = chunk.sendable_digests
        records = row_histories_by_digest(
            digests, lambda: chunk.sendable, self._journal, self._dataset.labelling, self._lookup.find
        )
        return records, self._seen.add({digest: first_attempt(records.get(digest)) for digest in digests})

    def _count_answered(self, records: Sequence[RowHistory]) -> None:
        self.counts["total"] += len(records)
        self.counts[OK] += len(records)
        for record in records:
            if record.history is not None and record.history.cache is not NO_CACHE:
                self._cached.add(None, record)

    def _rows(self, chunk: Chunk, records: Mapping[bytes, RowHistory], unseen: set[bytes]) -> list[Recorded]:
        expected = self._expected(chunk)
        added, counts, votes = self._dataset.added, self.counts, self._dataset.labelling.votes > 1
        rows = []
        for (digest, record, cached), cell in zip(_records_in_order(chunk, records), expected, strict=True):
            duplicate = not isinstance(record, InvalidRow) and digest not in unseen
            unseen.discard(digest)
            score = None if self.tally is None else self.tally.add(record, cell, duplicate)
            row = added.values(record, duplicate, score)
            rows.append((record, row))
            counts[row[STATUS]] += 1
            counts["shared"] += row[SHARED]
            self._labels.add(row[len(COLUMNS) :])
            if row[STATUS] in (FAILED, INVALID):
                self._count_reason(row[ERROR_CODE], chunk.first + len(rows), record)
            if not duplicate and not isinstance(record, InvalidRow):
                self._cached.add(cached, record)
                if votes:
                    self._votes_saved += result_of(record).votes_saved
        counts["total"] += len(rows)
        return rows

    def _count_reason(self, code: str | None, row: int, record: RowHistory | InvalidRow | None) -> None:
        reason = self._reasons.setdefault(code or "unknown", {"rows": 0, "example": row})
        reason["rows"] += 1
        if isinstance(record, InvalidRow):
            reason["unsendable"] = reason.get("unsendable", 0) + 1
            reason.setdefault("error", record.message)

    def findings(self) -> Findings:
        """Returns the findings from all rows, once they have been seen."""
        findings: Findings = {"reasons": self._reasons}
        if (caching := self._cached.as_dict(prices_of(self._dataset))) is not None:
            findings["caching"] = caching
        if self._dataset.job.labels is not None:
            findings["labels"] = {"votes_saved": self._votes_saved, "counts": self._labels.by_column()}
        if self.tally is not None:
            from batchrun.evaluation.report import report_of

            findings["evaluation"] = report_of(self._dataset, self.tally)
        return findings

    def _expected(self, chunk: Chunk) -> Sequence[Any]:
        evaluation = self._dataset.job.evaluation
        if evaluation is None:
            return [None] * len(chunk.digests)
        cells = self._dataset.table.template_values(evaluation.expected, chunk.cells)
        return [expected_value(cell) for cell in cells]


def _records_in_order(
    chunk: Chunk, records: Mapping[bytes, RowHistory]
) -> Iterator[tuple[bytes, RowHistory | InvalidRow | None, CacheLifetime | None]]:
    """Yields each row's digest, its record, and the lifetime that it marks for the server's cache."""
    if chunk.plain:
        yield from ((digest, records.get(digest), None) for digest in chunk.sendable_digests)
        return
    for request in chunk.requests:
        if isinstance(request, InvalidRow):
            yield b"", request, None
        else:
            yield request.digest, records.get(request.digest), request.cached


def _open_tally(dataset: Dataset, metric: "Metric") -> "SampleTally":
    from batchrun.evaluation.frame import sampling_frame
    from batchrun.evaluation.sample import SampleTally

    return SampleTally(sampling_frame(dataset), metric, classes=metric.name == "choice")
