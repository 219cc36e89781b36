"""Connects to the journal's file, and translates SQLite's errors into batchrun's."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrun.errors import JournalError, StorageError, file_size_limit
from batchrun.text import single_line

_STORAGE_FAULTS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_WRITTEN_BY_ANOTHER = ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE")
_HELD_BY_ANOTHER = ("SQLITE_BUSY", "SQLITE_LOCKED")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connects in SQLite's `mode`: "rw", "ro", or "ro&immutable=1" for a file that nobody changes."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)


def keep_every_commit(connection: sqlite3.Connection) -> None:
    """Makes each commit to a journal in WAL mode an fsync, and copies of pages few."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16000")  # KiB
    # The fewer checkpoints, the fewer copies of pages that change repeatedly.
    connection.execute("PRAGMA wal_autocheckpoint = 32000")  # pages of 4 KiB: 131 MB


@contextmanager
def transaction(connection: sqlite3.Connection, *, immediate: bool = False) -> Iterator[None]:
    """Commits at the end; after any error, one of the commit included, the transaction is rolled back.

    `immediate`: nobody else writes from its beginning on, so that what it reads stays true until its commit.
    """
    connection.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Raises JournalError and StorageError in place of SQLite's errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error
    except UnicodeDecodeError:
        # SQLite's own message quotes the damaged bytes.
        raise damaged(path, "text that isn't UTF-8") from None


def translate(path: Path, error: sqlite3.Error) -> JournalError | StorageError:
    """Returns batchrun's error for one of SQLite's, with text for the person who has to act."""
    name = _name_of(error)
    if is_storage_fault(error):
        return StorageError(
            f"The journal {path} can't be written or read: {error}{file_size_limit()}.\n"
            "Answers committed so far are safe. Make room or fix the permissions, then run the same command."
        )
    if is_held(error):
        return StorageError(
            f"The journal {path} is held by another program: {error}. Close it, then try again."
        )
    if name in _WRITTEN_BY_ANOTHER:
        return written_by_another(path)
    return damaged(path, str(error))


def is_storage_fault(error: sqlite3.Error) -> bool:
    """Returns whether the disk or its permissions are the cause."""
    return _name_of(error).startswith(_STORAGE_FAULTS)


def is_held(error: sqlite3.Error) -> bool:
    """Returns whether another program holds the file."""
    return _name_of(error).startswith(_HELD_BY_ANOTHER)


def _name_of(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def written_by_another(path: Path) -> StorageError:
    return StorageError(
        f"The journal {path} holds records that another program wrote during this run.\n"
        "See that only one program writes it, then run the same command."
    )


def no_longer_written(path: Path, cause: BaseException) -> StorageError:
    return StorageError(
        f"The journal {path} is no longer written: {type(cause).__name__}: {cause}.\n"
        "Responses committed so far are safe. Run the same command."
    )


def damaged(path: Path, finding: str) -> JournalError:
    # SQLite's message may quote damaged bytes.
    return JournalError(
        f"The journal {path} is damaged: {single_line(finding)}. It is left as it is.\n"
        "Restore it from a backup, or save what can still be read: batchrun export --salvage JOB"
    )
