"""The temporary file beside an output. One that a process left behind when it died is known by its lock.

Whoever writes such a file holds an flock on it, which the kernel releases when the process dies.
"""

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def open_temporary(target: Path) -> tuple[Path, BinaryIO]:
    """Opens a new file in the folder of `target`, for writing; the lock on it ends when it is closed.

    Removes the temporary files of `target` that nobody holds any more. Raises OSError.
    """
    _remove_leftovers(target)
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        file = path.open("xb")
        if not _held_by_another(file.fileno()) and _is_at(path, file.fileno()):
            return path, file
        file.close()  # somebody took it for a leftover before it was locked


def _remove_leftovers(target: Path) -> None:
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.tmp")
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name):
            with suppress(OSError):
                _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _held_by_another(descriptor: int) -> bool:
    """Takes the lock. A file system without locks has none to hold: there, leftovers stay."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
