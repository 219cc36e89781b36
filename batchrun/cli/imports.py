"""The imports that a command waits for: polars, pyarrow and numpy take longer than all else at the start."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batchrun.errors import StorageError

_SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Variables of the environment that numpy and pyarrow read at their import. Arrow's own pool keeps some 10 MB
of memory for later that malloc gives to others."""
_ARENAS = "MALLOC_ARENA_MAX"
_M_ARENA_MAX = -8
"""Of mallopt(3), which glibc has alone."""
LEAST_ADDRESS_SPACE = 3_000_000 * 1_024
"""Bytes of address space. A run on two cores takes up to 2.6 GB of it, mostly reserved and never used: with
less, polars and pyarrow fail at their import or later, or wait for ever."""
_ALLOCATIONS = 20_000
"""After so many, garbage is searched for. Python's own 700 are fewer than the objects of the requests in
flight, which would be looked at again and again."""


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Surrounds a command's imports.

    numpy's linear algebra starts a thread for each core when it is imported, at 0.1 s of CPU, unless a
    variable says otherwise; malloc keeps free memory apart for each thread. A user's own settings stand; ours
    are gone before a command of the user could inherit them. Raises StorageError if the process may not have
    the address space that all this takes.
    """
    _check_address_space()
    own = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(own)
    if _ARENAS not in os.environ:
        from ctypes import CDLL

        with suppress(AttributeError):  # another C library
            CDLL(None).mallopt(_M_ARENA_MAX, 1)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
    # What has been imported stays: no collection of garbage has to look at it again.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])


def _check_address_space() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise StorageError(
            f"This process may have {limit // 1_024:,} KB of address space (RLIMIT_AS), and a command needs"
            f" {LEAST_ADDRESS_SPACE // 1_024:,}.\nRaise the limit, as by: ulimit -v unlimited"
        )
