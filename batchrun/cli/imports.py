"""The imports that a command waits for: polars, pyarrow and numpy take longer than all else at the start."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around a command's imports.

    numpy's linear algebra, which nothing here needs, starts a thread for each core when it is imported, at
    0.1 s of CPU. The variable that forbids it is gone again before a command of the user could inherit it.
    """
    given = os.environ.get(_BLAS_THREADS)
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_BLAS_THREADS]
    # What has been imported stays: no collection of garbage has to look at it again.
    gc.freeze()
