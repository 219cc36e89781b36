"""What a run gives back to Python: its summary, and its output as a table."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from batchrun.errors import OutputError
from batchrun.summary import Summary
from batchrun.tables.reader import open_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, and its output. `summary` is what summary.json holds, as docs/output.md explains.

    >>> import batchrun, pyarrow
    >>> job = {
    ...     "prompt": {"template": "Translate: {{ text }}"},
    ...     "request": {"model": "abliterated-model", "max_tokens": 16},
    ... }
    >>> result = batchrun.run(job, input=pyarrow.table({"text": ["Guten Tag", "Hallo"]}), sandbox=True)
    >>> result.table.select(["text", "status", "attempts"]).to_pylist()[0]
    {'text': 'Guten Tag', 'status': 'ok', 'attempts': 1}
    >>> result.summary["rows"]["ok"], result.summary["usd"]["uncertain"]
    (2, 0.0)

    `output` is the file that was written; None where the table is in memory alone, or where nothing was
    written.
    """

    summary: Summary = field(repr=False)
    output: Path | None
    in_memory: pa.Table | None = field(default=None, repr=False)

    @property
    def exit_code(self) -> int:
        """The command's: 0 every row has an answer, 3 some failed or are invalid, 4 a cap, 5 the endpoint."""
        code: int = self.summary["exit_code"]
        return code

    @property
    def reason(self) -> str:
        """One sentence: why the run ended."""
        reason: str = self.summary["reason"]
        return reason

    @property
    def table(self) -> pa.Table:
        """One row for each row of the input, in its order: the input's columns, then batchrun's.

        Where there is a file, every call reads it as it is now; CSV and JSON Lines with the types that they
        get as input. Raises InputError where it has gone, OutputError where the run was ended before it was
        written.
        """
        if self.output is not None:
            return read_table(self.output)
        if self.in_memory is None:
            raise OutputError("The run was ended at once, before its output was written: export() writes it")
        return self.in_memory

    def to_polars(self) -> pl.DataFrame:
        """`table` as a polars DataFrame."""
        return pl.DataFrame(self.table)

    def to_pandas(self) -> "pd.DataFrame":
        """`table` as a pandas DataFrame with a fresh index. Raises ImportError without pandas."""
        return self.table.to_pandas()


def read_table(path: Path) -> pa.Table:
    """A file as one table in memory. Raises InputError."""
    table = open_table(str(path), path.parent)
    return pa.Table.from_batches(table.batches(), table.schema)
