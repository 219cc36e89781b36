"""What the tests of tables share: a table with a column of every type, and reading one back."""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchrun.tables.reader import open_table

NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 123456)  # noqa: DTZ001


def every_type() -> pa.Table:
    """Two rows and a row of nulls, in every type that Parquet and Arrow IPC keep."""
    nanoseconds = pa.array([1_709_208_000_123_456_789, -1, None], pa.int64())
    ticks = pa.array([1, 86_400, None], pa.int64())
    nested = [{"id": 1, "tags": ["x", None]}, {"id": None, "tags": []}]
    columns: dict[str, pa.Array] = {
        "text": pa.array(["", "naïve 🙂\nline", None]),
        "large_text": pa.array(["a", "", None], pa.large_string()),
        "int64": pa.array([2**63 - 1, -(2**63), None]),
        "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
        "int8": pa.array([-128, 127, None], pa.int8()),
        "float64": pa.array([0.1, float("-inf"), None]),
        "float32": pa.array([0.1, 1.0, None], pa.float32()),
        "float16": pa.array([0.5, 1.0, None], pa.float16()),
        "bool": pa.array([True, False, None]),
        "decimal": pa.array([Decimal("1.10"), Decimal("-0.01"), None], pa.decimal128(10, 2)),
        "big_decimal": pa.array([Decimal("1" * 45 + ".50"), Decimal("0.00"), None], pa.decimal256(60, 2)),
        "date": pa.array([dt.date(2024, 2, 29), dt.date(1, 1, 1), None]),
        "date64": pa.array([dt.date(2024, 2, 29), dt.date(1970, 1, 1), None], pa.date64()),
        "time": pa.array([dt.time(1, 2, 3, 4), dt.time(), None], pa.time64("us")),
        "time_s": pa.array([dt.time(1, 2, 3), dt.time(), None], pa.time32("s")),
        "local": pa.array([NOON, None, None], pa.timestamp("us")),
        "seconds": ticks.cast(pa.timestamp("s")),
        "utc": nanoseconds.cast(pa.timestamp("ns", "UTC")),
        "berlin": pa.array([0, 1, None], pa.int64()).cast(pa.timestamp("ms", "Europe/Berlin")),
        "duration": pa.array([-1, 90_061_000_001, None], pa.int64()).cast(pa.duration("us")),
        "binary": pa.array([b"\x00\xff", b"", None]),
        "fixed": pa.array([b"ab", b"cd", None], pa.binary(2)),
        "category": pa.array(["b", "a", None]).dictionary_encode(),
        "list": pa.array([["x", None], [], None], pa.list_(pa.string())),
        "fixed_list": pa.array([[1, 2], [3, None], None], pa.list_(pa.int16(), 2)),
        "large_list": pa.array([[1], [], None], pa.large_list(pa.int64())),
        "struct": pa.array([*nested, None]),
        "structs": pa.array([nested, [], None]),
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(3),
    }
    return pa.table(columns)


def read_all(path: Path, **options: Any) -> pa.Table:
    """The whole table at `path`."""
    table = open_table(str(path), path.parent)
    columns = options.get("columns") or table.schema.names
    schema = pa.schema([table.schema.field(name) for name in columns])
    return pa.Table.from_batches(list(table.batches(**options)), schema)


def as_parquet_stores(table: pa.Table) -> pa.Table:
    """`table` with the three types that Parquet itself lacks replaced by what it stores instead."""
    stored = {"date64": pa.date32(), "time_s": pa.time32("ms"), "seconds": pa.timestamp("ms")}
    return table.cast(
        pa.schema([field.with_type(stored.get(field.name, field.type)) for field in table.schema])
    )


def open_to_all(folders: Iterable[Path]) -> None:
    """Makes the folders that the test run created accessible to every user."""
    for folder in folders:
        if "pytest-of-" in str(folder):
            folder.chmod(0o755)
