"""Inputs that are copied before they are read: archives, sheets, databases, downloads; and hive folders."""

import datetime as dt
import gzip
import http.server
import sqlite3
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import InputError, JobError
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import Table, open_table


def rows_of(table: Table) -> list[dict[str, object]]:
    """All rows, read twice, as a run and its output do."""
    first, second = (pa.Table.from_batches(list(table.batches()), table.schema).to_pylist() for _ in range(2))
    assert first == second
    return list(first)


def archive(path: Path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name.replace("_", "."), content)


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content"), [("x_csv", b"a\n1\n"), ("x_jsonl", b'{"a": 1}\n'), ("x_parquet", parquet_bytes())]
)
def test_a_zip_archive_with_one_table_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    archive(tmp_path / "a.zip", **{name: content})
    assert rows_of(open_table("a.zip", tmp_path)) == [{"a": 1}]


def test_what_a_mac_adds_to_an_archive_is_not_a_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("folder/", b"")
        file.writestr("folder/a.csv", b"a\n1\n")
        file.writestr("__MACOSX/folder/._a.csv", b"\0")
    assert rows_of(open_table("a.zip", tmp_path)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"x_csv": b"a\n1\n", "y_csv": b"a\n1\n"}, r"holds 2 files \(x.csv, y.csv\)"),
        ({}, "holds no file"),
        ({"x_txt": b"a"}, "unknown kind of table"),
        ({"x_zip": b"a"}, "another zip archive"),
    ],
)
def test_an_archive_without_one_table_is_named(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    archive(tmp_path / "a.zip", **files)
    with pytest.raises(InputError, match=problem if files else "a.zip"):
        open_table("a.zip", tmp_path)


def test_a_damaged_archive_is_an_input_error(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", x_csv=b"a\n" + b"1\n" * 1000)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"a\.zip.*damaged"):
        open_table("a.zip", tmp_path)


def workbook(path: Path) -> None:
    book = openpyxl.Workbook()
    first = book.active
    assert first is not None
    first.title = "Reviews"
    first.append(["id", "text", "price", "day", "good", "sku", None])
    first.append([1, 'two\nlines and a "quote"', 3.10, dt.date(2024, 2, 29), True, "007", " "])
    first.append([12345678901, None, 2, None, False, 12, None])
    first.append([None, None, " ", None, None, None, None])
    book.create_sheet("More").append(["a"])
    book.save(path)


def test_a_sheet_is_read_as_text_and_its_empty_edges_are_left_out(tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx")
    table = open_table("a.xlsx", tmp_path)
    first, second = rows_of(table)
    assert first == {
        "id": 1,
        "text": 'two\nlines and a "quote"',
        "price": "3.1",
        "day": dt.date(2024, 2, 29),
        "good": True,
        "sku": "007",
    }
    assert second["id"] == 12345678901
    assert (second["text"], second["sku"], second["price"]) == (None, "12", "2")
    assert "'Reviews', 'More': the first is read" in table.notes[0]
    assert table.notes[1].endswith("left out as empty: 1 row at the end and 1 column at the right")


def test_another_sheet_is_read_by_its_name(tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx")
    table = open_table("a.xlsx", tmp_path, ReadOptions(sheet="More"))
    assert (table.schema.names, table.notes) == (["a"], ())
    with pytest.raises(JobError, match=r"no sheet 'Mor'\. It has 'Reviews', 'More'"):
        open_table("a.xlsx", tmp_path, ReadOptions(sheet="Mor"))


def test_an_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workbook(tmp_path / "a.xlsx")
    (tmp_path / "a.duckdb").touch()
    for name in ("python_calamine", "duckdb", "adbc_driver_postgresql"):
        monkeypatch.setitem(sys.modules, name, None)
    for path, extra in [("a.xlsx", "excel"), ("a.duckdb", "duckdb"), ("postgresql://u:pw@h/d", "postgresql")]:
        options = ReadOptions(query=None if extra == "excel" else "SELECT 1")
        with pytest.raises(InputError, match=rf"pip install 'batchrun-llm\[{extra}\]'") as caught:
            open_table(path, tmp_path, options)
        assert "pw" not in str(caught.value)


def sqlite_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (id INTEGER, text TEXT, score, blob BLOB)")
    rows = [(1, "007", 1.5, b"caf\xc3\xa9"), (2, None, None, b"\xff"), (2**60, "", 2, None)]
    connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("path", ["a.db", "sqlite:///a.db", "sqlite:///{folder}/a.db"])
def test_a_query_of_sqlite_is_read(tmp_path: Path, path: str) -> None:
    sqlite_file(tmp_path / "a.db")
    query = "SELECT id, text, blob FROM t ORDER BY id"
    table = open_table(path.format(folder=tmp_path), tmp_path, ReadOptions(query=query))
    assert rows_of(table) == [
        {"id": 1, "text": "007", "blob": "café"},
        {"id": 2, "text": None, "blob": "/w=="},
        {"id": 2**60, "text": "", "blob": None},
    ]


def test_a_value_of_sqlite_is_rendered_as_it_stands_in_its_row(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "a.db")
    table = open_table("a.db", tmp_path, ReadOptions(query="SELECT score FROM t"))
    names = ["score", *table.sources(["score"])]
    (batch,) = table.batches(names)
    assert [str(value) for value in table.template_values("score", batch)] == ["1.5", "None", "2"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT missing FROM t", "no such column: missing"),
        ("DELETE FROM t", "readonly"),
        ("SELECT id, id FROM t", "both named 'id'"),
        ("SELECT id FROM t WHERE id < 0", "is empty"),
    ],
)
def test_a_query_that_cannot_be_the_input_is_named(tmp_path: Path, query: str, problem: str) -> None:
    sqlite_file(tmp_path / "a.db")
    with pytest.raises(InputError, match=problem):
        open_table("a.db", tmp_path, ReadOptions(query=query))


def test_query_and_database_go_together(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"a\.duckdb is a database. Say which rows"):
        open_table("a.duckdb", tmp_path)
    with pytest.raises(JobError, match=r"a\.csv is not a database"):
        open_table("a.csv", tmp_path, ReadOptions(query="SELECT 1"))
    with pytest.raises(InputError, match="no such file"):
        open_table("a.db", tmp_path, ReadOptions(query="SELECT 1"))


def test_a_query_of_duckdb_keeps_types_and_order(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS id, [i, 1] AS list FROM range(20000) r(i)")
    options = ReadOptions(query="SELECT id, list, DATE '2024-02-29' AS day FROM t ORDER BY id DESC")
    table = open_table("a.duckdb", tmp_path, options)
    rows = rows_of(table)
    assert table.row_count == 20_000
    assert rows[0] == {"id": 19_999, "list": [19_999, 1], "day": dt.date(2024, 2, 29)}
    assert [row["id"] for row in rows] == list(range(19_999, -1, -1))
    with pytest.raises(InputError, match=r"query: .*nowhere"):
        open_table("a.duckdb", tmp_path, ReadOptions(query="SELECT * FROM nowhere"))


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"a,b\n1,x\n"
            if "moved" in self.path:
                self.send_response(302)
                self.send_header("location", "/a.csv?key=1")
            else:
                self.send_response(404 if "missing" in self.path else 200)
            if "encoded" in self.path:
                content = gzip.compress(content)
                self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(content) + 5 * ("short" in self.path)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.mark.parametrize("name", ["a.csv?key=1", "moved.csv", "encoded.csv", "encoded.csv.gz"])
def test_a_csv_file_over_http_is_downloaded(tmp_path: Path, server: str, name: str) -> None:
    assert rows_of(open_table(f"{server}/{name}", tmp_path)) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing.csv", "answered 404 Not Found"), ("short.csv", "broke off.*received 8 bytes, expected 13")],
)
def test_a_download_that_fails_is_named(tmp_path: Path, server: str, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        open_table(f"{server}/{name}", tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/a.csv?key=hidden",
        "az://container/a.csv?key=hidden",
        "az://container/a.parquet?key=hidden",
        "http://127.0.0.1:1/a.csv?key=hidden",
        "http://127.0.0.1:1/a.exe?key=hidden",
        "s3://user:hidden@bucket/a.csv?key=hidden",
        "file:///nowhere/a.csv?key=hidden",
        "postgresql://user:hidden@127.0.0.1:1/db?key=hidden",
    ],
)
def test_no_error_prints_the_query_of_a_url(tmp_path: Path, url: str) -> None:
    with pytest.raises((InputError, JobError)) as caught:
        open_table(url, tmp_path)
    assert "hidden" not in str(caught.value)


def test_a_password_in_a_url_is_neither_sent_nor_printed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Download the file first") as caught:
        open_table("https://user:hidden@example.com/a.csv?key=hidden", tmp_path)
    assert "hidden" not in str(caught.value)


def test_hive_folders_become_text_columns(tmp_path: Path) -> None:
    for folder, ident in [("year=2023/land=de", 1), ("year=2024/land=__HIVE_DEFAULT_PARTITION__", 2)]:
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(pa.table({"id": [ident]}), tmp_path / folder / "a.parquet")
    table = open_table("**/*.parquet", tmp_path, ReadOptions(hive=True))
    assert rows_of(table) == [
        {"id": 1, "year": "2023", "land": "de"},
        {"id": 2, "year": "2024", "land": None},
    ]
    (batch, _) = table.batches(["year"])
    assert batch.to_pydict() == {"year": ["2023"]}


def test_hive_needs_folders(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="no folder in its path is named key=value"):
        open_table("a.csv", tmp_path, ReadOptions(hive=True))
