"""The input of the benchmarks: `python -m benchmarks.rows PATH ROWS` writes it.

In a process of its own, since a process that starts another hands its peak of memory on to it.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

ROWS_AT_ONCE = 65_536
REVIEW = "the room was clean and quiet, but nobody answered when we asked for towels again and again"


def text(row: int) -> str:
    """A review of some 110 characters, another one for each row."""
    return f"Review {row}: {REVIEW}"


def write_rows(path: Path, rows: int) -> None:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    is_csv = path.suffix == ".csv"
    with (
        csv.CSVWriter(path, schema)
        if is_csv
        else pq.ParquetWriter(path, schema, compression="zstd") as writer
    ):
        for start in range(0, rows, ROWS_AT_ONCE):
            some = range(start, min(rows, start + ROWS_AT_ONCE))
            writer.write_batch(pa.record_batch([list(some), [text(row) for row in some]], schema=schema))


if __name__ == "__main__":
    write_rows(Path(sys.argv[1]), int(sys.argv[2]))
