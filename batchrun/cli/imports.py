"""The imports that a command waits for: polars, pyarrow and numpy take longer than all else at the start."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from batchrun.errors import StorageError

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
LEAST_ADDRESS_SPACE = 3_000_000 * 1_024
"""Bytes of address space. A run on two cores takes up to 2.6 GB of it, mostly reserved and never used: with
less, polars and pyarrow fail at their import or later, or wait for ever."""


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Surrounds a command's imports.

    numpy's linear algebra starts a thread for each core when it is imported, at 0.1 s of CPU, unless a
    variable says otherwise. A user's own stands; ours is gone before a command of the user could inherit it.
    Raises StorageError if the process may not have the address space that all this takes.
    """
    _check_address_space()
    own = _BLAS_THREADS not in os.environ
    if own:
        os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if own:
            os.environ.pop(_BLAS_THREADS, None)
    # What has been imported stays: no collection of garbage has to look at it again.
    gc.freeze()


def _check_address_space() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise StorageError(
            f"This process may have {limit // 1_024:,} KB of address space (RLIMIT_AS), and a command needs"
            f" {LEAST_ADDRESS_SPACE // 1_024:,}.\nRaise the limit, as by: ulimit -v unlimited"
        )
