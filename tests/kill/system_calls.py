"""Kills at a system call: a library that the process loads ends it there with SIGKILL."""

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).with_suffix(".c")
_CALLS = {"sync": 60, "write": 400, "rename": 4, "unlink": 6, "flock": 3}
"""About as many of each call as a run of some hundred rows makes."""


class SystemCall(NamedTuple):
    """The call number `number` of its kind, counted from 1. `when`: before, within (a write) or after it."""

    name: str
    number: int
    when: str

    def environment(self, library: Path, folder: Path) -> dict[str, str]:
        """Returns the environment of a process that ends at this call. Files in `folder` alone count."""
        return {
            "LD_PRELOAD": str(library),
            "KILL_CALL": self.name,
            "KILL_NUMBER": str(self.number),
            "KILL_WHEN": self.when,
            "KILL_FOLDER": str(folder),
        }


def draw_call(draw: random.Random) -> SystemCall:
    """Returns a call at random, more often an early one: those of the start are few."""
    name = draw.choice(list(_CALLS))
    number = 1 + int(_CALLS[name] * draw.random() ** 2)
    return SystemCall(name, number, draw.choice(("before", "within", "after")))


def compiled(folder: Path) -> Path | None:
    """Compiles the library in `folder`; returns its path, None where there is no C compiler for Linux."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "system_calls.so"
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
    subprocess.run([compiler, *options, "-o", library, _SOURCE, "-ldl"], check=True)
    return library
