"""Parquet and Arrow IPC: exact types, flat memory, and clear words about damaged files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc

from batchrun.errors import InputError
from batchrun.tables.arrow_file import open_remote_parquet
from batchrun.tables.reader import open_table
from tests.tables.tables import as_parquet_stores, every_type, read_all


def write_stream(table: pa.Table, path: Path) -> None:
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather", ".stream.ipc"])
def test_every_type_comes_through(tmp_path: Path, ending: str) -> None:
    """Schema and values are those of the table that was written, from all formats."""
    table = as_parquet_stores(every_type())
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    elif ending == ".stream.ipc":
        write_stream(table, path)
    else:
        feather.write_feather(table, str(path), compression="zstd")
    assert open_table(path.name, tmp_path).row_count == 3
    assert read_all(path).equals(table)


def test_metadata_of_the_file_belongs_to_the_table_and_not_to_its_batches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"pandas": "{}"}), tmp_path / "a.parquet")
    table = open_table("a.parquet", tmp_path)
    assert table.schema.metadata == {b"pandas": b"{}"}
    assert [batch.schema.metadata for batch in table.batches()] == [None]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_columns_come_in_the_order_asked_for(tmp_path: Path, ending: str) -> None:
    """A name with a dot is a name, and no columns at all still tell the number of rows."""
    table = pa.table({"a": [1, 2], "a.b": ["x", "y"], "c": [None, 0.5]})
    path = tmp_path / f"a{ending}"
    (pq.write_table if ending == ".parquet" else feather.write_feather)(table, str(path))
    assert read_all(path, columns=["c", "a"]).equals(table.select(["c", "a"]))
    assert [batch.num_rows for batch in open_table(str(path), tmp_path).batches([])] == [2]


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_batches_are_bounded_and_can_be_read_again(tmp_path: Path, ending: str) -> None:
    table = pa.table({"n": range(1000)})
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(table, path)
    elif ending == ".arrow":
        feather.write_feather(table, str(path))
    else:
        rows = ["n", *map(str, range(1000))] if ending == ".csv" else [f'{{"n": {n}}}' for n in range(1000)]
        path.write_text("\n".join(rows))
    opened = open_table(path.name, tmp_path)
    for _ in range(2):
        batches = list(opened.batches(rows=300))
        assert max(batch.num_rows for batch in batches) <= 300
        assert [n for batch in batches for n in batch.column(0).to_pylist()] == list(range(1000))
    assert opened.row_count == 1000


def test_memory_stays_flat_in_one_large_row_group(tmp_path: Path) -> None:
    """300,000 rows, 75 MB of text in one row group, are read in a few megabytes."""
    path = tmp_path / "a.parquet"
    texts = [f"{n:0250d}" for n in range(300_000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=len(texts), use_dictionary=False)
    assert pq.ParquetFile(path).num_row_groups == 1
    del texts
    before = pa.total_allocated_bytes()
    highest = rows = 0
    for batch in open_table("a.parquet", tmp_path).batches():
        rows += batch.num_rows
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert rows == 300_000
    assert highest < 20 << 20


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", b"PAR1" + bytes(1000), r"a.parquet \(1,004 bytes\) seems cut off"),
        ("a.parquet", b"PAR1PAR1", "seems cut off"),
        ("a.parquet", b"PAR1" + bytes(1000) + b"PAR1", r"a\.parquet"),
        ("a.parquet", b"name,text\n", "is not a Parquet file"),
        ("a.arrow", b"ARROW1\0\0" + bytes(100), "or it was cut off"),
        ("a.arrow", b"name,text\n", "not an Arrow IPC file"),
    ],
)
def test_a_damaged_file_is_an_input_error(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        open_table(name, tmp_path)


def test_a_stream_that_was_cut_off_is_found_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_stream(every_type(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cut off"):
        open_table("a.arrow", tmp_path)


def test_a_column_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="columns 1 and 2 are both named 'a'"):
        open_table("a.parquet", tmp_path)


def test_the_way_through_polars_reads_the_same_rows(tmp_path: Path) -> None:
    """What serves https:// and az:// is tried out on a local file."""
    table = pa.table({"n": range(1000), "text": [f"t{n}" for n in range(1000)]})
    pq.write_table(table, tmp_path / "a.parquet")
    file = open_remote_parquet(str(tmp_path / "a.parquet"))
    rows = [row for batch in file.read(["n", "text"], 300) for row in batch.to_pylist()]
    assert (file.row_count, rows) == (1000, table.to_pylist())
    with pytest.raises(InputError, match=r"gone\.parquet"):
        open_remote_parquet(str(tmp_path / "gone.parquet"))
