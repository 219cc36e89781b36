"""Kills of the processes of a Ray cluster that sends for a run, and of the run."""

import fcntl
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.kill.audit import broken_at
from tests.kill.campaign import ENDS, Evidence, Observation, Plan
from tests.kill.evidence import snapshot
from tests.kill.moments import Scene
from tests.kill.ray_nodes import RayNodes

WORKERS = 4
JOB = f"""
[workers]
kind = "ray"
count = {WORKERS}
"""
_ODDS = {"worker": 8, "frozen worker": 3, "raylet": 2, "node": 2, "head": 2}
_MOST = 5
"""Kills of processes of the cluster during one run."""
_SHARE_OF_FINISHED = 0.25
"""Of the runs that are left to end by themselves after these kills."""
_PATIENCE = 180.0
_KILLED = -signal.SIGKILL
_BY_RAY = 1
"""With what Ray ends a process whose head has gone."""


class WhileTheClusterDies:
    """A moment that kills processes of the cluster, and then, as a rule, the run.

    `kills` counts them by what was killed. After each kill, bill and journal are compared while the run goes
    on, and once the run has ended, its lock has to be free and its workers gone: `broken` has what is wrong.
    """

    def __init__(self, nodes: RayNodes, cap_nano_usd: int) -> None:
        self.kills: Counter[str] = Counter()
        self.broken: list[str] = []
        self._nodes = nodes
        self._cap = cap_nano_usd
        self._frozen: list[int] = []
        self._ended_by_ray: list[bool] = []

    def __call__(self, scene: Scene) -> None:
        headless = False
        for _ in range(scene.draw.randint(1, _MOST)):
            if headless or not self._is_sending(scene):
                break
            _pause(scene, scene.draw.uniform(0.0, 0.6))
            headless = self._strike(scene) == "head"
        if headless:
            self._expect(lambda: scene.process.poll() is not None, "Ray has not ended a run without a head")
        elif scene.draw.random() < _SHARE_OF_FINISHED:
            self._expect(lambda: scene.process.poll() is not None, "the run has not ended", 2 * _PATIENCE)
        elif self._is_sending(scene):
            _pause(scene, scene.draw.uniform(0.0, 0.6))
        self._end(scene, headless=headless)

    def _strike(self, scene: Scene) -> str:
        """Kills something, looks at the books, and replaces what Ray doesn't. Returns what was killed."""
        (what,) = scene.draw.choices(list(_ODDS), weights=list(_ODDS.values()))
        workers = [pid for pid in self._nodes.workers() if pid not in self._frozen]
        if what in ("worker", "frozen worker"):
            if not workers:
                return "nobody"
            victim = scene.draw.choice(workers)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL if what == "worker" else signal.SIGSTOP)
            if what == "frozen worker":
                self._frozen.append(victim)
        elif what == "head":
            self._nodes.kill_head()
        else:
            kill = self._nodes.kill_raylet if what == "raylet" else self._nodes.kill_node
            kill(scene.draw.choice(self._nodes.others))
        self.kills[what] += 1
        self.broken += [f"after a kill of a {what}: {text}" for text in self._wrong_in_the_books(scene)]
        if what != "head":
            self._nodes.mend()
        return what

    def _wrong_in_the_books(self, scene: Scene) -> list[str]:
        """Compares them while the run goes on: the bill is read before and after the journal."""
        before = scene.sandbox.totals()["nano_usd"]
        journal = snapshot(scene.journal)
        after = scene.sandbox.totals()["nano_usd"]
        billed = min(max(before, journal.settled), after)
        return broken_at(Observation(self._cap, billed, journal, _KILLED, None))

    def _is_sending(self, scene: Scene) -> bool:
        """Waits until more requests arrive; returns False if the run has ended instead."""
        before = scene.sandbox.totals()["requests"]
        self._expect(
            lambda: scene.process.poll() is not None or scene.sandbox.totals()["requests"] > before,
            "nothing is sent any more",
        )
        return scene.process.poll() is None

    def _end(self, scene: Scene, *, headless: bool) -> None:
        if scene.process.poll() is None:
            self.kills["run"] += 1
        scene.process.kill()
        code = scene.process.wait()
        self._ended_by_ray.append(headless and code == _BY_RAY)
        if code not in (_KILLED, *ENDS) and not self._ended_by_ray[-1]:
            summary = json.loads(scene.output.with_suffix(".run").joinpath("summary.json").read_text())
            self.broken.append(f"a run ended with exit code {code}: {summary['reason']}")
        self.check_end(scene.output)
        if headless:
            self._nodes.stop()
            self._nodes.start()

    def check_end(self, output: Path) -> None:
        """Once a run has ended, its workers end (frozen ones when they go on), and its lock is free."""
        for victim in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)
        self._frozen.clear()
        self._expect(lambda: not _workers_left(output), "workers of a run that has ended are still there")
        self._expect(
            lambda: _is_free(output.with_suffix(".run")), "the lock of a run that has ended is taken"
        )

    def _expect(self, happened: Callable[[], bool], else_: str, seconds: float = _PATIENCE) -> None:
        until = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > until:
                self.broken.append(f"{else_} after {seconds:.0f} s, with {dict(self.kills)}")
                return
            time.sleep(0.02)

    def as_seen(self, evidence: Evidence) -> Evidence:
        """The evidence, in which a run that Ray has ended counts as killed: it leaves intents open."""
        seen = [
            observation._replace(exit_code=_KILLED) if by_ray else observation
            for observation, by_ray in zip(evidence.observations, [*self._ended_by_ray, False], strict=False)
        ]
        return replace(evidence, observations=seen)


def ray_plan(moment: WhileTheClusterDies, runs: int, seed: int, cap_nano_usd: int) -> Plan:
    """A job of ten seconds of sending, and so many runs of it that may be killed."""
    stages = ((cap_nano_usd, runs),)
    in_doubt = "ask" if seed % 3 else "leave"
    return Plan(2_500, stages, seed, moment=moment, in_doubt=in_doubt, latency=0.2, job=JOB)


def _pause(scene: Scene, seconds: float) -> None:
    until = time.monotonic() + seconds
    while scene.process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


def _workers_left(output: Path) -> list[int]:
    """The processes that have joined, by the run's log, and are still there."""
    lines = output.with_suffix(".run").joinpath("log.jsonl").read_text().splitlines()
    joined = [event for event in map(json.loads, lines) if event["event"] == "worker joined"]
    return [pid for event in joined if _is_actor(pid := int(event["worker"].rpartition("/")[2]))]


def _is_actor(process: int) -> bool:
    with suppress(OSError):
        name, _, rest = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rpartition(")")
        return name.startswith("ray::Sending") and rest.split()[0] != "Z"
    return False


def _is_free(folder: Path) -> bool:
    for path in (folder / "lock", folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True
