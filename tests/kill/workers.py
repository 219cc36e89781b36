"""Kills of the processes of a run with workers: a worker, the journal's process, the run itself."""

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

from tests.kill.campaign import Plan
from tests.kill.moments import Scene, while_asking

WORKERS = 3
JOB = f"""
[workers]
kind = "local"
count = {WORKERS}
"""


class WhileWorkersDie:
    """A moment that kills up to three of a run's processes before the campaign kills the run, and counts."""

    def __init__(self) -> None:
        self.of_workers = 0
        self.of_journals = 0

    @property
    def kills(self) -> int:
        return self.of_workers + self.of_journals

    def __call__(self, scene: Scene) -> None:
        for _ in range(scene.draw.randint(0, WORKERS)):
            while_asking(scene)
            self._kill_one(scene.process.pid, scene.draw)
        while_asking(scene)

    def _kill_one(self, run: int, draw: random.Random) -> None:
        """Kills a child of the run, if it has one at the moment."""
        with suppress(OSError):
            journal = journal_process_of(run)
            children = _children_of(run)
            if children:
                chosen = draw.choice(children)
                os.kill(chosen, signal.SIGKILL)
                self.of_journals += chosen == journal
                self.of_workers += chosen != journal


def journal_process_of(run: int) -> int | None:
    """Returns the process that writes the run's journal, if it has one at the moment."""
    for child in _children_of(run):
        with suppress(OSError):
            if b"batchrun.journal.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return None


def _children_of(run: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{run}/task/{run}/children").read_text().split()]
    except OSError:
        return []


def worker_plan(moment: WhileWorkersDie, kills: int, seed: int, cap_nano_usd: int) -> Plan:
    """A job that is long enough for some kills of the run, each with those of its workers before it."""
    return Plan(
        rows=300 * kills,
        stages=((cap_nano_usd, kills),),
        seed=seed,
        moment=moment,
        job=JOB,
        loses_journal=True,
    )
