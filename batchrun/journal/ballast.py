"""Reserves disk space for the last commits of a run whose disk is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrun.errors import StorageError

BALLAST_BYTES = 4 * 2**20


@contextmanager
def holding_room(path: Path, size: int = BALLAST_BYTES) -> Iterator[Path]:
    """Reserves `size` bytes of disk in the file `path` until `give_up_room`, or the end of the context.

    Raises StorageError where there isn't enough space.
    """
    try:
        _allocate(path, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{size // 2**20} MiB can't be set aside in {path.parent}: {error.strerror}.\n"
            "Make room, then run the same command."
        ) from None
    try:
        yield path
    finally:
        give_up_room(path)


def give_up_room(path: Path) -> bool:
    """Frees the space; returns False where it was freed before, or can't be freed."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            file.write(bytes(size))
