"""The folder of temporary files: beside the output, which has room for an output of as many rows.

The system's own folder for temporary files is often small, or in memory.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrun.errors import StorageError, cause_of, unwritable
from batchrun.job.spec import Job, output_path

_BYTES_PER_ROW = 64
"""Bytes a row in the table of seen requests: a digest, its count, and the pages' overhead."""


def scratch_folder(job: Job) -> Path:
    """Returns `output.scratch`, else the output's folder, or the system's if that doesn't exist yet."""
    if job.output.scratch is not None:
        return job.base / job.output.scratch
    beside = output_path(job).parent
    return beside if beside.is_dir() else Path(tempfile.gettempdir())


def check_scratch(job: Job, rows: int | None) -> None:
    """Raises OutputError or StorageError if temporary files for `rows` rows can't be written."""
    folder = scratch_folder(job)
    where = "[output] scratch" if job.output.scratch is not None else "temporary files"
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(
            f"{where}: {folder} can't be written: {cause_of(error)}.\nName another folder in output.scratch",
            error,
        ) from None
    if free < (needed := (rows or 0) * _BYTES_PER_ROW):
        raise StorageError(
            f"{where}: {folder} has {free // 2**20:,} MiB left, and {needed // 2**20 + 1:,} MiB are needed.\n"
            "Make room, or name another folder in output.scratch"
        )


@contextmanager
def storing_in(folder: Path) -> Iterator[None]:
    """Turns failures of temporary files in `folder` into a StorageError that names it."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = cause_of(error) if isinstance(error, OSError) else str(error)
        raise StorageError(
            f"Temporary files in {folder} can't be written: {reason}. Responses are in the journal.\n"
            "Make room, or name another folder in output.scratch; then run the same command."
        ) from error


def temporary_database(folder: Path) -> sqlite3.Connection:
    """Opens a database that uses memory first, then disk, and is deleted on closing. Raises StorageError."""
    with storing_in(folder):
        descriptor, name = tempfile.mkstemp(prefix=".batchrun-", suffix=".sqlite", dir=folder)
        os.close(descriptor)
        path = Path(name)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;"
            )
            connection.execute("CREATE TABLE held (x)")
        finally:
            path.unlink()  # the open file stays usable, and a kill leaves nothing behind
    return connection
