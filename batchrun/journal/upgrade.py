"""Upgrades a journal of a former format in place, after a copy of it was made beside it."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from batchrun.errors import StorageError
from batchrun.journal.adjustments import insert_adjustments, read_adjustments
from batchrun.journal.attempt_rows import insert_attempts, read_attempts, read_numbers
from batchrun.journal.blocks import write_blocks
from batchrun.journal.connection import connect, damaged, transaction
from batchrun.journal.digest_index import index_all
from batchrun.journal.former_formats import TABLES, former_intents, show_as_current
from batchrun.journal.schema import columns, create
from batchrun.journal.totals import sum_up, write_sums
from batchrun.journal.write_ahead_log import log_of

_TIMES_ITS_SIZE = 4
"""Of disk: the copy, the upgraded file, the write-ahead log that takes it over, and the larger index."""
_LEAST_ROOM = 2**24
_UPGRADED, _COPY = "upgrading.sqlite", "copying.sqlite"
"""The names of both while they are written."""


def upgrade(connection: sqlite3.Connection, path: Path, former: int) -> None:
    """Brings an open journal from the format `former` to the current one.

    The upgraded journal is written to a file beside it and replaces the content in one transaction. Amounts,
    answers and open intents stay as they are. The copy `journal.v<former>.sqlite` stays until
    `remove_copies`. Only the holder of the run's lock may call this. Raises JournalError where the journal is
    damaged, StorageError where there isn't enough room.
    """
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict.splitlines()[-1])
    _check_room(path)
    upgraded = path.with_name(_UPGRADED)
    try:
        _copy(connection, copies_of(path)[former - 1])
        with closing(_new_file(upgraded)) as target:
            _write_upgraded(path, former, target)
            target.backup(connection)
    except OSError as error:
        raise StorageError(
            f"The journal {path} has an older format, and can't be upgraded: {error.strerror}.\n"
            "It is unchanged. Fix that, then run the same command."
        ) from None
    finally:
        upgraded.unlink(missing_ok=True)


def copies_of(path: Path) -> tuple[Path, ...]:
    """Returns the paths of the copies that upgrades make of a journal, by its former format from 1 on."""
    return tuple(path.with_name(f"{path.stem}.v{former}{path.suffix}") for former in TABLES)


def remove_copies(path: Path) -> None:
    """Removes the copies that upgrades have made, whole or broken off by a kill. Raises OSError."""
    unfinished = (path.with_name(f"{name}{end}") for name in (_UPGRADED, _COPY) for end in ("", "-journal"))
    for copy in (*copies_of(path), *unfinished):
        copy.unlink(missing_ok=True)


def _check_room(path: Path) -> None:
    size = sum(part.stat().st_size for part in (path, log_of(path)) if part.exists())
    needed = _TIMES_ITS_SIZE * size + _LEAST_ROOM
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StorageError(
            f"The journal {path} has an older format. Its upgrade needs {needed / 1e6:,.0f} MB of disk"
            f" there, and {free / 1e6:,.0f} MB are free.\n"
            "Make room, then run the same command. Nothing was changed."
        )


def _write_upgraded(path: Path, former: int, target: sqlite3.Connection) -> None:
    """Writes the records of the journal at `path` into an empty journal of the current format."""
    create(target)
    with closing(connect(path, "ro")) as source, transaction(target):
        show_as_current(source, former)
        for table in ("runs", "overruns"):
            names = columns(table)
            marks = ", ".join("?" * len(names))
            records = source.execute(f"SELECT {', '.join(names)} FROM {table}")
            target.executemany(f"INSERT INTO {table} VALUES ({marks})", records)
        insert_attempts(target, read_attempts(source, path))
        if adjustments := read_adjustments(source):
            insert_adjustments(target, adjustments)
        write_blocks(target, former_intents(source))
        write_sums(target, sum_up(read_numbers(target, path)))
        index_all(target)


def _copy(connection: sqlite3.Connection, copy: Path) -> None:
    """Copies the journal beside it, durably; a copy that an earlier try has left is replaced."""
    unfinished = copy.with_name(_COPY)
    with closing(_new_file(unfinished)) as target:
        connection.backup(target)
    unfinished.replace(copy)
    folder = os.open(copy.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _new_file(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return connect(path, "rw")
