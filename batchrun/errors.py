"""The error tree, and the exit code that belongs to each branch.

BatchrunError            1   a fault of batchrun or of this machine
├── UsageError           2   the command, the job file or the input is wrong; nothing was sent
│   ├── JobError         2   a key, a value or a template of the job
│   ├── InputError       2   the table of prompts can't be read
│   └── OutputError      2   the output can't be written where the job wants it
├── JournalError         1   the journal is damaged, newer than this batchrun, or can't be written
├── StorageError         1   disk full, permission lost: while the run was going on
│   ├── MovedError       1   the journal was deleted, moved or replaced
│   └── HeldError        1   another program holds a file for too long
└── LockedError         75   another run of this output holds the lock

Stops that are not faults (a cap, a signal, a refusing endpoint) are values: `batchrun.stops`.
"""

import errno
import resource

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_ROWS_FAILED = 3
EXIT_BUDGET = 4
EXIT_ENDPOINT = 5
EXIT_LOCKED = 75
EXIT_SIGINT = 130


class BatchrunError(Exception):
    """The root of the tree. `str(error)` is one or two lines for the person who has to act."""

    exit_code = EXIT_FAULT


class UsageError(BatchrunError):
    exit_code = EXIT_USAGE


class JobError(UsageError):
    pass


class InputError(UsageError):
    pass


class OutputError(UsageError):
    pass


class JournalError(BatchrunError):
    pass


class StorageError(BatchrunError):
    pass


class MovedError(StorageError):
    """The journal is no longer where the run opened it."""


class HeldError(StorageError):
    """Another program holds a file that this one has to write; it may be free a moment later."""


class LockedError(BatchrunError):
    exit_code = EXIT_LOCKED


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def unwritable(
    message: str, error: OSError, otherwise: type[UsageError] = OutputError
) -> UsageError | StorageError:
    """Returns the error for a place that can't be written: a fault of this machine where it has no room."""
    return (StorageError if error.errno in _NO_ROOM else otherwise)(message)


def cause_of(error: OSError) -> str:
    """Returns the system's words for an error, and the limit on the size of files where that is the cause."""
    words = error.strerror or str(error)
    return f"{words}{file_size_limit()}" if error.errno == errno.EFBIG else words


def file_size_limit() -> str:
    """Returns the limit that this process has on the size of a file, in brackets; empty without one."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return "" if most == resource.RLIM_INFINITY else f" (this shell's `ulimit -f` is {most // 1024} KiB)"
