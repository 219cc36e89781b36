"""Bounds the requests in flight by the number of files that this process may open."""

import os
import resource
from collections.abc import Callable
from contextlib import suppress

from batchrun.errors import StorageError

SPARE = 24
"""Files that a run opens besides its connections: journal, output, log, name resolution."""


def possible_concurrency(wanted: int, warn: Callable[[str], object], *, each: int = 1) -> int:
    """Returns how many requests may be in flight, at most `wanted`; each takes `each` descriptors.

    Raises the soft limit if needed and allowed. `warn` gets a line if fewer requests are possible. Raises
    StorageError if none is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or not each:
        return wanted
    others = _open_now() + SPARE
    needed = others + each * wanted
    if needed > soft and soft != hard:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    possible = (soft - others) // each
    if possible < 1:
        raise StorageError(
            f"This process may have {soft} files open (RLIMIT_NOFILE), and sending needs {others + each}.\n"
            "Raise the limit with `ulimit -n`, then run the same command."
        )
    if possible < wanted:
        warn(
            f"at most {possible:,} requests are in flight instead of {wanted:,} (limits.concurrency):"
            f" this process may have {soft:,} files open. `ulimit -n` raises that"
        )
    return min(wanted, possible)


def _open_now() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208
    except OSError:
        return 32
