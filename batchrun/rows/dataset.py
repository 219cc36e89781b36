"""A job's rows as requests: the input table, and the request of each row."""

import math
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.templates import no_such_column
from batchrun.errors import JobError, OutputError
from batchrun.job.rules import unused_retry_caps
from batchrun.job.spec import Job, input_path, run_folder
from batchrun.journal import Journal
from batchrun.rows.chunks import Chunk, ChunkMaker
from batchrun.rows.columns import AddedColumns
from batchrun.rows.digest_cache import FILE_NAME, DigestCache, OpenDigestCache, made_of
from batchrun.rows.duplicates import Occurrences
from batchrun.rows.former import FormerRequests, former_requests
from batchrun.rows.labelling import Labelling, plain_rows
from batchrun.rows.scratch import scratch_folder
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import Table, open_table

if TYPE_CHECKING:
    from batchrun.rows.metrics import Metric

ROWS_IN_A_CHUNK = 1_024
ROWS_WITH_IMAGES_IN_A_CHUNK = 16
"""The bodies of a chunk are in memory together: an image makes one of up to 7 MB."""


@dataclass(frozen=True)
class Dataset:
    """The rows of a job. Job and input have been checked for all user errors."""

    job: Job
    table: Table
    builder: RequestBuilder
    labelling: Labelling
    metric: "Metric | None"
    schema: pa.Schema
    endpoint: str
    digest_cache: DigestCache

    @property
    def notes(self) -> list[str]:
        """Returns notes for the user before the first request."""
        notes = [*self.table.notes, *unused_retry_caps(self.job)]
        if not self.builder.columns:
            notes.append("the prompt uses no column, so it is the same for all rows: write a column in {{ }}")
        if self._votes_alike:
            notes.append(
                "with temperature 0 all votes are nearly the same answer: set request.temperature above 0"
            )
        return notes

    @property
    def _votes_alike(self) -> bool:
        votes = 1 if self.job.labels is None else self.job.labels.votes
        request = self.job.request
        return votes > 1 and request.temperature == 0 and "temperature" not in request.columns

    @property
    def added(self) -> AddedColumns:
        return AddedColumns(self.labelling, self.metric is not None)

    @property
    def rows_in_a_chunk(self) -> int:
        return ROWS_IN_A_CHUNK if self.job.prompt.image is None else ROWS_WITH_IMAGES_IN_A_CHUNK

    def chunks(
        self, columns: Sequence[str] | None = None, journal: Journal | None = None
    ) -> Generator[Chunk, None, None]:
        """Yields the rows and their requests, in input order.

        `columns` are the input columns in `batch`; None: all of them. A row that `journal` has under the
        prompt of an earlier version of batchrun keeps that request.
        """
        used = self.builder.columns
        names = self.table.schema.names if columns is None else list(dict.fromkeys([*columns, *used]))
        compared = [] if self.job.evaluation is None else [self.job.evaluation.expected]
        wanted = list(dict.fromkeys([*names, *self.table.sources([*used, *compared])]))
        former = self._former(journal)
        first = 0
        with self._digests() as digests:
            maker = ChunkMaker(self.table, self.builder, self._occurrences(), former, digests)
            for batch in self.table.batches(wanted, self.rows_in_a_chunk):
                yield maker.chunk(first, batch, names)
                first += batch.num_rows

    def chunk_with(self, index: int, journal: Journal) -> Chunk | None:
        """Returns a chunk that has the row with this index; None where the input is shorter.

        Renders that row alone, except where each occurrence of a request is sent separately.
        """
        if self._separately:
            chunks = self.chunks(journal=journal)
            return next((chunk for chunk in chunks if index < chunk.first + len(chunk.digests)), None)
        first, names = 0, self.table.schema.names
        for batch in self.table.batches([*names, *self.table.sources(names)], self.rows_in_a_chunk):
            if index < first + batch.num_rows:
                occurrences, former = self._occurrences(), self._former(journal)
                maker = ChunkMaker(self.table, self.builder, occurrences, former, None)
                return maker.chunk(index, batch.slice(index - first, 1), names)
            first += batch.num_rows
        return None

    @property
    def _separately(self) -> bool:
        return self.job.output.duplicates == "separate"

    def _occurrences(self) -> Occurrences:
        return Occurrences(self._separately, scratch_folder(self.job))

    def _digests(self) -> AbstractContextManager[OpenDigestCache | None]:
        """Opens the digest cache where a row's cells alone determine its digest."""
        usable = not self._separately and self.job.prompt.image is None
        return self.digest_cache.opened() if usable else nullcontext()

    def _former(self, journal: Journal | None) -> FormerRequests | None:
        if journal is None:
            return None
        return former_requests(self.table, self.job, self.endpoint, journal, self._separately)


def endpoint_identity(job: Job, *, sandbox: bool) -> str:
    """Returns the server's part of a request's identity. All sandboxes are the same."""
    return "sandbox" if sandbox else job.endpoint.base_url


def open_dataset(job: Job, *, sandbox: bool, table: Table | None = None) -> Dataset:
    """Opens the input and compiles the job against it. Raises UsageError for whatever is wrong with them.

    A `table` replaces the input that the job names.
    """
    table = _open_input(job) if table is None else table
    labelling, metric = labelling_of(job), _metric_of(job, table.schema.names)
    added = AddedColumns(labelling, metric is not None)
    schema = output_schema(table.schema, added.schema, job.output.prefix)
    endpoint = endpoint_identity(job, sandbox=sandbox)
    builder = RequestBuilder(job, table.schema.names, endpoint, table.cells.texts)
    if metric is not None:
        _refuse_nothing_expected(job, table)
    digest_cache = DigestCache(run_folder(job) / FILE_NAME, made_of(job, endpoint, table.cells.texts))
    dataset = Dataset(job, table, builder, labelling, metric, schema, endpoint, digest_cache)
    _try_first_row(dataset)
    return dataset


def keeping_digests(dataset: Dataset) -> Dataset:
    """Returns the dataset with a digest cache that is rewritten. For the holder of the run's lock alone."""
    return replace(dataset, digest_cache=replace(dataset.digest_cache, kept=True))


def _open_input(job: Job) -> Table:
    given = job.input
    scratch = scratch_folder(job)
    options = ReadOptions(
        given.types, given.skip_lines, given.sheet, given.query, given.hive, given.endpoint_url, scratch
    )
    return open_table(input_path(job), job.base, options)


def output_schema(input_schema: pa.Schema, added: pa.Schema, prefix: str) -> pa.Schema:
    """Returns the input's columns, then batchrun's. Raises OutputError if a name is used by both."""
    columns = [pa.field(prefix + field.name, field.type) for field in added]
    twice = next((name for name in added.names if added.names.count(name) > 1), None)
    if twice is not None:
        raise JobError(
            f"[labels] json_schema: {twice!r} is also the name of one of batchrun's columns.\n"
            "Give the property another name, in the schema and in the prompt."
        )
    taken = [field.name for field in columns if field.name in input_schema.names]
    if taken:
        names = ", ".join(repr(name) for name in taken)
        raise OutputError(
            f"The input has a column of the same name as one of the output's: {names}.\n"
            'Set output.prefix, for example --set output.prefix="batchrun_".'
        )
    return pa.schema([*input_schema, *columns], metadata=input_schema.metadata)


def labelling_of(job: Job) -> Labelling:
    """Returns how the job's rows get their labels, or without labels their answers."""
    if job.labels is None:
        return plain_rows(job.output.accept, job.retry.max_tokens, _cap_of(job))
    from batchrun.labels.parser import make_parser

    return Labelling(
        make_parser(job.labels),
        job.labels.repair,
        job.labels.votes,
        raises=job.retry.max_tokens,
        cap=_cap_of(job),
        vote_on=job.labels.vote_on,
    )


def _cap_of(job: Job) -> float:
    return math.inf if "max_tokens" in job.request.columns else job.request.max_tokens or 0


def _metric_of(job: Job, columns: Sequence[str]) -> "Metric | None":
    evaluation = job.evaluation
    if evaluation is None:
        return None
    from batchrun.rows.metrics import make_metric

    for key in ("expected", "cluster", "stratify"):
        name = getattr(evaluation, key)
        if name is not None and name not in columns:
            raise JobError(no_such_column(f"[evaluation] {key}", name, columns))
    return make_metric(evaluation, job.base)


def _refuse_nothing_expected(job: Job, table: Table) -> None:
    """Refuses a column without any expected value: all rows would be paid for in vain."""
    expected = "" if job.evaluation is None else job.evaluation.expected
    rows = 0
    for batch in table.batches([expected]):
        rows += batch.num_rows
        if batch.column(0).null_count < batch.num_rows:
            return
    if rows:
        raise JobError(
            f"[evaluation] expected: the column {expected!r} is empty in all {rows:,} rows.\n"
            "Fill it in, or remove [evaluation]."
        )


def _try_first_row(dataset: Dataset) -> None:
    """Refuses a template that fails on the first row: it most likely fails on all."""
    used = list(dataset.builder.columns)
    for batch in dataset.table.batches([*used, *dataset.table.sources(used)], 1):
        values = dataset.table.template_rows(batch, used)[0]
        first = dataset.builder.build(dict(zip(used, values, strict=True)))
        if isinstance(first, InvalidRow) and first.code == "template_error":
            has = ", ".join(dataset.table.schema.names)
            raise JobError(f"The first row can't be rendered: {first.message}.\nThe input has: {has}.")
        return
