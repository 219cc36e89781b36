"""Reads the rows of a query, from SQLite, DuckDB or PostgreSQL.

The query runs once, and its rows go to a temporary copy: all passes over the input see the same rows.
"""

import base64
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
import pyarrow as pa

from batchrun.errors import InputError, JobError
from batchrun.tables.copies import CopiedLocation, copied
from batchrun.tables.locations import scheme_of
from batchrun.tables.near_paths import did_you_mean
from batchrun.tables.table_file import check_column_names
from batchrun.text import first_line, without_secrets

_ENDINGS = {".duckdb": "duckdb", ".ddb": "duckdb", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite"}
_SCHEMES = {"sqlite": "sqlite", "duckdb": "duckdb", "postgresql": "postgresql", "postgres": "postgresql"}
DATABASE_FILES = ("sqlite", "duckdb")
"""Schemes of URLs that name a file."""
_BATCH_ROWS = 8192


def database_of(path: str) -> str | None:
    """Returns the kind of database that `path` names, by its scheme or ending, or None."""
    scheme = scheme_of(path)
    return _SCHEMES.get(scheme) if scheme else _ENDINGS.get(Path(path).suffix.lower())


def open_query(path: str, base: Path, query: str | None, folder: Path | None) -> CopiedLocation:
    """Returns the rows of `query` in a temporary copy in `folder`.

    `path` is a file, relative to `base`, `sqlite:///file`, `duckdb:///file` or `postgresql://host/database`.
    Raises InputError for a database or a query that can't be read, JobError without a query.
    """
    kind, name = database_of(path), without_secrets(path)
    if query is None:
        raise JobError(f'[input] query: {name} is a database. Say which rows: query = "SELECT ..."')
    if kind is None:
        raise JobError(
            f"[input] query: {name} is not a database. Known: {' '.join(_ENDINGS)} and "
            f"{' '.join(f'{scheme}://' for scheme in _SCHEMES)}"
        )
    if kind == "postgresql":
        return copied(name, ("ipc", None), _postgresql(path, query), folder)
    file = database_file(path, base)
    if not file.is_file():
        raise InputError(f"{file}: no such file{did_you_mean(file)}")
    if kind == "duckdb":
        return copied(str(file), ("ipc", None), _duckdb(file, query), folder)
    return copied(str(file), ("jsonl", None), _sqlite(file, query), folder)


def database_file(path: str, base: Path) -> Path:
    """Returns a database's file. In a URL three slashes stand before its path, relative or absolute."""
    return base / Path(path.partition(":///")[2] if scheme_of(path) else path).expanduser()


def _sqlite(file: Path, query: str) -> Callable[[IO[bytes]], None]:
    encoder = msgspec.json.Encoder()

    def write(copy: IO[bytes]) -> None:
        try:
            connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise _failed(str(file), error) from error
        try:
            cursor = connection.execute(query)
            names = _names(str(file), cursor.description)
            copy.writelines(
                encoder.encode(dict(zip(names, map(_json_value, row), strict=True))) + b"\n" for row in cursor
            )
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise _failed(str(file), error) from error
        finally:
            connection.close()

    return write


def _json_value(value: Any) -> Any:
    """Returns a value of SQLite as JSON has it: bytes as text, else as base64."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _duckdb(file: Path, query: str) -> Callable[[IO[bytes]], None]:
    try:
        import duckdb
    except ImportError:
        raise _missing(str(file), "DuckDB's Python package", "duckdb") from None

    def write(copy: IO[bytes]) -> None:
        try:
            with duckdb.connect(str(file), read_only=True) as connection:
                found = connection.sql(query)
                _names(str(file), found and found.description)
                _store(found.to_arrow_reader(_BATCH_ROWS), copy)
        except duckdb.Error as error:
            raise _failed(str(file), error) from error

    return write


def _postgresql(url: str, query: str) -> Callable[[IO[bytes]], None]:
    name = without_secrets(url)
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise _missing(name, "ADBC's driver for PostgreSQL", "postgresql") from None

    def write(copy: IO[bytes]) -> None:
        try:
            with dbapi.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute(query)
                _names(name, cursor.description)
                _store(cursor.fetch_record_batch(), copy)
        except dbapi.Error as error:
            raise _failed(name, error) from error

    return write


def _store(reader: pa.RecordBatchReader, copy: IO[bytes]) -> None:
    with pa.ipc.new_stream(copy, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _names(name: str, description: Any) -> list[str]:
    if not description:
        raise InputError(f"{name}: [input] query returns no rows. It must be one SELECT")
    names = [column[0] for column in description]
    check_column_names(f"{name}: [input] query", names)
    return names


def _missing(name: str, what: str, extra: str) -> InputError:
    return InputError(f"{name} is read by {what}. Install it: pip install 'batchrun-llm[{extra}]'")


def _failed(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: [input] query: {first_line(error)}")
