"""Opens an undamaged journal file, for writing or for reading beside a run."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from batchrun.errors import StorageError, cause_of
from batchrun.journal.connection import connect, damaged, keep_every_commit, translated_errors
from batchrun.journal.former_formats import show_as_current
from batchrun.journal.journal import Journal
from batchrun.journal.schema import FORMAT, create, format_of
from batchrun.journal.upgrade import upgrade
from batchrun.journal.write_ahead_log import find_break, log_of


def create_or_open(path: Path) -> Journal:
    """Opens the journal for writing; creates it where it doesn't exist, and upgrades one of a former format.

    Only the holder of the run's lock may call this. Raises JournalError where the file is damaged or has
    a newer format, StorageError where it can't be written.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"The journal {path} can't be opened for writing: {cause_of(error)}.") from error
    return _open(path, "rw", _prepare_for_writing)


def open_for_reading(path: Path) -> Journal:
    """Opens the journal for reading, beside a run that may be going on.

    Raises JournalError, where its write-ahead log is damaged too, and StorageError.
    """
    try:
        return _open(path, "ro", _prepare_for_reading)
    except StorageError:
        # A folder that can't be written can't hold the write-ahead log's index.
        return _open(path, "ro&immutable=1", _prepare_for_reading)


def _open(path: Path, mode: str, prepare: Callable[[sqlite3.Connection, Path], int]) -> Journal:
    _refuse_damaged_log(path)
    with translated_errors(path):
        connection = connect(path, mode)
        try:
            stored_format = prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return Journal(path, connection, stored_format)


def _refuse_damaged_log(path: Path) -> None:
    """Checks the log before SQLite opens it, which would end it at the damage and overwrite the rest."""
    try:
        found = find_break(log_of(path))
    except OSError as error:
        raise StorageError(f"The log of the journal {path} can't be read: {error.strerror}.") from error
    if found is not None:
        raise damaged(
            path,
            f"frame {found.first_bad + 1} of its write-ahead log is not as it was written, and commits follow"
            f" up to frame {found.last_commit + 1}",
        )


def _prepare_for_reading(connection: sqlite3.Connection, path: Path) -> int:
    stored_format = format_of(connection, path)
    if stored_format < FORMAT:
        show_as_current(connection, stored_format)
    return stored_format


def _prepare_for_writing(connection: sqlite3.Connection, path: Path) -> int:
    # SQLite is queried, since a process that died while creating the file may have left half of it.
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages == 0 and path.stat().st_size == 0:
        create(connection)
    former = format_of(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    keep_every_commit(connection)
    if former < FORMAT:
        upgrade(connection, path, former)
    return FORMAT
