"""One run at a time: the kernel holds a lock on the lock file and one on the run's folder for the process.

The lock file alone is not enough: deleting it during a run would let a second run begin. Systems without
flock, such as some network file systems, use the older kind of lock that `lockf` takes.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from batchrun.errors import LockedError, StorageError
from batchrun.job.spec import Job, run_folder
from batchrun.runs.run_folder import RunFolder, no_permission

_SECONDS_BETWEEN_TRIES = 0.02
_NO_SUCH_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}


@contextmanager
def locked(
    folder: RunFolder, patience: float = 0.2, warn: Callable[[str], object] = lambda _: None
) -> Iterator[None]:
    """Holds the locks of the run's folder. Raises LockedError if another process has one, StorageError.

    `patience`, in seconds, allows for a `status` that checks whether a run is active. `warn` gets a line if
    the file system has no lock that survives the deletion of the lock file.
    """
    with ExitStack() as held:
        try:
            lock = _hold(folder, os.O_RDWR | os.O_CREAT, held, patience, warn)
        except OSError as error:
            raise StorageError(f"The lock of {folder.path} can't be taken: {error.strerror}") from None
        _write_pid(lock)
        yield


def is_locked(job: Job) -> bool:
    """Returns whether a run of this output is active. Raises UsageError where this user may not look."""
    return is_active(RunFolder(run_folder(job)))


def is_active(folder: RunFolder) -> bool:
    """Returns whether a run with this folder is active. Raises UsageError where this user may not look."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # who may only read can see the lock, too
        try:
            with ExitStack() as held:
                _hold(folder, flags, held, 0.0, lambda _: None)
                return False
        except LockedError:
            return True
        except PermissionError:
            continue
        except OSError:  # no folder, or one that nobody can write: it has no run
            return False
    raise no_permission(folder)


def _hold(
    folder: RunFolder, flags: int, held: ExitStack, patience: float, warn: Callable[[str], object]
) -> int:
    """Takes both locks until `held` ends; returns the descriptor of the lock file. Raises OSError."""
    until = time.monotonic() + patience
    lock = _lock(folder.lock, flags, held, until, warn)
    _lock(folder.path, os.O_DIRECTORY, held, until, warn)
    return lock


def _wait_for(descriptor: int, path: Path, until: float, warn: Callable[[str], object]) -> None:
    while not _is_taken(descriptor, path, warn):
        if time.monotonic() >= until:
            raise LockedError(
                f"Another run of this output is going on{_holder(path)}: it holds the lock {path}"
            )
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _lock(path: Path, flags: int, held: ExitStack, until: float, warn: Callable[[str], object]) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, descriptor)
    _wait_for(descriptor, path, until, warn)
    return descriptor


def _write_pid(lock: int) -> None:
    """Writes this process's id for the message of whoever finds the lock taken; the lock holds without it."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _holder(lock: Path) -> str:
    try:
        return f" (process {int(lock.read_text())})"
    except (OSError, ValueError):
        return ""


def _is_taken(descriptor: int, path: Path, warn: Callable[[str], object]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCK:
            raise
        if path.is_dir():
            return True  # the lock of the file in it has to suffice
        return _is_taken_without_flock(descriptor, path, error, warn)
    return True


def _is_taken_without_flock(
    descriptor: int, path: Path, error: OSError, warn: Callable[[str], object]
) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    warn(f"flock is not available for {path} ({error.strerror}): don't delete that file during a run")
    return True
