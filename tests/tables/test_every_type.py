"""Every type of Arrow, nested and not, in every output: written exactly, and tried before any request."""

import csv
import datetime as dt
import io
import json
from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc
from pyarrow.parquet import encryption

from batchrun.client.templates import Templates
from batchrun.errors import InputError, OutputError
from batchrun.tables.exact_values import exact_values
from batchrun.tables.reader import in_memory, open_table
from batchrun.tables.storable import as_text
from batchrun.tables.trial import check_values
from batchrun.tables.writer import replace_table
from tests.tables.tables import NOON, every_type


def deep_lists(levels: int) -> pa.Array:
    column = pa.array([1, 2])
    for _ in range(levels):
        column = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), column)
    return column


BEYOND = {
    "after_9999": pa.array([2_932_897, -719_529], pa.int32()).cast(pa.date32()),
    "late": pa.array([253_402_300_800, -62_135_596_801], pa.timestamp("s")),
    "nanoseconds": pa.array([1_709_208_000_123_456_789, 1], pa.timestamp("ns")),
    "duration_ns": pa.array([123_456_789, -1], pa.duration("ns")),
    "time_ns": pa.array([1, 86_399_999_999_999], pa.time64("ns")),
    "unknown_zone": pa.array([0, 1], pa.timestamp("s", "W. Europe Standard Time")),
    "offset_zone": pa.array([0, 1], pa.timestamp("s", "+05:30")),
    "category_view": pa.DictionaryArray.from_arrays(
        pa.array([1, 0], pa.uint32()), pa.array(["a", "b"], pa.string_view())
    ),
    "category_int": pa.array([7, 8]).dictionary_encode(),
    "text_view": pa.array(["x", "a string that is longer than twelve bytes"], pa.string_view()),
    "binary_view": pa.array([b"x", b"\xff" * 20], pa.binary_view()),
    "large_binary": pa.array([b"x", b"\xff"], pa.large_binary()),
    "uuid": pa.array([UUID(int=5).bytes, UUID(int=6).bytes], pa.uuid()),
    "negative_scale": pa.array([Decimal(1200), Decimal(-500)], pa.decimal128(10, -2)),
    "decimal32": pa.array([Decimal("1.10"), Decimal("0.00")], pa.decimal32(5, 2)),
    "empty_struct": pa.array([{}, None], pa.struct([])),
    "interval": pa.array([pa.MonthDayNano([1, 2, 3]), pa.MonthDayNano([0, 0, -1])]),
    "large_list_view": pa.array([[1, 2], [3]], pa.large_list_view(pa.int8())),
    "category_time": pa.array([NOON, NOON]).dictionary_encode(),
    "dense_union": pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
    ),
    "json": pa.array(['{"a": 1}', "[null]"], pa.json_()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "x", "y"), pa.array([b"a", b"\xff"])),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]),
        pa.FixedSizeListArray.from_arrays(pa.array([0.1, 1, 2, 3], pa.float32()), 2),
    ),
    "deep_lists": deep_lists(40),
    "list_view": pa.array([[1, 2], [3]], pa.list_view(pa.int8())),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2], pa.array(["x", "y"])),
    "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]),
    "map_of_ints": pa.array([[(1, "x")], [(2, "y"), (3, None)]], pa.map_(pa.int32(), pa.string())),
    "map_of_structs": pa.array([[({"x": 1}, "a")], []], pa.map_(pa.struct([("x", pa.int32())]), pa.string())),
    "map_of_times": pa.array([[(NOON, 1)], []], pa.map_(pa.timestamp("ns"), pa.int64())),
    "map_twice": pa.array([[("k", 1), ("k", 2)], []], pa.map_(pa.string(), pa.int64())),
}


def of_two(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return (column.chunk(0) if isinstance(column, pa.ChunkedArray) else column).slice(0, 2)


SINGLE = {name: of_two(every_type()[name]) for name in every_type().column_names} | BEYOND


def nested(column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The values of a column by themselves, and inside each kind of nesting."""
    yield "alone", column
    offsets = pa.array([0, 2, 2], pa.int32())  # a list of both values, and an empty one
    yield "list", pa.ListArray.from_arrays(offsets, column)
    yield "large_list", pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), column)
    yield "fixed_list", pa.FixedSizeListArray.from_arrays(column, 1)
    yield "struct", pa.StructArray.from_arrays([column, column], ["a", "b"])
    yield "map", pa.MapArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array(["k", "l"]), column)
    inner = pa.StructArray.from_arrays([column], ["deep"])
    yield "list_of_structs", pa.ListArray.from_arrays(offsets, inner)


NESTINGS = [name for name, _ in nested(pa.array([1, 2]))]


def of(nesting: str) -> pa.Table:
    """A table with a column of each type, nested so."""
    columns = {name: dict(nested(column))[nesting] for name, column in SINGLE.items()}
    return pa.table({name: column for name, column in columns.items() if len(column) == 2})


def written(path: Path, data: pa.Table) -> Path:
    """The file after the values went through a trial, and then, slice by slice, into the output."""
    table = in_memory(data, "t")
    check_values(path, table)
    with replace_table(path, table.schema, dict) as output:
        for batch in table.batches(rows=1):
            output.write(batch)
    return path


def as_json(array: pa.Array) -> list[Any]:
    """The values as JSON has them, decimals as text, infinities as null."""
    values = json.loads(json.dumps(exact_values(array), default=lambda value: f"{value:f}"))
    return json.loads(json.dumps(values).replace("-Infinity", "null").replace("Infinity", "null"))  # type: ignore[no-any-return]


def columns(data: pa.Table) -> dict[str, pa.Array]:
    return {name: data[name].combine_chunks() for name in data.column_names}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_every_type_is_written_exactly_in_json_lines(tmp_path: Path, nesting: str) -> None:
    data = of(nesting).drop_columns("unknown_zone")
    rows = [json.loads(line) for line in written(tmp_path / "a.jsonl", data).read_text().splitlines()]
    for name, array in columns(data).items():
        assert [row[name] for row in rows] == as_json(array), name


@pytest.mark.parametrize("nesting", NESTINGS)
def test_every_type_is_written_exactly_in_csv(tmp_path: Path, nesting: str) -> None:
    data = of(nesting).drop_columns("unknown_zone")
    file = io.StringIO(written(tmp_path / "a.csv", data).read_text(), newline="")
    rows = list(csv.DictReader(file))
    for name, array in columns(data).items():
        cells = [row[name].replace("-inf", "null") for row in rows]
        assert cells == [as_text(value) or "" for value in exact_values(array)], name


@pytest.mark.parametrize("nesting", NESTINGS)
def test_every_type_is_written_exactly_in_parquet(tmp_path: Path, nesting: str) -> None:
    data = of(nesting)
    found = columns(pq.read_table(written(tmp_path / "a.parquet", data)))
    for name, array in columns(data).items():
        if found[name].type == pa.string() and array.type != pa.string():
            assert found[name].to_pylist() == [as_text(value) for value in exact_values(array)], name
        else:
            assert as_json(found[name]) == as_json(_as_parquet_has_it(array)), name


def _as_parquet_has_it(array: pa.Array) -> pa.Array:
    """`array` after a round trip through Parquet by pyarrow alone, where that can write it."""
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"x": array}), sink)
        return pq.read_table(pa.BufferReader(sink.getvalue())).column("x").combine_chunks()
    except (pa.ArrowException, OSError, TypeError):
        return array


@pytest.mark.parametrize("array", [pytest.param(array, id=name) for name, array in SINGLE.items()])
def test_every_type_comes_into_a_prompt(tmp_path: Path, array: pa.Array) -> None:
    for place, (_, column) in enumerate(nested(array)):
        table = in_memory(pa.table({"x": column}), "t")
        (batch,) = table.batches()
        for (value,) in table.template_rows(batch, ["x"]):
            if not isinstance(value, bytes):
                assert isinstance(Templates([("t", "{{ x }}")], ["x"]).render("t", {"x": value}), str), place


@pytest.mark.parametrize("nesting", NESTINGS)
def test_other_readers_open_what_is_written_in_parquet(tmp_path: Path, nesting: str) -> None:
    """But for what polars or DuckDB have no way to read: the types stay in the file for readers that have."""
    data = of(nesting).drop_columns("map_twice")
    path = written(tmp_path / "duckdb.parquet", data)
    with duckdb.connect() as connection:
        assert len(connection.read_parquet(str(path)).fetchall()) == data.num_rows
    unknown_to_polars = ("big_decimal", "unknown_zone", "offset_zone", "list_view", "large_list_view")
    path = written(tmp_path / "polars.parquet", data.drop_columns(list(unknown_to_polars)))
    assert pl.read_parquet(path).height == data.num_rows


def test_a_struct_with_two_fields_of_one_name_is_refused(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    nested_twice = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), twice)
    for column in (twice, nested_twice):
        with pytest.raises(InputError, match="column 'x' has two fields named 'a'"):
            in_memory(pa.table({"x": column}), "t")


def test_an_encrypted_column_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def __init__(self, _: encryption.KmsConnectionConfig) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return b64encode(key)

    factory = encryption.CryptoFactory(Keys)
    settings = encryption.EncryptionConfiguration("f", column_keys={"k": ["b"]}, plaintext_footer=True)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"a": ["x"], "b": ["y"]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match=r"a\.parquet has encrypted columns"):
        check_values(tmp_path / "out.csv", open_table("a.parquet", tmp_path))


def test_what_is_written_under_another_type_is_said(tmp_path: Path) -> None:
    table = in_memory(pa.table({"c": BEYOND["category_view"], "n": [1, 2]}), "t")
    (note,) = check_values(tmp_path / "a.parquet", table)
    assert note.startswith("column 'c' of type dictionary")
    assert check_values(tmp_path / "a.csv", table) == []


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_times_of_an_unknown_zone_are_kept_in_parquet_alone(tmp_path: Path, ending: str) -> None:
    for _, column in nested(BEYOND["unknown_zone"]):
        table = in_memory(pa.table({"at": column}), "t")
        assert check_values(tmp_path / "a.parquet", table) == []
        with pytest.raises(OutputError, match=r"'at' .*time zone is unknown"):
            check_values(tmp_path / f"a.{ending}", table)


def test_a_damaged_column_that_no_prompt_uses_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": ["x"] * 100, "b": [f"text {number}" for number in range(100)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"text 50", b"tExt 50"))
    with pytest.raises(InputError, match=r"a\.parquet.*CRC"):
        check_values(tmp_path / "out.csv", open_table("a.parquet", tmp_path))


def test_text_that_is_not_utf8_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    with ipc.new_file(tmp_path / "a.arrow", pa.schema([("x", pa.string())])) as writer:
        writer.write_batch(pa.record_batch({"x": bad}))
    with pytest.raises(InputError, match="damaged"):
        check_values(tmp_path / "out.csv", open_table("a.arrow", tmp_path))


def test_old_timestamps_of_96_bits_do_not_wrap_around(tmp_path: Path) -> None:
    times = [dt.datetime(9999, 12, 31), dt.datetime(1000, 1, 1)]  # noqa: DTZ001
    table = pa.table({"t": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (batch,) = open_table("a.parquet", tmp_path).batches()
    assert batch.column(0).to_pylist() == times


def test_a_float_of_32_bits_has_its_shortest_text(tmp_path: Path) -> None:
    table = in_memory(pa.table({"x": pa.array([0.1], pa.float32())}), "t")
    (batch,) = table.batches()
    assert table.template_rows(batch, ["x"]) == [(0.1,)]


def test_metadata_of_the_input_stands_in_the_output(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())], metadata={"huggingface": "{}"})
    pq.write_table(pa.table({"n": [1]}, schema=schema), tmp_path / "in.parquet")
    table = open_table("in.parquet", tmp_path)
    with replace_table(tmp_path / "out.parquet", table.schema, dict) as output:
        for batch in table.batches():
            output.write(batch)
    assert pq.read_schema(tmp_path / "out.parquet").metadata == {b"huggingface": b"{}"}
