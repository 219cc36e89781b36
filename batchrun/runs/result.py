"""The result of a run in Python: its summary, and its output as a table."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from batchrun.amounts import NANO, usd_text
from batchrun.errors import OutputError, UsageError
from batchrun.job.spec import Job
from batchrun.runs.summary import Summary
from batchrun.tables.reader import Table, open_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Source:
    """Where the result comes from: its job, and the table that replaced the job's input."""

    job: Job
    table: Table | None
    sandbox: bool


_STATUSES = ("ok", "invalid", "failed", "pending")


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """How a run ended, and its output. `summary` is what summary.json holds, as docs/output.md explains.

    >>> import batchrun, pyarrow
    >>> job = {
    ...     "prompt": {"template": "Translate: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 256},
    ... }
    >>> result = batchrun.run(job, input=pyarrow.table({"text": ["Guten Tag", "Hallo"]}), sandbox=True)
    >>> result.table.select(["text", "status", "attempts"]).to_pylist()[0]
    {'text': 'Guten Tag', 'status': 'ok', 'attempts': 1}
    >>> result.summary["rows"]["ok"], result.summary["usd"]["uncertain"]
    (2, 0.0)

    `output` is the file that was written; None if the table is only in memory, or nothing was written.
    """

    summary: Summary
    output: Path | None = None
    in_memory: pa.Table | None = None
    source: Source | None = None

    def __repr__(self) -> str:
        rows, usd = self.summary["rows"], self.summary["usd"]
        counts = ", ".join(f"{rows[status]:,} {status}" for status in _STATUSES if rows[status])
        cost = usd_text(round(usd["settled"] * NANO))
        where = f", written to {self.output}" if self.output is not None else ""
        end = f"exit code {self.exit_code}{where}"
        return f"<Result: {counts or 'none'} of {rows['total']:,} rows, {cost}, {end}>"

    def _repr_html_(self) -> str:
        """Returns the summary as a table, which notebooks show."""
        from batchrun.runs.result_html import summary_html

        return summary_html(self.summary)

    def report(self, path: str | PathLike[str], *, by: str | None = None) -> None:
        """Writes an HTML page about the job as it stands: run, answers, evaluation, rows to read.

        `by` is a column of the input, for cost and score of each group. Raises UsageError if the journal was
        temporary, OutputError if the file can't be written, JournalError.
        """
        from batchrun.runs.report.write import write_report

        if self.source is None:
            raise UsageError("the journal was temporary: name an output.path or a journal in the call")
        job, table, sandbox = self.source.job, self.source.table, self.source.sandbox
        write_report(job, Path(path), sandbox=sandbox, table=table, by=by)

    @property
    def exit_code(self) -> int:
        """The command's: 0 every row has an answer, 3 some failed or are invalid, 4 a cap, 5 the endpoint."""
        code: int = self.summary["exit_code"]
        return code

    @property
    def reason(self) -> str:
        """Returns a sentence why the run ended."""
        reason: str = self.summary["reason"]
        return reason

    @property
    def table(self) -> pa.Table:
        """Returns one row for each row of the input, in its order: the input's columns, then batchrun's.

        If there is a file, every call reads its current content; CSV and JSON Lines with the types that they
        get as input. Raises InputError if it no longer exists, OutputError if the run ended before writing
        it.
        """
        if self.output is not None:
            return read_table(self.output)
        if self.in_memory is None:
            raise OutputError("The run was ended at once, before its output was written: export() writes it")
        return self.in_memory

    def to_polars(self) -> pl.DataFrame:
        """Returns `table` as a polars DataFrame."""
        return pl.DataFrame(self.table)

    def to_pandas(self) -> "pd.DataFrame":
        """Returns `table` as a pandas DataFrame with a new index. Raises ImportError without pandas."""
        return self.table.to_pandas()


def read_table(path: Path) -> pa.Table:
    """Reads a file as one table in memory. Raises InputError."""
    table = open_table(str(path), path.parent)
    return pa.Table.from_batches(table.batches(), table.schema)
