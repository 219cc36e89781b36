"""Checks that an open journal is still at its path, and copies it back where it isn't.

A file that is deleted, or whose folder is renamed, stays open and takes every commit. Those would be lost:
the next run would begin with an empty journal and pay for everything again.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from batchrun.errors import MovedError
from batchrun.journal.connection import connect, translated_errors
from batchrun.journal.write_ahead_log import log_of

RESCUED = "rescued"
"""The stem of copies' names where another journal is at the path: rescued-1.sqlite."""
Identity = tuple[int, int]
"""The numbers of a file's device and inode."""


class Place:
    """The files at a journal's path when it was opened. No other file gets their inodes while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.journal = identity_of(path)
        self._log: Identity | None = None

    def has_journal(self) -> bool:
        """Whether the journal itself is at its path, regardless of its log."""
        return self.journal is not None and identity_of(self._path) == self.journal

    def is_kept(self) -> bool:
        """Returns False where the journal or its write-ahead log is missing at its path or was replaced."""
        # SQLite creates the log with the first commit.
        self._log = self._log or identity_of(log_of(self._path))
        return self.has_journal() and identity_of(log_of(self._path)) == self._log


def keep_copy(connection: sqlite3.Connection, path: Path) -> Path:
    """Writes an open journal's content to its path, or beside it where another file has its name.

    Creates the folder where it is missing. Returns the copy's path. Raises StorageError, JournalError,
    OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name("rescuing.sqlite")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with translated_errors(unfinished), closing(connect(unfinished, "rw")) as copy:
        connection.backup(copy)
    for name in (path, *(path.with_name(f"{RESCUED}-{number}.sqlite") for number in range(1, 1000))):
        with suppress(FileExistsError):
            os.link(unfinished, name)  # unlike a rename, this never replaces a file
            unfinished.unlink()
            return name
    return unfinished


def moved(path: Path) -> MovedError:
    return MovedError(
        f"The journal {path} was deleted, moved or replaced while the run was going on.\n"
        "Put it back if it was moved, then run the same command."
    )


def identity_of(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
