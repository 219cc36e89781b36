"""Finding the input: paths, globs, URLs, and what is said when there is nothing to read."""

import bz2
import datetime as dt
import gzip
import lzma
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import types

from batchrun.errors import InputError
from batchrun.tables.near_paths import did_you_mean
from batchrun.tables.plain_values import SCALARS, plain_values
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


def test_a_missing_file_is_named_in_full_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("a\n")
    with pytest.raises(InputError) as caught:
        open_table("review.csv", tmp_path)
    meant = f"; did you mean {tmp_path}/reviews.csv?"
    assert str(caught.value) == f"{tmp_path}/review.csv: no such file{meant}"


@pytest.mark.parametrize(
    "path", ["dta/reviews.csv", "data/Review.CSV", "dat/2024/reviews.csv", "DATA/revews.csv"]
)
def test_folders_of_a_missing_file_are_corrected_too(tmp_path: Path, path: str) -> None:
    for folder in ("data", "data/2024"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "reviews.csv").write_text("a\n")
    meant = tmp_path / ("data/2024" if "2024" in path else "data") / "reviews.csv"
    with pytest.raises(InputError, match=f"no such file; did you mean {meant}\\?$"):
        open_table(path, tmp_path)


def test_a_file_that_has_only_the_ending_in_common_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text("a\n")
    (tmp_path / "nothere.toml").write_text("")
    (tmp_path / "reviews.parquet").write_text("")
    (tmp_path / "reviews.csv").write_text("a\n")
    assert did_you_mean(tmp_path / "nothere.csv") == ""
    assert did_you_mean(tmp_path / "review.csv").endswith("reviews.csv?")
    assert did_you_mean(tmp_path / "reviews.json").endswith("reviews.csv?")


def test_a_path_relative_to_another_folder_than_the_job_file_s_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"did you mean {tmp_path}/in.csv\\? Paths are relative to the job"):
        open_table("in.csv", tmp_path / "jobs")


def test_a_name_in_another_form_of_unicode_is_named(tmp_path: Path) -> None:
    (tmp_path / "cafe\N{COMBINING ACUTE ACCENT}.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"no such file.*'cafe\\u0301\.csv'"):
        open_table("caf\N{LATIN SMALL LETTER E WITH ACUTE}.csv", tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no folder {tmp_path}/data either"):
        open_table("data/a.csv", tmp_path)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        open_table(".", tmp_path)


def test_a_pipe_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InputError, match="not a regular file"):
        open_table("a.csv", tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_an_empty_file_is_an_input_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        open_table(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"), [("a.docx", r"\.csv \.tsv \.jsonl"), ("a.parquet.gz", "Unpack it")]
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


def test_a_pattern_in_a_folder_with_brackets_is_one_in_its_last_part(tmp_path: Path) -> None:
    folder = tmp_path / "run[1] *"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text("x\n1\n")
    assert read_all(folder / "[ab].csv").num_rows == 2
    assert open_table("run[1] */*.csv", tmp_path).row_count == 2


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("x\n1\n")
    assert open_table("~/a.csv", Path("/")).row_count == 1
    assert open_table("~/*.csv", Path("/")).row_count == 1


def test_a_glob_without_matches_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        open_table("*.csv", tmp_path)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"a": [1], "b": [1]}, "column 'b' is int64 in one, string in the other"),
        ({"a": [1]}, r"1\.parquet has a column 'b', .*2\.parquet has not"),
        ({"a": [1], "b": ["x"], "c": [1]}, r"2\.parquet has a column 'c'"),
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
        ("ftp://host/a.csv", "batchrun can't read ftp://"),
        ("az://host/a.csv", "only Parquet"),
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
    """Nanoseconds that Python can't hold are ISO 8601, 32-bit floats have their shortest digits."""
    table = every_type()
    rows = python_rows(table.to_batches()[0])
    expected = table.drop_columns(["utc", "float32"]).to_pylist(maps_as_pydicts="strict")
    names = [name for name in table.column_names if name not in ("utc", "float32")]
    places = [table.column_names.index(name) for name in names]
    assert [tuple(row[place] for place in places) for row in rows] == [
        tuple(row.values()) for row in expected
    ]
    utc, float32 = (table.column_names.index(name) for name in ("utc", "float32"))
    assert [row[utc] for row in rows] == [
        "2024-02-29T12:00:00.123456789Z",
        "1969-12-31T23:59:59.999999999Z",
        None,
    ]
    assert [row[float32] for row in rows] == [0.1, 1.0, None]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([10**15], pa.int64()).cast(pa.timestamp("s")), "+31690708-07-05T01:46:40"),
        (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())), [["k", 1], ["k", 2]]),
        (pa.array([10**9], pa.int32()).cast(pa.date32()), "+2739877-01-03"),
    ],
)
def test_a_value_beyond_python_is_text(column: pa.Array, text: object) -> None:
    assert python_rows(pa.record_batch([column], names=["when"])) == [(text,)]


def test_files_that_differ_harmlessly_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    small = pa.schema([pa.field("n", pa.int32(), nullable=False), ("t", pa.string())])
    pq.write_table(pa.table({"n": [1], "t": ["a"]}, schema=small), tmp_path / "run[1]" / "a.parquet")
    large = pa.schema([("t", pa.large_string()), ("n", pa.int64())])
    pq.write_table(pa.table({"t": ["b"], "n": [2**40]}, schema=large), tmp_path / "run[1]" / "b.parquet")
    table = open_table("run[1]/*.parquet", tmp_path)
    assert table.schema.equals(pa.schema([("n", pa.int64()), ("t", pa.large_string())]))
    rows = [row for batch in table.batches() for row in batch.to_pylist()]
    assert rows == [{"n": 1, "t": "a"}, {"n": 2**40, "t": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv.gz", b"id,text\n1,a\n", "is not gzip"),
        ("a.csv", gzip.compress(b"id\n1\n", mtime=0), "is gzip by its content"),
        ("a.csv", b"PK\x03\x04\x14\0\x06\0", "Excel workbook"),
        ("a.csv", b"PAR1\x15\x04\x15\0", "is parquet by its content"),
        ("a.parquet", b"PARE\x15\x04\x15\0", "encrypted"),
        ("a.feather", b"FEA1\0\0\0\0", "version 1"),
        ("a.arrow", b"PK\x03\x04\x14\0\x06\0", "Excel workbook"),
        ("a.xlsx", b"id,text\n1,a\n", "not a workbook"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        open_table(name, tmp_path)


def test_text_that_begins_like_another_kind_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("PAR1,BZh\n1,2\n")
    assert open_table("a.csv", tmp_path).schema.names == ["PAR1", "BZh"]


@pytest.mark.parametrize(("ending", "module"), [("bz2", bz2), ("xz", lzma), ("gz", gzip)])
@pytest.mark.parametrize(("name", "text"), [("a.csv", b"id,t\n1,x\n"), ("a.jsonl", b'{"id":1,"t":"x"}\n')])
def test_compressed_text_is_read(tmp_path: Path, ending: str, module: Any, name: str, text: bytes) -> None:
    (tmp_path / f"{name}.{ending}").write_bytes(module.compress(text))
    assert read_all(tmp_path / f"{name}.{ending}").to_pylist() == [{"id": 1, "t": "x"}]
    (tmp_path / f"{name}.{ending}").write_bytes(module.compress(text * 1000)[:-9])
    with pytest.raises(InputError):
        open_table(f"{name}.{ending}", tmp_path)


def test_stdin_is_refused_with_a_word(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stdin can't be the input"):
        open_table("-", tmp_path)


@pytest.mark.parametrize("kind", sorted(SCALARS, key=str), ids=str)
def test_values_are_the_same_without_polars(kind: pa.DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    by_kind = {"string": ["ä", "", None], "binary": [b"\xff", b"", None], "bool": [True, None, False]}
    name = str(kind).removeprefix("large_")
    numbers = [None, 1.1, float("inf"), -0.0, 1e-40] if types.is_floating(kind) else [None, 0, 100, 1]
    column = pa.array(by_kind.get(name, numbers), kind)
    by_polars = pl.Series(column).to_list()
    monkeypatch.delitem(sys.modules, "polars")
    assert repr(plain_values(column)) == repr(by_polars)
    assert "polars" not in sys.modules


def test_values_of_categories_are_read_without_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    column = pa.array(["b", None, "a", "b"]).dictionary_encode()
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    assert plain_values(column) == ["b", None, "a", "b"]
    assert plain_values(column[2:]) == ["a", "b"]
    assert "polars" not in sys.modules
