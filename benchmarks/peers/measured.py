"""What the scripts of this folder share. Each runs in an environment of its own: the standard library alone.

A script is started as `script.py PORT ROWS IN_FLIGHT` and prints what its loop took as JSON. Starting Python
and importing the client isn't counted.
"""

import json
import resource
import sys
import time
from collections.abc import Callable

PROMPT = (
    "Sentiment of this review, one word: Review {row}: the room was clean and quiet, but nobody answered "
    "when we asked for towels again and again"
)
"""As that of the benchmark's jobs."""


def measure(loop: Callable[[int, list[str], int], int]) -> None:
    """Calls `loop(port, prompts, in_flight)`, which counts its answers, and prints what that took."""
    port, rows, in_flight = map(int, sys.argv[1:])
    prompts = [PROMPT.format(row=row) for row in range(rows)]
    cpu, wall = _cpu_seconds(), time.perf_counter()
    answers = loop(port, prompts, in_flight)
    taken = {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu, "answers": answers}
    taken["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(taken))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
