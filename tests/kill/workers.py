"""Kills of the processes of a run with workers: now one of the workers, now the run itself."""

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
    """A moment that kills up to three workers before the campaign kills the run, and counts them."""

    def __init__(self) -> None:
        self.kills = 0

    def __call__(self, scene: Scene) -> None:
        for _ in range(scene.draw.randint(0, WORKERS)):
            while_asking(scene)
            self.kills += _kill_one(scene.process.pid, scene.draw)
        while_asking(scene)


def _kill_one(run: int, draw: random.Random) -> bool:
    """Kills a worker that is a child of the run; False if there is none at the moment."""
    try:
        workers = Path(f"/proc/{run}/task/{run}/children").read_text().split()
    except OSError:
        return False
    with suppress(ProcessLookupError):
        if workers:
            os.kill(int(draw.choice(workers)), signal.SIGKILL)
            return True
    return False


def worker_plan(moment: WhileWorkersDie, kills: int, seed: int, cap_nano_usd: int) -> Plan:
    """A job that is long enough for some kills of the run, each with those of its workers before it."""
    return Plan(rows=300 * kills, stages=((cap_nano_usd, kills),), seed=seed, moment=moment, job=JOB)
