"""The imports that a command waits for: polars, pyarrow and numpy take longer than all else at the start."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around a command's imports.

    numpy's linear algebra starts a thread for each core when it is imported, at 0.1 s of CPU, unless a
    variable says otherwise. A user's own stands; ours is gone before a command of the user could inherit it.
    """
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
