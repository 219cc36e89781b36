"""Kills of the processes of a run with workers: a worker, the journal's process, the reader, the run."""

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tests.kill.campaign import Plan
from tests.kill.moments import Scene, while_asking

WORKERS = 3
JOB = f"""
[workers]
kind = "local"
count = {WORKERS}
"""
Child = Literal["worker", "journal", "reader"]
_MODULES: dict[Child, bytes] = {
    "journal": b"batchrun.journal.process",
    "reader": b"batchrun.workers.reader_process",
}


_READ_AHEAD = 2_000
"""Rows that the reader is ahead of the run: with no more than these it would soon have ended."""


class WhileWorkersDie:
    """A moment that kills up to three of a run's processes before the campaign kills the run.

    `kills` counts them by what was killed.
    """

    def __init__(self) -> None:
        self.kills: Counter[Child] = Counter()

    def __call__(self, scene: Scene) -> None:
        for _ in range(scene.draw.randint(0, WORKERS)):
            while_asking(scene)
            self._kill_one(scene.process.pid, scene.draw)
        while_asking(scene)

    def _kill_one(self, run: int, draw: random.Random) -> None:
        """Kills a child of the run, if it has one at the moment."""
        with suppress(OSError):
            children = children_of(run)
            if children:
                chosen = draw.choice(list(children))
                os.kill(chosen, signal.SIGKILL)
                self.kills[children[chosen]] += 1


def children_of(run: int) -> dict[int, Child]:
    """Returns the processes that a run has started and that are still there."""
    found: dict[int, Child] = {}
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{run}/task/{run}/children").read_text().split()):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            names = [name for name, module in _MODULES.items() if module in command]
            found[child] = names[0] if names else "worker"
    return found


def worker_plan(moment: WhileWorkersDie, kills: int, seed: int, cap_nano_usd: int) -> Plan:
    """A job that is long enough for some kills of the run, each with those of its workers before it."""
    return Plan(
        rows=_READ_AHEAD + 300 * kills,
        stages=((cap_nano_usd, kills),),
        seed=seed,
        moment=moment,
        job=JOB,
        module="tests.kill.read_elsewhere",
        has_children=True,
    )
