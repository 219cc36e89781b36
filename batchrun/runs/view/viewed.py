"""A job as the page shows it: its state, which is read often, and what takes longer, which is kept."""

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow.parquet as pq

from batchrun.clock import instant, milliseconds
from batchrun.errors import BatchrunError, InputError, UsageError
from batchrun.evaluation.corrections import NONE_FITS, RIGHT
from batchrun.evaluation.frame import NO_FRAME
from batchrun.evaluation.sample import SampleTally
from batchrun.job.spec import Job, output_path, run_folder
from batchrun.journal import Journal
from batchrun.rows.dataset import Dataset, endpoint_identity, open_dataset
from batchrun.rows.scratch import scratch_folder
from batchrun.runs.adjust.ask import adjust_run
from batchrun.runs.by_hand import Remark, can_be_corrected, remark_on, write_remark
from batchrun.runs.output import RowWriter, write_output
from batchrun.runs.reading import ReadableRow, SeenRow, readable
from batchrun.runs.report.facts import Facts, RunFacts, facts_of
from batchrun.runs.review import review_path
from batchrun.runs.run_folder import RunFolder, open_journal_of
from batchrun.runs.view.kept import Kept
from batchrun.runs.view.table import RowsFile
from batchrun.runs.view.watch import Watch

SECONDS_BETWEEN_LOOKS = 0.5
PATIENCE = 1.0
"""Seconds that a page waits for what is being made."""

Value = TypeVar("Value")


class ViewedJob:
    """A job that is looked at. Where it needs a copy of its rows, that lies beside the output."""

    def __init__(self, job: Job, *, sandbox: bool = False) -> None:
        self.job = job
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._watch = Watch(job, sandbox=sandbox)
        self._lock = threading.Lock()
        self._looked_at = -SECONDS_BETWEEN_LOOKS
        self._state: RunFacts | None = None
        self._by: str | None = None
        self._facts = Kept(self._make_facts)
        self._rows = Kept(self._make_rows)
        self._dataset: Dataset | None = None
        self._saying = threading.Lock()
        self._copies: list[Path] = []

    def state(self) -> RunFacts | None:
        """Returns the state of the last run; None where nothing has been run. Raises BatchrunError."""
        with self._lock:
            if time.monotonic() >= self._looked_at + SECONDS_BETWEEN_LOOKS:
                self._state = self._watch.look()
                self._looked_at = time.monotonic()
            return self._state

    def facts(
        self, by: str | None = None, patience: float = PATIENCE
    ) -> tuple[Facts | None, BatchrunError | None]:
        """Returns all that the report says, as new as the time that it takes allows, or why there is none."""
        state = self.state()
        if state is None:
            return None, None
        running = state.status["running"] and by == self._by
        self._by = by
        found = self._facts.refresh((self._watch.stamp(), by), running=running, patience=patience)
        return found, self._facts.error

    def rows(self) -> RowsFile | None:
        """Returns the file of all rows; None while it is being made. Raises BatchrunError."""
        state = self.state()
        if state is None:
            raise UsageError("Nothing has been run yet, so there are no rows. First: batchrun run.")
        running = state.status["running"]
        found = self._rows.refresh(self._watch.stamp(), running=running, patience=PATIENCE)
        if found is None and self._rows.error is not None:
            raise self._rows.error
        return found

    @property
    def review(self) -> dict[str, Any]:
        """Where remarks go, and what a correction may be."""
        choices: Sequence[str] = (self.job.labels and self.job.labels.choices) or ()
        return {"review_file": review_path(self.job).name, "words": [*choices, RIGHT, NONE_FITS]}

    @property
    def is_running(self) -> bool:
        state = self.state()
        return state is not None and bool(state.status["running"])

    @property
    def reads_rows(self) -> bool:
        """Returns whether a newer file of the rows is being made."""
        return self._rows.busy

    def row(self, index: int) -> tuple[ReadableRow, Remark | None]:
        """Returns a row as the journal has it now, and what a person said of it.

        That is None for a row that a review can't have. Raises UsageError for one that the input hasn't.
        """

        def read(row: SeenRow, journal: Journal) -> tuple[ReadableRow, Remark | None]:
            remark = remark_on(row.dataset, index) if can_be_corrected(row) else None
            return readable(row, journal), remark

        return self._with_row(index, read)

    def say(self, index: int, remark: Remark) -> None:
        """Writes what a person says of a row to the file of the review. Raises UsageError, StorageError."""
        with self._saying:
            self._with_row(index, lambda row, _: write_remark(row.dataset, row, remark))

    def change(self, assignments: Sequence[str]) -> None:
        """Sets caps and limits of the run that is going on, or stops it, as `batchrun set` does.

        Raises UsageError if it refuses or there is none, LockedError if it takes nothing at the moment.
        """
        adjust_run(RunFolder(run_folder(self.job)), assignments)
        self._looked_at = -SECONDS_BETWEEN_LOOKS

    def read_again(self) -> None:
        """Lets the next pages read all rows again, however recently they were read."""
        self._facts.hurry()
        self._rows.hurry()

    def close(self) -> None:
        with self._lock:
            self._watch.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _make_facts(self) -> Facts:
        return facts_of(self.job, sandbox=self._watch.sandbox, by=self._by)

    def _with_row(self, index: int, use: Callable[[SeenRow, Journal], Value]) -> Value:
        self.state()  # tells which kind of runs is shown
        known = self._dataset is not None
        try:
            return self._read_row(index, use)
        except InputError:  # the input has changed since it was opened
            if not known:
                raise
            self._dataset = None
            return self._read_row(index, use)

    def _read_row(self, index: int, use: Callable[[SeenRow, Journal], Value]) -> Value:
        if self._dataset is None or self._dataset.endpoint != self._endpoint:
            self._dataset = self._open_dataset()
        dataset = self._dataset
        with closing(open_journal_of(self.job)) as journal:
            chunk = dataset.chunk_with(index, journal)
            if chunk is None:
                raise UsageError(f"The input has no row {index + 1:,}.")
            position = index - chunk.first
            record, values = RowWriter(dataset, journal, _no_sample(dataset)).records(chunk)[position]
            return use(SeenRow(dataset, chunk, position, record, values), journal)

    @property
    def _endpoint(self) -> str:
        return endpoint_identity(self.job, sandbox=self._watch.sandbox)

    def _open_dataset(self) -> Dataset:
        return open_dataset(self.job, sandbox=self._watch.sandbox)

    def _make_rows(self) -> RowsFile:
        dataset = self._dataset = self._open_dataset()
        path, made_at = output_path(self.job), milliseconds()
        with closing(open_journal_of(self.job)) as journal:
            if not _is_of_last_run(path, dataset, journal, sandbox=self._watch.sandbox):
                path = self._next_copy()
                write_output(dataset, journal, path, lambda _rows, _findings: {})
        evaluation, schema = self.job.evaluation, dataset.table.schema
        texts = dataset.table.cells.texts if self.job.output.csv_safe else frozenset(dataset.schema.names)
        return RowsFile(
            path=path,
            made_at=made_at,
            rows=pq.read_metadata(path).num_rows,
            columns=tuple(dataset.schema.names),
            input=tuple(schema.names),
            prompt=tuple(name for name in dataset.builder.columns if name in schema.names),
            prefix=self.job.output.prefix,
            expected=None if evaluation is None else evaluation.expected,
            harmless=frozenset(dataset.schema.names) - texts,
        )

    def _next_copy(self) -> Path:
        """Returns a new path in the folder of temporary files, and removes the copy before the last one."""
        if self._scratch is None:
            self._scratch = _private_folder(scratch_folder(self.job))
        self._copies.append(Path(self._scratch.name) / f"{milliseconds()}.parquet")
        for old in self._copies[:-2]:
            old.unlink(missing_ok=True)
        self._copies = self._copies[-2:]
        return self._copies[-1]


def _no_sample(dataset: Dataset) -> SampleTally | None:
    """Returns what scores a row by itself: all rows in sending order would have to be read for a sample."""
    return None if dataset.metric is None else SampleTally(NO_FRAME, dataset.metric, classes=False)


def _private_folder(beside: Path) -> "tempfile.TemporaryDirectory[str]":
    """Returns a folder for this user alone. At its end, a copy may still be on its way."""
    prefix = ".batchrun-view-"
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, dir=beside, ignore_cleanup_errors=True)
    except OSError:  # an output that this user may only read
        return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def _is_of_last_run(path: Path, dataset: Dataset, journal: Journal, *, sandbox: bool) -> bool:
    """Returns whether an output has all that the journal has: nothing was sent since it was written."""
    last, other = journal.last_run(sandbox), journal.last_run(not sandbox)
    if path.suffix != ".parquet" or last is None or last["finished_at"] is None:
        return False
    if other is not None and other["run"] > last["run"]:
        return False
    try:
        found = pq.read_metadata(path)
        summary: dict[str, Any] = msgspec.json.decode((found.metadata or {})[b"batchrun.summary"])
        written = str(summary["started_at"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
    exported = written >= instant(last["finished_at"])
    same = found.schema.to_arrow_schema().names == dataset.schema.names
    return same and (exported or written == instant(last["started_at"]))
