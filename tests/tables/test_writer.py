"""Output tables: exact, complete, and replaced in one step or not at all."""

import csv
import json
import os
import resource
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import OutputError, StorageError
from batchrun.tables.text_rows import CsvStyle
from batchrun.tables.writer import ROWS_PER_GROUP, check_writable, replace_table
from tests.tables.tables import as_parquet_stores, every_type, open_to_all, read_all


def no_metadata() -> Mapping[str, str]:
    return {}


def write(path: Path, table: pa.Table, rows: int = 1000) -> None:
    with replace_table(path, table.schema, no_metadata) as output:
        for batch in table.to_batches(max_chunksize=rows):
            output.write(batch)


@pytest.mark.parametrize("rows", [1, 1000])
def test_every_type_is_kept_in_parquet(tmp_path: Path, rows: int) -> None:
    table = as_parquet_stores(every_type())
    write(tmp_path / "a.parquet", table, rows)
    assert read_all(tmp_path / "a.parquet").equals(table)


def test_categories_may_differ_from_batch_to_batch(tmp_path: Path) -> None:
    """Batches from different row groups bring dictionaries of their own."""
    batches = [pa.record_batch({"c": pa.array(list(text)).dictionary_encode()}) for text in ("ab", "ca")]
    with replace_table(tmp_path / "a.parquet", batches[0].schema, no_metadata) as output:
        for batch in batches:
            output.write(batch)
    assert read_all(tmp_path / "a.parquet").schema == batches[0].schema
    assert read_all(tmp_path / "a.parquet")["c"].to_pylist() == ["a", "b", "c", "a"]


def test_small_batches_make_large_row_groups(tmp_path: Path) -> None:
    table = pa.table({"n": range(3 * ROWS_PER_GROUP)})
    write(tmp_path / "a.parquet", table, rows=500)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(groups) == table.num_rows
    assert min(groups) >= 10_000
    assert max(groups) < ROWS_PER_GROUP + 500
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_metadata_is_asked_for_at_the_end_and_stands_beside_the_schema(tmp_path: Path) -> None:
    found: dict[str, str] = {}
    schema = pa.schema([("n", pa.int64())], metadata={"pandas": "{}"})
    with replace_table(tmp_path / "a.parquet", schema, lambda: found) as output:
        output.write(pa.record_batch({"n": [1]}))
        found["batchrun.summary"] = '{"rows": 1}'
    metadata = pq.read_metadata(tmp_path / "a.parquet").metadata
    assert metadata[b"batchrun.summary"] == b'{"rows": 1}'
    assert metadata.keys() == {b"batchrun.summary", b"ARROW:schema", b"pandas"}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_table_without_rows_has_its_columns_all_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, pa.schema([("a", pa.int64()), ("b", pa.string())]).empty_table())
    if ending == "jsonl":
        assert path.read_bytes() == b""
    else:
        assert read_all(path).schema.names == ["a", "b"]


def test_csv_is_exact(tmp_path: Path) -> None:
    """Every type has one text; null is nothing, the empty string is quoted, lines end with CRLF."""
    write(tmp_path / "a.csv", every_type())
    content = (tmp_path / "a.csv").read_bytes().decode()
    assert content.splitlines(keepends=True)[0].endswith(",nothing\r\n")
    assert content.splitlines()[1].startswith('"",a,9223372036854775807,')
    assert content.splitlines()[-1] == "," * (every_type().num_columns - 1)
    first, second, _ = csv.DictReader(content.splitlines(keepends=True))
    assert first == {
        "text": "",
        "large_text": "a",
        "int64": "9223372036854775807",
        "uint64": "18446744073709551615",
        "int8": "-128",
        "float64": "0.1",
        "float32": "0.1",
        "float16": "0.5",
        "bool": "true",
        "decimal": "1.10",
        "big_decimal": "1" * 45 + ".50",
        "date": "2024-02-29",
        "date64": "2024-02-29",
        "time": "01:02:03.000004",
        "time_s": "01:02:03",
        "local": "2024-02-29T12:00:00.123456",
        "seconds": "1970-01-01T00:00:01",
        "utc": "2024-02-29T12:00:00.123456789Z",
        "berlin": "1970-01-01T01:00:00.000+01:00",
        "duration": "PT-0.000001S",
        "binary": "AP8=",
        "fixed": "YWI=",
        "category": "b",
        "list": '["x",null]',
        "fixed_list": "[1,2]",
        "large_list": "[1]",
        "struct": '{"id":1,"tags":["x",null]}',
        "structs": '[{"id":1,"tags":["x",null]},{"id":null,"tags":[]}]',
        "map": '{"k":1}',
        "nothing": "",
    }
    assert (second["text"], second["duration"]) == ("naïve 🙂\nline", "PT90061.000001S")


def test_csv_that_was_written_is_read_back(tmp_path: Path) -> None:
    """Text with quotes, separators, line ends and spaces, empty strings and nulls."""
    texts = ["", None, 'say "x"', "a,b", "a\r\nb", "a\rb", " padded ", "\ufeffx", "007", "emoji 🙂", "\t"]
    table = pa.table({"a, b": pa.array(texts), "n": range(len(texts))})
    write(tmp_path / "a.csv", table)
    assert read_all(tmp_path / "a.csv").equals(table)


def test_jsonl_is_exact(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", every_type())
    first, second, nulls = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert list(first) == every_type().schema.names
    assert set(nulls.values()) == {None}
    expected = {
        "int64": 2**63 - 1,
        "uint64": 2**64 - 1,
        "float64": 0.1,
        "decimal": "1.10",
        "big_decimal": "1" * 45 + ".50",
        "date": "2024-02-29",
        "local": "2024-02-29T12:00:00.123456",
        "utc": "2024-02-29T12:00:00.123456789Z",
        "berlin": "1970-01-01T01:00:00.000+01:00",
        "binary": "AP8=",
        "category": "b",
        "list": ["x", None],
        "structs": [{"id": 1, "tags": ["x", None]}, {"id": None, "tags": []}],
        "map": {"k": 1},
    }
    assert {name: first[name] for name in expected} == expected
    assert second["float64"] is None  # JSON has no infinity
    assert "naïve 🙂" in (tmp_path / "a.jsonl").read_text()


def test_times_inside_lists_keep_their_nanoseconds(tmp_path: Path) -> None:
    times = pa.array([1_709_208_000_123_456_789], pa.int64()).cast(pa.timestamp("ns"))
    write(tmp_path / "a.jsonl", pa.table({"t": pa.ListArray.from_arrays([0, 1], times)}))
    assert "12:00:00.123456789" in (tmp_path / "a.jsonl").read_text()


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_failure_in_the_middle_leaves_the_old_file_whole(tmp_path: Path, ending: str) -> None:
    """No temporary file stays behind, and the error that the block raised is not disguised."""
    path = tmp_path / f"a.{ending}"
    path.write_text("old")

    def fail_in_the_middle() -> None:
        with replace_table(path, pa.schema([("n", pa.int64())]), no_metadata) as output:
            output.write(pa.record_batch({"n": range(50_000)}))
            raise OSError("the reader's own")

    with pytest.raises(OSError, match="the reader's own"):
        fail_in_the_middle()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_the_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with replace_table(path, pa.schema([("n", pa.int64())]), no_metadata) as output:
        output.write(pa.record_batch({"n": [1]}))
        assert path.read_text() == "old"
    assert path.read_bytes() == b"n\r\n1\r\n"


def test_a_batch_under_another_schema_is_a_bug(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="is not the output's"),
        replace_table(tmp_path / "a.csv", pa.schema([("n", pa.int64())]), no_metadata) as output,
    ):
        output.write(pa.record_batch({"n": [1.5]}))
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 1 << 16], ids=["opening", "closing", "writing"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, ending: str, limit: int) -> None:
    """Where `limit` bytes a file may be written, the error says so, and the old file stays as it was."""
    path = tmp_path / f"a.{ending}"
    path.write_text("old")
    batch = pa.record_batch({"text": [os.urandom(500).hex() for _ in range(20_000 if limit > 1000 else 1)]})
    with pytest.raises(StorageError) as raised, files_of_at_most(limit):
        write(path, pa.table(batch), 20_000)
    assert str(raised.value) == (
        f"{path} could not be written: File too large (this shell's `ulimit -f` is {limit // 1024} KiB). "
        "The answers are safe in the journal: "
        "when that is fixed, `batchrun export` writes the output again"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write(tmp_path / "gone" / "a.csv", pa.table({"n": [1]}))


def test_a_new_file_gets_the_mode_of_the_umask_and_a_replaced_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    before = os.umask(0o027)
    try:
        write(path, pa.table({"n": [1]}))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write(path, pa.table({"n": [2]}))
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_of_a_symbolic_link_the_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.csv", tmp_path / "a.csv"
    target.write_text("old")
    link.symlink_to(target)
    write(link, pa.table({"n": [1]}))
    assert link.is_symlink()
    assert target.read_bytes() == b"n\r\n1\r\n"


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "a.parquet")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a.xlsx", "Known endings: .parquet .csv .jsonl"),
        ("folder.csv", "is a folder"),
        ("pipe.csv", "not a regular file"),
        ("file/a.csv", "can't be written: "),
    ],
)
def test_an_output_that_can_not_be_written_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OutputError, match=problem):
        check_writable(tmp_path / name)


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    """As an unprivileged user, which a superuser becomes for this test."""
    tmp_path.chmod(0o555)
    open_to_all(tmp_path.parents)
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_writable(tmp_path / "a.csv")
    finally:
        if superuser:
            os.seteuid(0)
        tmp_path.chmod(0o755)


def test_cells_that_a_spreadsheet_would_run_are_made_harmless_where_that_is_wanted(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1.50", "-x", "@SUM(A1)", "\tx", "\rx", "  =x", "a=b", "", None]
    table = pa.table({"free": texts, "kept": texts, "n": [-1] * len(texts)})
    with replace_table(
        tmp_path / "a.csv", table.schema, no_metadata, CsvStyle(frozenset(("free", "n")), bom=True)
    ) as output:
        for batch in table.to_batches():
            output.write(batch)
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbffree,kept,n\r\n")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["kept"] for row in rows] == [text or "" for text in texts]
    assert [row["free"] for row in rows] == [
        "'=1+1", "'+1", "-1.50", "'-x", "'@SUM(A1)", "'\tx", "'\rx", "'  =x", "a=b", "", "",
    ]  # fmt: skip
    assert {row["n"] for row in rows} == {"-1"}
