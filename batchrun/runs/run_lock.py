"""One run at a time: the kernel holds a lock on the lock file and one on the run's folder for the process.

The lock file alone is not enough: deleting it during a run would let a second run begin. Systems without
flock, such as some network file systems, use the older kind of lock that `lockf` takes, and that no other
process inherits.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from batchrun.errors import LockedError, StorageError
from batchrun.job.spec import Job, run_folder
from batchrun.journal.process import journal_processes_with
from batchrun.runs.run_folder import RunFolder, no_permission

_SECONDS_BETWEEN_TRIES = 0.02
_SECONDS_FOR_THE_DEAD = 30.0
_LAST_STREAM = 2
_NO_SUCH_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}


@contextmanager
def locked(
    folder: RunFolder, patience: float = 0.2, warn: Callable[[str], object] = lambda _: None
) -> Iterator[tuple[int, ...]]:
    """Holds the locks of the run's folder. Raises LockedError if another process has one, StorageError.

    `patience`, in seconds, allows for a `status` that checks whether a run is active. A run that was killed
    gets longer, until its last responses are written. `warn` gets a line if the file system has no lock that
    survives the deletion of the lock file. Yields the descriptors by which a process that inherits them holds
    the locks too: none where locks can't be inherited.
    """
    now, told = time.monotonic(), list[str]()
    until = _Until(now + patience, now + max(patience, _SECONDS_FOR_THE_DEAD))
    with ExitStack() as held:
        try:
            locks = _hold(folder, os.O_RDWR | os.O_CREAT, held, until, told.append)
        except OSError as error:
            raise StorageError(f"The lock of {folder.path} can't be taken: {error.strerror}") from None
        for line in told:
            warn(line)
        _write_pid(locks[0])
        yield () if told else locks


def is_locked(job: Job) -> bool:
    """Returns whether a run of this output is active. Raises UsageError where this user may not look."""
    return is_active(RunFolder(run_folder(job)))


def is_active(folder: RunFolder) -> bool:
    """Returns whether a run with this folder is active. Raises UsageError where this user may not look."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # who may only read can see the lock, too
        try:
            with ExitStack() as held:
                _hold(folder, flags, held, _AT_ONCE, lambda _: None)
                return False
        except LockedError:
            return True
        except PermissionError:
            continue
        except OSError:  # no folder, or one that nobody can write: it has no run
            return False
    raise no_permission(folder)


class _Until(NamedTuple):
    """How long to wait for a lock, in seconds of the monotonic clock."""

    held_by_a_run: float
    held_for_a_dead_run: float  # whose journal process still writes; or one whose process isn't seen here


_AT_ONCE = _Until(0.0, 0.0)


def _hold(
    folder: RunFolder, flags: int, held: ExitStack, until: _Until, warn: Callable[[str], object]
) -> tuple[int, int]:
    """Takes both locks until `held` ends; returns the descriptors of lock file and folder. Raises OSError."""
    lock = _lock(folder.lock, flags, held, until, warn)
    return lock, _lock(folder.path, os.O_DIRECTORY, held, until, warn)


def _wait_for(descriptor: int, path: Path, until: _Until, warn: Callable[[str], object]) -> None:
    while not _is_taken(descriptor, path, warn):
        now, holder = time.monotonic(), _holder(path)
        if holder is None or _is_alive(holder):
            if now >= until.held_by_a_run:
                process = "" if holder is None else f" (process {holder})"
                raise LockedError(
                    f"Another run of this output is going on{process}: it holds the lock {path}"
                )
        elif now >= until.held_for_a_dead_run:
            raise LockedError(_held_for_a_dead_run(holder, descriptor, path))
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _held_for_a_dead_run(run: int, descriptor: int, path: Path) -> str:
    writer = next(journal_processes_with(descriptor), None)
    if writer is None:
        return (
            f"The lock {path} is held, it seems by a run on another machine or in another container: its"
            f" process {run} can't be seen here.\nRun the same command later."
        )
    return (
        f"The lock {path} is held by process {writer}: it writes the last responses of a run that was killed"
        f" (process {run}).\nRun the same command later. If it never ends: kill -9 {writer}, and what it"
        " hasn't written counts as uncertain."
    )


def _lock(path: Path, flags: int, held: ExitStack, until: _Until, warn: Callable[[str], object]) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    if descriptor <= _LAST_STREAM:
        descriptor = _moved_up(descriptor)
    held.callback(_release, descriptor, os.getpid())
    _wait_for(descriptor, path, until, warn)
    return descriptor


def _release(descriptor: int, owner: int) -> None:
    """Frees the lock, also where a process that this program has forked has the descriptor, and only here."""
    if os.getpid() == owner:
        with suppress(OSError):  # no flock: closing the file frees the other kind of lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _moved_up(descriptor: int) -> int:
    """Returns the file's new descriptor: a process that inherits a stream's has its own stream there."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STREAM + 1)
    finally:
        os.close(descriptor)


def _write_pid(lock: int) -> None:
    """Writes this process's id for the message of whoever finds the lock taken; the lock holds without it."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _holder(lock: Path) -> int | None:
    try:
        return int(lock.read_text())
    except (OSError, ValueError):
        return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


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
