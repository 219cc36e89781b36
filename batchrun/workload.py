"""A job's rows as requests: the input table and what is made of each of its rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from batchrun.errors import JobError, OutputError
from batchrun.job import Job, input_path
from batchrun.labelling import Labelling
from batchrun.occurrences import OccurrenceCounter
from batchrun.output_columns import AddedColumns
from batchrun.prompts import InvalidRow, Request, RequestBuilder, no_such_column, separate
from batchrun.tables.reader import Table, open_table, python_rows

if TYPE_CHECKING:
    from batchrun.evaluation.metrics import Metric

ROWS_IN_A_CHUNK = 1_024
ROWS_WITH_IMAGES_IN_A_CHUNK = 16
"""The bodies of a chunk are in memory together: an image makes one of up to 7 MB."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows: `first` is the index of the first, `requests` has one entry for each."""

    first: int
    batch: pa.RecordBatch
    requests: list[Request | InvalidRow]


@dataclass(frozen=True)
class Workload:
    """The rows of a job. Everything that a user can have got wrong in job and input has been checked."""

    job: Job
    table: Table
    builder: RequestBuilder
    labelling: Labelling | None
    metric: "Metric | None"
    schema: pa.Schema

    @property
    def added(self) -> AddedColumns:
        return AddedColumns(self.labelling, self.metric is not None)

    @property
    def rows_in_a_chunk(self) -> int:
        return ROWS_IN_A_CHUNK if self.job.prompt.image is None else ROWS_WITH_IMAGES_IN_A_CHUNK

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        """The rows and their requests, in input order.

        `columns` are the input columns in `batch`: all of them where it is None.
        """
        used = list(self.builder.columns)
        wanted = None if columns is None else list(dict.fromkeys([*columns, *used]))
        separately = self.job.output.duplicates == "separate"
        occurrences = OccurrenceCounter() if separately else None
        first = 0
        for batch in self.table.batches(wanted, self.rows_in_a_chunk):
            rows = python_rows(batch.select(used)) if used else [()] * batch.num_rows
            requests = [self.builder.build(dict(zip(used, row, strict=True))) for row in rows]
            if occurrences is not None:
                requests = _separated(requests, occurrences)
            yield Chunk(first, batch, requests)
            first += batch.num_rows


def endpoint_identity(job: Job, *, sandbox: bool) -> str:
    """What the identity of a request knows of the server. Every sandbox is the same one."""
    return "sandbox" if sandbox else job.endpoint.base_url


def open_workload(job: Job, *, sandbox: bool, table: Table | None = None) -> Workload:
    """Opens the input and compiles the job against it. Raises UsageError for whatever is wrong with them.

    A `table` takes the place of the input that the job names.
    """
    table = open_table(input_path(job), job.base) if table is None else table
    labelling, metric = labelling_of(job), _metric_of(job, table.schema.names)
    added = AddedColumns(labelling, metric is not None)
    schema = output_schema(table.schema, added.schema, job.output.prefix)
    builder = RequestBuilder(job, table.schema.names, endpoint_identity(job, sandbox=sandbox))
    if metric is not None:
        _refuse_nothing_expected(job, table)
    workload = Workload(job, table, builder, labelling, metric, schema)
    _try_first_row(workload)
    return workload


def output_schema(input_schema: pa.Schema, added: pa.Schema, prefix: str) -> pa.Schema:
    """The input's columns, then batchrun's. Raises OutputError where a name stands for both."""
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


def labelling_of(job: Job) -> Labelling | None:
    """How the job's rows come to their labels; None for a job without labels."""
    if job.labels is None:
        return None
    from batchrun.labels.reading import make_reader

    return Labelling(make_reader(job.labels), job.labels.repair, job.labels.votes)


def _metric_of(job: Job, columns: Sequence[str]) -> "Metric | None":
    evaluation = job.evaluation
    if evaluation is None:
        return None
    from batchrun.evaluation.metrics import make_metric

    for key in ("expected", "cluster", "stratify"):
        name = getattr(evaluation, key)
        if name is not None and name not in columns:
            raise JobError(no_such_column(f"[evaluation] {key}", name, columns))
    return make_metric(evaluation, job.base)


def _refuse_nothing_expected(job: Job, table: Table) -> None:
    """Rows that nothing is expected of would all be paid for in vain."""
    expected = "" if job.evaluation is None else job.evaluation.expected
    rows = 0
    for batch in table.batches([expected]):
        rows += batch.num_rows
        if batch.column(0).null_count < batch.num_rows:
            return
    if rows:
        raise JobError(
            f"[evaluation] expected: the column {expected!r} is empty in all {rows:,} rows.\n"
            "Fill it in, or leave [evaluation] out."
        )


def _try_first_row(workload: Workload) -> None:
    """A template that fails on the first row is most likely wrong for all of them."""
    used = list(workload.builder.columns)
    for batch in workload.table.batches(used, 1):
        values = python_rows(batch)[0] if used else ()
        first = workload.builder.build(dict(zip(used, values, strict=True)))
        if isinstance(first, InvalidRow) and first.code == "template_error":
            has = ", ".join(workload.table.schema.names)
            raise JobError(f"The first row can't be rendered: {first.message}.\nThe input has: {has}.")
        return


def _separated(
    requests: list[Request | InvalidRow], occurrences: OccurrenceCounter
) -> list[Request | InvalidRow]:
    return [
        separate(request, occurrences.count(request.digest)) if isinstance(request, Request) else request
        for request in requests
    ]
