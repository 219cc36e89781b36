"""Tables out: Parquet, CSV and JSON Lines under a fixed schema, replaced whole or not at all."""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import OutputError, StorageError
from batchrun.tables.temporary import open_temporary
from batchrun.tables.text_rows import csv_header, csv_records, json_lines

ENDINGS = (".parquet", ".csv", ".jsonl")
ROWS_PER_GROUP = 16_384
_BYTES_PER_GROUP = 128 << 20

Metadata = Callable[[], Mapping[str, str]]


class _Encoder(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...
    def finish(self, metadata: Mapping[str, str]) -> None: ...
    def abandon(self) -> None: ...


class _ParquetEncoder:
    """Gathers batches until they make a row group: small groups cost time and space."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= ROWS_PER_GROUP or sum(waiting.nbytes for waiting in self._waiting) >= _BYTES_PER_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        group = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = []
        self._writer.write_table(group, row_group_size=max(1, group.num_rows))

    def finish(self, metadata: Mapping[str, str]) -> None:
        if self._waiting:
            self._write_group()
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()

    def abandon(self) -> None:
        self._writer.is_open = False  # or its finalizer would write a footer to the closed file


class _TextEncoder:
    """CSV and JSON Lines have no place for metadata; it is left out."""

    def __init__(
        self, file: BinaryIO, encode: Callable[[pa.RecordBatch], bytes], header: bytes = b""
    ) -> None:
        self._file = file
        self._encode = encode
        file.write(header)

    def write(self, batch: pa.RecordBatch) -> None:
        self._file.write(self._encode(batch))

    def finish(self, metadata: Mapping[str, str]) -> None:
        pass

    def abandon(self) -> None:
        pass


def _encoder(path: Path, file: BinaryIO, schema: pa.Schema) -> _Encoder:
    match path.suffix.lower():
        case ".parquet":
            return _ParquetEncoder(file, schema)
        case ".csv":
            return _TextEncoder(file, csv_records, csv_header(schema))
        case ".jsonl":
            return _TextEncoder(file, json_lines)
        case _:
            raise _unknown_ending(path)


def _unknown_ending(path: Path) -> OutputError:
    return OutputError(f"{path}: unknown kind of output. Known endings: .parquet .csv .jsonl")


class TableWriter:
    """What `replace_table` hands out: takes batches in their order."""

    def __init__(self, path: Path, schema: pa.Schema, encoder: _Encoder) -> None:
        self._path = path
        self._schema = schema
        self._encoder = encoder

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of `batch`, whose schema must be the writer's.

        Raises StorageError when the system refuses to store more.
        """
        if not batch.schema.equals(self._schema):
            raise ValueError(f"the batch's schema is not the output's:\n{batch.schema}\n--\n{self._schema}")
        with _storing(self._path):
            self._encoder.write(batch)


def check_writable(path: Path, schema: pa.Schema | None = None) -> None:
    """Raises OutputError when no output can be written to `path`; creates its folder if that is missing.

    With `schema`, also when the format can't hold one of its columns.
    """
    if path.suffix.lower() not in ENDINGS:
        raise _unknown_ending(path)
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}. Name a file")
    folder = _target(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror} ({folder})") from error
    if schema is not None and path.suffix.lower() == ".parquet":
        _check_columns(path, schema)


def _check_columns(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException as error:
            raise OutputError(
                f"{path}: Parquet can't hold column {field.name!r} of type {field.type} ({error}). "
                "Drop or cast it in the input, or write .jsonl"
            ) from error


@contextmanager
def replace_table(path: Path, schema: pa.Schema, metadata: Metadata) -> Iterator[TableWriter]:
    """Writes a table that takes the place of `path` when the block ends well, and never in part.

    The rows go to a temporary file in the same folder, which is synced and renamed; the folder is
    synced after that. When the block raises, the old file stays and the temporary one is removed, as is
    what a killed process has left of its own. A file that is replaced keeps its mode; of a symbolic link,
    the target is replaced. `metadata` is called at the end, for Parquet's key-value metadata. Raises
    StorageError when the system refuses to store the table.
    """
    target = _target(path)
    schema = schema.remove_metadata()
    with _storing(path):
        temporary, file = open_temporary(target)
    with _removed_on_error(temporary, file):
        with _storing(path):
            _keep_mode(file, target)
            encoder = _encoder(path, file, schema)
        with _abandoned_on_error(encoder):
            yield TableWriter(path, schema, encoder)
            facts = metadata()
            with _storing(path):
                encoder.finish(facts)
        with _storing(path):
            _put_in_place(file, temporary, target)


def _put_in_place(file: BinaryIO, temporary: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    temporary.replace(target)
    file.close()  # not before it has its place: until then its lock tells that it is no leftover
    _sync_folder(target.parent)


def _target(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


def _keep_mode(file: BinaryIO, target: Path) -> None:
    with suppress(FileNotFoundError):
        os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _removed_on_error(temporary: Path, file: BinaryIO) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            file.close()
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _abandoned_on_error(encoder: _Encoder) -> Iterator[None]:
    try:
        yield
    except BaseException:
        encoder.abandon()
        raise


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}. The answers are safe in the journal: "
            "when that is mended, `batchrun export` writes the output again"
        ) from error
