"""The event loop that sending runs on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ALLOCATIONS = 20_000
"""After so many, garbage is searched for. Python's own 700 are fewer than the objects of the requests in
flight, so that these were looked at again and again."""


def event_loop_options() -> dict[str, Any]:
    """Returns anyio's options of asyncio: uvloop, which is faster, where it is installed."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return {}
    return {"use_uvloop": True}


@contextmanager
def garbage_searched_rarely() -> Iterator[None]:
    """Has Python search for garbage less often during the block."""
    young, *older = gc.get_threshold()
    if young:  # else the program has switched the search off
        gc.set_threshold(max(young, _ALLOCATIONS), *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)
