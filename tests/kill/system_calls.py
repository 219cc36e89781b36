"""Kills at a system call or an SQL statement: a library that the process loads ends it there with SIGKILL."""

import _sqlite3
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).with_suffix(".c")
_CALLS = {"sync": 60, "write": 400, "rename": 4, "unlink": 6, "flock": 3}
"""About as many of each call as a run of some hundred rows makes."""
_RUN = "answers.run"
"""The folder of a campaign's run."""


class SystemCall(NamedTuple):
    """The call number `number` of its kind, counted from 1. `when`: before, within (a write) or after it.

    Of the kind "statement" it is a step of an SQL statement that begins with `statement`. `file` is the
    beginning of the paths whose calls count, within the folder of the environment.
    """

    name: str
    number: int
    when: str
    file: str = ""
    statement: str = ""

    def environment(self, library: Path, folder: Path) -> dict[str, str]:
        """Returns the environment of a process that ends at this call. Files in `folder` alone count."""
        return {
            "LD_PRELOAD": str(library),
            "KILL_CALL": self.name,
            "KILL_NUMBER": str(self.number),
            "KILL_WHEN": self.when,
            "KILL_FOLDER": str(folder / self.file),
            "KILL_STATEMENT": self.statement,
        }


Draw = Callable[[random.Random], SystemCall]


def draw_call(draw: random.Random) -> SystemCall:
    """Returns a call at random, more often an early one: those of the start are few."""
    name = draw.choice(list(_CALLS))
    number = 1 + int(_CALLS[name] * draw.random() ** 2)
    return SystemCall(name, number, _when(draw))


def draw_commit(draw: random.Random) -> SystemCall:
    """Between the write of a block of intents and the end of its COMMIT."""
    number = draw.randint(1, 8)
    return draw.choice(
        (
            SystemCall("statement", number, "after", statement="INSERT INTO intent_blocks"),
            SystemCall("statement", number, "before", statement="COMMIT"),
            SystemCall("write", 4 * number, _when(draw), f"{_RUN}/journal.sqlite-wal"),
            SystemCall("sync", number, "before", f"{_RUN}/journal.sqlite-wal"),
        )
    )


def draw_indexing(draw: random.Random) -> SystemCall:
    """While the index by digest takes over the attempts that it lacks."""
    part = "INSERT OR IGNORE INTO attempts_by_digest"
    begin = draw.choice((part, "DELETE FROM unindexed", "INSERT INTO unindexed SELECT"))
    when = draw.choice(("before", "after"))
    return SystemCall("statement", draw.randint(1, 2), when, statement=begin)


def draw_upgrade(draw: random.Random) -> SystemCall:
    """While a journal of a former format is upgraded: copied, written anew, put in its own place."""
    number = draw.randint(1, 20)
    return draw.choice(
        (
            SystemCall("write", number, _when(draw), f"{_RUN}/copying.sqlite"),
            SystemCall("rename", 1, _when(draw), f"{_RUN}/copying.sqlite"),
            SystemCall("statement", 2 * number, "after", statement="INSERT INTO attempts ("),
            SystemCall("write", number, _when(draw), f"{_RUN}/upgrading.sqlite"),
            SystemCall("write", number, _when(draw), f"{_RUN}/journal.sqlite-wal"),
            SystemCall("sync", 1, _when(draw), f"{_RUN}/journal.sqlite-wal"),
            SystemCall("unlink", 1, "before", f"{_RUN}/upgrading.sqlite"),
        )
    )


def _when(draw: random.Random) -> str:
    return draw.choice(("before", "within", "after"))


def compiled(folder: Path) -> Path | None:
    """Compiles the library in `folder`; returns its path.

    None where there is no C compiler for Linux, and where the interpreter has an SQLite of its own inside.
    """
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux" or not _has_shared_sqlite():
        return None
    library = folder / "system_calls.so"
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
    subprocess.run([compiler, *options, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def _has_shared_sqlite() -> bool:
    module = getattr(_sqlite3, "__file__", None)
    return module is not None and b"libsqlite3.so.0" in Path(module).read_bytes()
