"""Replaces files as a whole or not at all: writes beside the target, syncs, renames.

A temporary file left by a dead process is recognized by its lock: the writer holds an flock on it, which the
kernel releases when the process dies.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


class Replacement:
    """The next content of the file `target`, written to `file`, which replaces it on `commit`.

    A replaced file keeps its mode, unless another one is given. Without a commit, the end of the `with` block
    removes the temporary file. All methods raise OSError.
    """

    def __init__(self, target: Path, mode: int | None = None) -> None:
        self._target = target
        self._temporary, self.file = open_temporary(target)
        self._committed = False
        try:
            self._set_mode(mode)
        except OSError:
            self._discard()
            raise

    def commit(self) -> None:
        """Replaces the target: syncs the file before the rename, its folder after it."""
        self._sync()
        self._temporary.replace(self._target)
        self._committed = True
        self.file.close()  # not before the rename: until then its lock shows that it is not a leftover
        sync_folder(self._target.parent)

    def commit_new(self) -> None:
        """Creates the target, which must not exist yet. Raises FileExistsError where it does."""
        self._sync()
        self._target.hardlink_to(self._temporary)  # link() fails where the name exists
        sync_folder(self._target.parent)

    def _set_mode(self, mode: int | None) -> None:
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(self._target.stat().st_mode) if mode is None else mode
        if mode is not None:
            os.fchmod(self.file.fileno(), mode)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._discard()

    def _discard(self) -> None:
        with suppress(OSError):  # closing flushes, and fails again on a full disk
            self.file.close()
        self._temporary.unlink(missing_ok=True)


def replace_file(target: Path, content: bytes, mode: int | None = None) -> None:
    """Replaces a small file, which keeps its mode unless another one is given. Raises OSError."""
    with Replacement(target, mode) as replacement:
        replacement.file.write(content)
        replacement.commit()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_replacing(target: Path) -> None:
    """Makes and removes a temporary file. Raises OSError where `target` can't be replaced."""
    with Replacement(target):
        pass
    try:
        owner, folder = target.lstat().st_uid, target.parent.stat()
    except FileNotFoundError:
        return
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, owner, folder.st_uid):
        raise PermissionError(errno.EPERM, "in this sticky folder, a file of another user can't be replaced")


def open_temporary(target: Path) -> tuple[Path, BinaryIO]:
    """Opens a new file in the folder of `target`, for writing; the lock on it ends when it is closed.

    Removes leftover temporary files of `target`, which nobody holds locked. Raises OSError.
    """
    _remove_leftovers(target)
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        file = path.open("xb")
        if not _held_by_another(file.fileno()) and _is_at(path, file.fileno()):
            return path, file
        file.close()  # another process took it for a leftover before it was locked


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
    """Takes the lock, if the file system has locks: without them, leftovers stay."""
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
