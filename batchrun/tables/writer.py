"""Writes tables: Parquet, CSV and JSON Lines under a fixed schema, replaced as a whole or not at all."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import OutputError, StorageError, cause_of, unwritable
from batchrun.tables.atomic import Replacement, try_replacing
from batchrun.tables.endings import WRITTEN, is_written
from batchrun.tables.storable import storable_schema, stored
from batchrun.tables.text_rows import CsvStyle, csv_header, csv_records, json_lines

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
        self._writer.is_open = False  # else its finalizer writes a footer to the closed file


class _TextEncoder:
    """Leaves metadata out: CSV and JSON Lines can't hold any."""

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


_EXACT = CsvStyle()

# Encoders by the endings in `endings.WRITTEN`.
_ENCODERS: dict[str, Callable[[BinaryIO, pa.Schema, CsvStyle], _Encoder]] = {
    ".parquet": lambda file, schema, _csv: _ParquetEncoder(file, schema),
    ".csv": lambda file, schema, csv: _TextEncoder(
        file, partial(csv_records, harmless=csv.harmless), b"\xef\xbb\xbf" * csv.bom + csv_header(schema)
    ),
    ".jsonl": lambda file, _schema, _csv: _TextEncoder(file, json_lines),
}


def _encoder(path: Path, file: BinaryIO, schema: pa.Schema, csv: CsvStyle = _EXACT) -> _Encoder:
    if not is_written(path):
        raise _unknown_ending(path)
    return _ENCODERS[path.suffix.lower()](file, schema, csv)


def _unknown_ending(path: Path) -> OutputError:
    return OutputError(f"{path}: unknown kind of output. Known endings: {' '.join(WRITTEN)}")


class _Hashing(io.RawIOBase):
    """Passes bytes on to a file, and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.hash = sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


class TableWriter:
    """Writes batches in order; made by `replace_table`. `content` is a hash of the file, once it is whole."""

    def __init__(self, path: Path, schema: pa.Schema, encoder: _Encoder) -> None:
        self.content = ""
        self._path = path
        self._schema = schema
        self._held = _held_schema(path, schema)
        self._encoder = encoder

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of `batch`, whose schema must be the writer's.

        Raises StorageError when the system can't store more.
        """
        if not batch.schema.equals(self._schema):
            raise ValueError(f"the batch's schema is not the output's:\n{batch.schema}\n--\n{self._schema}")
        with _storing(self._path):
            self._encoder.write(_held(batch, self._held))


def check_writable(path: Path) -> None:
    """Raises OutputError when no output can be written to `path`; creates its folder if that is missing."""
    if not is_written(path):
        raise _unknown_ending(path)
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise OutputError(f"{path} is {kind}. Name a file")
        folder = _target(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        try_replacing(_target(path))
    except OSError as error:
        raise unwritable(f"{path} can't be written: {cause_of(error)} ({path.parent})", error) from error


def _held_schema(path: Path, schema: pa.Schema) -> pa.Schema:
    return storable_schema(schema) if path.suffix.lower() == ".parquet" else schema


def _held(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    columns = [stored(column, kind) for column, kind in zip(batch.columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Nowhere(io.RawIOBase):
    """A file that discards its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._place += len(data)
        return len(data)

    def tell(self) -> int:
        return self._place


@contextmanager
def trial_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Returns a writer that encodes as `replace_table` for `path` does, and stores nothing."""
    encoder = _encoder(path, cast("BinaryIO", _Nowhere()), _held_schema(path, schema))
    with _abandoned_on_error(encoder):
        yield TableWriter(path, schema, encoder)
        encoder.finish({})


@contextmanager
def replace_table(
    path: Path, schema: pa.Schema, metadata: Metadata, csv: CsvStyle = _EXACT
) -> Iterator[TableWriter]:
    """Writes a table that replaces `path` when the block ends without an exception, and never in part.

    The rows go to a temporary file in the same folder, which is synced and renamed; the folder is synced
    after that. When the block raises, the old file stays and the temporary one is removed, and so are
    leftovers of killed processes. A replaced file keeps its mode; for a symbolic link, its target is
    replaced. `metadata` is called at the end, for Parquet's key-value metadata. Raises StorageError when the
    system can't store the table.
    """
    with _storing(path):
        replacement = Replacement(_target(path))
    with replacement:
        hashing = _Hashing(replacement.file)
        with _storing(path):
            encoder = _encoder(path, cast("BinaryIO", hashing), _held_schema(path, schema), csv)
        with _abandoned_on_error(encoder):
            table = TableWriter(path, schema, encoder)
            yield table
            facts = metadata()
            with _storing(path):
                encoder.finish(facts)
        with _storing(path):
            replacement.commit()
        table.content = hashing.hash.hexdigest()


def _target(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


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
            f"{path} could not be written: {cause_of(error)}. The answers are safe in the journal: "
            "when that is fixed, `batchrun export` writes the output again"
        ) from error
