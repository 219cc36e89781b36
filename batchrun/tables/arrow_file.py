"""Reads Parquet and Arrow IPC files: types are kept exactly, and memory stays flat."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from batchrun.errors import InputError
from batchrun.tables.locations import Location, reading
from batchrun.tables.table_file import TableFile, check_fields, slices
from batchrun.text import cause, without_secrets

_PARQUET_MAGIC = b"PAR1"
_IPC_MAGIC = b"ARROW1"
_READ_AHEAD_BYTES = 1 << 20
_DAMAGED_IPC = ". This is not an Arrow IPC file, or it was cut off: write it again"


def open_parquet(location: Location) -> TableFile:
    """Opens a Parquet file by its footer. Raises InputError where it is not Parquet, or was cut off."""
    _check_whole(location)
    with reading(location), _parquet(location) as file:
        schema = file.schema_arrow
        row_count = file.metadata.num_rows
    check_fields(location.name, schema)

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        with _decrypted(location), reading(location), _parquet(location) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(
                    rows, row_groups=[group], columns=list(columns), use_threads=False
                )

    return TableFile(location.name, schema, row_count, read)


def _parquet(location: Location) -> pq.ParquetFile:
    """Reads with a buffer for each column instead of whole column chunks, which may be the whole file."""
    return pq.ParquetFile(
        location.open_file(),
        pre_buffer=False,
        buffer_size=_READ_AHEAD_BYTES,
        page_checksum_verification=True,
        # In nanoseconds, years outside 1677 to 2262 would overflow.
        coerce_int96_timestamp_unit="us",
    )


@contextmanager
def _decrypted(location: Location) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if "decrypt" not in str(error).lower():
            raise
        raise InputError(
            f"{location.name} has encrypted columns, which can't be read. Write it without encryption"
        ) from error


def _check_whole(location: Location) -> None:
    with reading(location), location.open_file() as file:
        begin = file.read(len(_PARQUET_MAGIC))
        file.seek(max(0, location.size - len(_PARQUET_MAGIC)))
        end = file.read()
    if begin != _PARQUET_MAGIC:
        raise InputError(
            f"{location.name} ({location.size:,} bytes) is not a Parquet file, whatever its name says"
        )
    if end != _PARQUET_MAGIC or location.size < 3 * len(_PARQUET_MAGIC):
        raise InputError(
            f"{location.name} ({location.size:,} bytes) seems cut off: the end of a Parquet file is missing. "
            "Copy or write it again"
        )


def open_ipc(location: Location) -> TableFile:
    """Opens an Arrow IPC file, in the file format (Feather 2 too) or the stream format.

    Reads it once in full, one column where the format allows, so that a truncated file is found now. Its
    record batches are as large as their writer made them.
    """
    with reading(location, _DAMAGED_IPC), location.open_file() as file:
        is_file_format = file.read(len(_IPC_MAGIC)) == _IPC_MAGIC
        file.seek(0)
        with (ipc.open_file if is_file_format else ipc.open_stream)(file) as reader:
            schema = reader.schema
    check_fields(location.name, schema)

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        fields = sorted(schema.get_field_index(name) for name in columns)
        options = ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with reading(location, _DAMAGED_IPC), location.open_file() as file:
            for batch in _ipc_batches(file, is_file_format, options):
                yield from slices(batch, rows)

    row_count = sum(batch.num_rows for batch in read(schema.names[:1], 1 << 20))
    return TableFile(location.name, schema, row_count, read)


def _ipc_batches(
    file: pa.NativeFile, is_file_format: bool, options: ipc.IpcReadOptions
) -> Iterator[pa.RecordBatch]:
    if not is_file_format:
        yield from ipc.open_stream(file, options=options)
        return
    with ipc.open_file(file, options=options) as reader:
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def open_remote_parquet(url: str) -> TableFile:
    """Opens a Parquet file behind a URL that Arrow has no file system for (https, az), through polars."""
    import polars as pl  # only here, since it takes 0.2 s

    name = without_secrets(url)
    scan = pl.scan_parquet(url, glob=False)
    try:
        schema = scan.collect_schema().to_frame().to_arrow().schema
        row_count = int(scan.select(pl.len()).collect(engine="streaming").item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{name}: {cause(error, url)}") from error
    check_fields(name, schema)

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        try:
            for frame in scan.select(columns).collect_batches(chunk_size=rows, maintain_order=True):
                yield from frame.to_arrow().to_batches(max_chunksize=rows)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{name}: {cause(error, url)}") from error

    return TableFile(name, schema, row_count, read)
