"""Rows of a query in PostgreSQL, read from a server of the machine's own, where one is installed."""

import datetime as dt
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from os import getuid
from pathlib import Path

import pyarrow as pa
import pytest

from batchrun.errors import InputError
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import open_table

pytest.importorskip("adbc_driver_postgresql")
BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def _as_postgres(*command: object, folder: Path) -> None:
    """The server refuses to run as root."""
    user = ["runuser", "-u", "postgres", "--"] if getuid() == 0 else []
    subprocess.run([*user, *map(str, command)], check=True, capture_output=True, cwd=folder)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if BINARIES is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp())  # pytest's folders are for one user, and the server has another
    folder.chmod(0o777)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, control = folder / "data", BINARIES / "pg_ctl"
    try:
        _as_postgres(BINARIES / "initdb", "-D", data, "-A", "trust", "-U", "me", "--no-sync", folder=folder)
        options = f"-p {port} -h 127.0.0.1 -k {folder} -F"
        _as_postgres(control, "-D", data, "-o", options, "-l", folder / "log", "-w", "start", folder=folder)
        yield f"postgresql://me:s3cret@127.0.0.1:{port}/postgres"
        _as_postgres(control, "-D", data, "-m", "immediate", "stop", folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_query_s_rows_keep_their_types(tmp_path: Path, server: str) -> None:
    query = (
        "SELECT id::int8, 'row ' || id AS text, DATE '2024-02-29' AS day, true AS good,"
        " NULL::text AS nothing, 3.10::numeric AS price, ARRAY[id, 1] AS list,"
        " TIMESTAMPTZ '2024-02-29 12:00+02' AS at"
        " FROM generate_series(1, 20000) AS s(id) ORDER BY id DESC"
    )
    table = open_table(server, tmp_path, ReadOptions(query=query))
    rows = pa.Table.from_batches(list(table.batches())).to_pylist()
    assert table.row_count == len(rows) == 20_000
    assert [row["id"] for row in rows] == list(range(20_000, 0, -1))
    assert rows[0] == {
        "id": 20_000,
        "text": "row 20000",
        "day": dt.date(2024, 2, 29),
        "good": True,
        "nothing": None,
        "price": "3.10",
        "list": [20_000, 1],
        "at": dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC),
    }
    assert Decimal(rows[0]["price"]) == Decimal("3.10")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT * FROM nowhere", '"nowhere" does not exist'),
        ("CREATE TABLE t (a int)", "It must be one SELECT"),
        ("SELECT 1 AS a, 2 AS a", "both named 'a'"),
    ],
)
def test_a_query_that_cannot_be_read_is_named(tmp_path: Path, server: str, query: str, problem: str) -> None:
    with pytest.raises(InputError) as error:
        open_table(server, tmp_path, ReadOptions(query=query))
    assert problem in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/postgres?application_name=s3cret"
    with pytest.raises(InputError, match=r"^postgresql://127\.0\.0\.1:1/postgres: .*refused") as error:
        open_table(url, tmp_path, ReadOptions(query="SELECT 1"))
    assert "s3cret" not in str(error.value)
