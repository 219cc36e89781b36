"""Finding the input: paths, globs, URLs, and what is said when there is nothing to read."""

import datetime as dt
import gzip
import os
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import InputError
from batchrun.tables.reader import open_table, python_rows
from tests.tables.tables import as_parquet_stores, every_type, open_to_all, read_all


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize(("ending", "compress"), [("", bytes), (".gz", gzip.compress), (".zst", zstd)])
def test_text_files_are_read_plain_and_compressed(
    tmp_path: Path, name: str, ending: str, compress: type[bytes]
) -> None:
    content = {"csv": b"a,b\n1,x\n", "tsv": b"a\tb\n1\tx\n"}.get(name[2:], b'{"a": 1, "b": "x"}\n')
    (tmp_path / f"{name}{ending}").write_bytes(compress(content))
    assert read_all(tmp_path / f"{name}{ending}").to_pydict() == {"a": [1], "b": ["x"]}


def test_endings_are_known_in_capitals_too(tmp_path: Path) -> None:
    (tmp_path / "A.CSV").write_text("a\nx\n")
    assert read_all(tmp_path / "A.CSV").to_pydict() == {"a": ["x"]}


def test_a_missing_file_is_named_in_full_with_its_near_names(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("a\n")
    with pytest.raises(InputError) as caught:
        open_table("review.csv", tmp_path)
    assert str(caught.value) == f"{tmp_path}/review.csv: no such file. In that folder: reviews.csv"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no folder {tmp_path}/data either"):
        open_table("data/a.csv", tmp_path)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        open_table(".", tmp_path)


def test_a_pipe_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no regular file"):
        open_table("a.csv", tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_an_empty_file_is_an_input_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        open_table(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"), [("a.xlsx", r"\.csv \.tsv \.jsonl"), ("a.parquet.gz", "Unpack it")]
)
def test_an_unknown_ending_names_the_known_ones(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=problem):
        open_table(name, tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_a_file_without_permission_is_an_input_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an unprivileged user, which a superuser becomes for this test."""
    (tmp_path / name).write_text("x")
    (tmp_path / name).chmod(0)
    if os.geteuid() == 0:
        open_to_all([tmp_path, *tmp_path.parents])
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match="permission denied"):
            open_table(name, tmp_path)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_glob_reads_its_files_sorted(tmp_path: Path) -> None:
    for name in ["b", "a", "c"]:
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    table = open_table("*.csv", tmp_path)
    assert [Path(file).name for file in table.files] == ["a.csv", "b.csv", "c.csv"]
    assert read_all(tmp_path / "*.csv").to_pydict() == {"x": ["a", "b", "c"]}
    assert table.row_count == 3


def test_a_name_with_brackets_is_no_glob_where_that_file_exists(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("x\ny\n")
    assert read_all(tmp_path / "a[1].csv").num_rows == 1


def test_a_glob_without_matches_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        open_table("*.csv", tmp_path)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"a": [1], "b": [1]}, "column 'b' is int64 in one, string in the other"),
        ({"a": [1]}, r"1\.parquet has a column 'b', .*2\.parquet has not"),
        ({"a": [1], "b": ["x"], "c": [1]}, r"2\.parquet has a column 'c'"),
        ({"b": ["x"], "a": [1]}, "where one has column 'a', the other has 'b'"),
    ],
)
def test_files_with_different_columns_are_named(
    tmp_path: Path, other: dict[str, list[object]], problem: str
) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table(other), tmp_path / "2.parquet")
    with pytest.raises(InputError, match=problem) as caught:
        open_table("*.parquet", tmp_path)
    assert "1.parquet" in str(caught.value)
    assert "2.parquet" in str(caught.value)


def test_a_glob_over_two_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\ny\n")
    (tmp_path / "a.jsonl").write_text('{"x": "y"}\n')
    with pytest.raises(InputError, match="different kinds"):
        open_table("a.*", tmp_path)


@pytest.mark.parametrize("pattern", ["a.parquet", "*.parquet"])
def test_a_url_goes_through_the_file_system_of_its_scheme(tmp_path: Path, pattern: str) -> None:
    pq.write_table(every_type(), tmp_path / "a.parquet")
    table = open_table(f"file://{tmp_path}/{pattern}", Path("/nowhere"))
    assert table.files == (f"file://{tmp_path}/a.parquet",)
    assert pa.Table.from_batches(table.batches()).equals(as_parquet_stores(every_type()))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///nowhere/a.csv", "no such file"),
        ("ftp://host/a.csv", "nothing here reads ftp://"),
        ("https://host/a.csv", "only Parquet"),
        ("file:///*/a.csv", "last part only"),
        ("file:///etc/*.nothing", "no object matches"),
    ],
)
def test_a_url_that_leads_nowhere_is_an_input_error(url: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        open_table(url, Path("/"))


def test_python_rows_are_tuples_of_python_values() -> None:
    batch = (
        every_type()
        .select(["text", "uint64", "decimal", "local", "duration", "struct", "map"])
        .to_batches()[0]
    )
    assert python_rows(batch)[0] == (
        "",
        2**64 - 1,
        Decimal("1.10"),
        dt.datetime(2024, 2, 29, 12, 0, 0, 123456),  # noqa: DTZ001
        dt.timedelta(microseconds=-1),
        {"id": 1, "tags": ["x", None]},
        {"k": 1},
    )
    assert python_rows(batch)[2] == (None,) * 7
    assert python_rows(batch.select([])) == [(), (), ()]


def test_every_type_has_python_values() -> None:
    """Nanoseconds are cut to microseconds; all else is equal to what Arrow gives."""
    table = every_type()
    rows = python_rows(table.to_batches()[0])
    expected = table.set_column(
        table.schema.get_field_index("utc"), "utc", table["utc"].cast(pa.timestamp("us", "UTC"), safe=False)
    ).to_pylist(maps_as_pydicts="strict")
    assert rows == [tuple(row.values()) for row in expected]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([10**15], pa.int64()).cast(pa.timestamp("s")),
        pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())),
        pa.array([10**9], pa.int32()).cast(pa.date32()),
    ],
)
def test_a_value_beyond_python_is_an_input_error_that_names_the_column(column: pa.Array) -> None:
    with pytest.raises(InputError, match="column 'when'"):
        python_rows(pa.record_batch([column], names=["when"]))
