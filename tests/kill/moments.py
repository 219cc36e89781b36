"""When a run is killed. Each moment waits for it, or until the process has ended by itself."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.kill.processes import SandboxProcess

Process = subprocess.Popen[bytes]


class Scene(NamedTuple):
    """What there is to watch of one run."""

    process: Process
    sandbox: SandboxProcess
    output: Path
    draw: random.Random

    @property
    def journal(self) -> Path:
        return self.output.with_suffix(".run") / "journal.sqlite"


Moment = Callable[[Scene], None]


def while_starting(scene: Scene) -> None:
    """Imports, lock, creation and recovery of the journal, the first requests: 0 to 0.6 s after the start."""
    _sleep(scene, scene.draw.uniform(0.0, 0.6))


def while_asking(scene: Scene) -> None:
    """0 to 0.4 s after this run's first request has arrived."""
    _until_asking(scene)
    _sleep(scene, scene.draw.uniform(0.0, 0.4))


def after_commit(scene: Scene) -> None:
    """At once when one of the commits after the first request has reached the write-ahead log."""
    _until_asking(scene)
    for _ in range(scene.draw.randint(1, 40)):
        before = _version(Path(f"{scene.journal}-wal"))
        _wait(scene, lambda before=before: _version(Path(f"{scene.journal}-wal")) != before)  # type: ignore[misc]


def while_writing_output(scene: Scene) -> None:
    """0 to 30 ms after the output's temporary file has its first bytes."""
    old = set(_temporary_files(scene.output))
    _wait(scene, lambda: bool(set(_temporary_files(scene.output)) - old))
    _sleep(scene, scene.draw.uniform(0.0, 0.03))


def at_a_system_call(scene: Scene) -> None:
    """Waits until the process has ended: the library of `system_calls` ends it."""
    _wait(scene, lambda: False, pause=0.01)


def any_moment(scene: Scene) -> None:
    """Returns one of the moments while there are rows to send."""
    (moment,) = scene.draw.choices((while_starting, while_asking, after_commit), weights=(1, 2, 1))
    moment(scene)


def _until_asking(scene: Scene) -> None:
    before = scene.sandbox.totals()["requests"]
    _wait(scene, lambda: scene.sandbox.totals()["requests"] > before, pause=0.01)


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _temporary_files(output: Path) -> list[Path]:
    """An empty one is the trial, at the start of a run, whether the output can be written."""
    return [path for path in output.parent.glob(f".{output.name}.*.tmp") if _version(path)[0]]


def _wait(scene: Scene, happened: Callable[[], bool], pause: float = 0.0005) -> None:
    while scene.process.poll() is None and not happened():
        time.sleep(pause)


def _sleep(scene: Scene, seconds: float) -> None:
    end = time.monotonic() + seconds
    _wait(scene, lambda: time.monotonic() >= end)
