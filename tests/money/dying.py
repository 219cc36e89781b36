"""Ways in which a forked process dies in the middle of its writes: each returns what prepares its death."""

import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable, Collection
from types import FrameType

DIED = 9
"""The exit code of a process that died at a step of the code."""


def dying_at_size(size: int) -> Callable[[], object]:
    """The kernel kills the process within the write that would make any file larger than this."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


def dying_within(files: Collection[str | None], step: int) -> Callable[[], object]:
    """The process dies at the beginning of so many steps of the code in these files."""
    steps = itertools.count(1)

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename in files and next(steps) == step:
            os._exit(DIED)

    return lambda: sys.setprofile(profile)
