"""Real runs before a real server that refuses.

python -m benchmarks.limit_runs [--only TEXT] [--rounds 3]

`batchrun run` and `batchrun sandbox` are processes of their own. Each run takes turns with one that is
refused nothing. What is possible is computed from both: each row goes when the run without refusals sent it,
and waits as often as it was refused. Times are from the first request to the last, at the server: without
the start of Python and the output, and longer for both runs where the machine is busy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.machine import description
from benchmarks.processes import measure, python_module

MOST = 2.0
"""The goal: at most this multiple of what is possible."""
_FAULTS = ("429-random", "500", "529", "200-error", "html", "reset-before", "reset-after", "truncated")
"""Every kind that does not end the run, fail a row or wait for a time-out."""


@dataclass(frozen=True)
class Case:
    """`server` are the sandbox's options, `refuses` those that make it refuse. `job` are the run's, `knowing`
    those of the run that is refused nothing. A refused row waits for `wait` seconds: a first wait of
    batchrun's own may take 1 s, whatever shorter one the server states."""

    name: str
    rows: int
    in_flight: int
    server: tuple[str, ...]
    refuses: tuple[str, ...]
    wait: float = 1.0
    job: tuple[str, ...] = ()
    knowing: tuple[str, ...] = ()


def _random(share: float, wait: float = 1.0) -> tuple[str, ...]:
    return ("--fault", f"429-random={share}", "--retry-after", f"{wait:g}")


_LATENCY = ("--latency", "0.1")
_ALL_FAULTS = tuple(word for kind in _FAULTS for word in ("--fault", f"{kind}=0.01"))
CASES = [
    Case("20 % refused, wait 1 s", 500, 64, _LATENCY, _random(0.2)),
    Case("20 % refused, wait 0.05 s", 500, 64, _LATENCY, _random(0.2, 0.05)),
    Case("1 % refused, wait 1 s", 3_000, 100, _LATENCY, _random(0.01)),
    Case("1 % refused beside 6,000/min in headers", 1_500, 100, (*_LATENCY, "--rpm", "6000"), _random(0.01)),
    Case(
        "6,000/min given, 1 % of each of eight faults",
        1_500,
        100,
        _LATENCY,
        _ALL_FAULTS,
        job=("--rpm", "6000"),
    ),
    Case(
        "8 concurrent requests",
        800,
        64,
        ("--latency", "0.2"),
        ("--concurrency", "8"),
        wait=0.0,
        knowing=("--concurrency", "8"),
    ),
]


class Arrival(NamedTuple):
    """One request at the server: seconds since 1970, the hash of its body, its status."""

    at: float
    body: str
    status: int


class Turn(NamedTuple):
    """Seconds from the first request to the last: of the run that was refused some, and at least possible.

    `refused` is the share of its requests without an answer. `wall` are the seconds of the whole process, and
    of that of the run that was refused nothing.
    """

    took: float
    possible: float
    refused: float
    wall: tuple[float, float]


@contextmanager
def sandbox(options: tuple[str, ...]) -> Iterator[str]:
    """A sandbox's address."""
    command = python_module("batchrun", "sandbox", "--port", "0", *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "http://" in line)
            yield next(word for word in line.split() if word.startswith("http://")).rstrip(".,")
        finally:
            process.terminate()


def bill(address: str) -> list[Arrival]:
    with urllib.request.urlopen(f"{address}/sandbox/bill", timeout=30) as response:
        requests: list[dict[str, Any]] = json.load(response)["requests"]
    return [
        Arrival(datetime.fromisoformat(each["received_at"]).timestamp(), each["body_sha256"], each["status"])
        for each in requests
    ]


class Runs:
    """Runs jobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def turn(self, case: Case, seed: int) -> Turn:
        server = (*case.server, "--seed", str(seed))
        knowing = (*case.job, *(case.knowing or ("--concurrency", str(case.in_flight))))
        free, free_wall = self._run(case.rows, server, knowing)
        options = (*case.job, "--concurrency", str(case.in_flight))
        refused, wall = self._run(case.rows, (*server, *case.refuses), options)
        return compared(free, refused, case.wait, (wall, free_wall))

    def _run(
        self, rows: int, server: tuple[str, ...], options: tuple[str, ...]
    ) -> tuple[list[Arrival], float]:
        table = self._folder / f"rows{rows}.parquet"
        if not table.exists():
            subprocess.run(python_module("benchmarks.rows", str(table), str(rows)), check=True)
        stem = self._folder / f"run{next(self._numbers)}"
        with sandbox(server) as address:
            command = [
                *python_module("batchrun", "run", "--input", str(table), "--output", f"{stem}.parquet"),
                *("--prompt", "{{ text }}", "--model", "abliterated-model", "--max-tokens", "16"),
                *("--base-url", address, "--set", 'output.accept=["truncated"]', *options),
            ]
            usage = measure(command, stem.with_suffix(".log"))
            return bill(address), usage.wall


def compared(free: list[Arrival], refused: list[Arrival], wait: float, wall: tuple[float, float]) -> Turn:
    """The turn of two runs over the same rows. No row can end before it has waited as often as it must."""
    answered = {each.body: each.at for each in refused if each.status == 200}
    attempts = Counter(each.body for each in refused if each.at <= answered.get(each.body, float("inf")))
    first_at: dict[str, float] = {}
    for each in free:
        first_at.setdefault(each.body, each.at)
    begun = min(first_at.values())
    possible = max(at - begun + wait * (attempts[body] - 1) for body, at in first_at.items())
    took = max(each.at for each in refused) - min(each.at for each in refused)
    share = sum(each.status != 200 for each in refused) / len(refused)
    return Turn(took, possible, share, wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("ABLIT_KEY", "any")
    cases = [case for case in CASES if options.only in case.name]
    found: dict[str, list[Turn]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="batchrun-limits-") as name:
        runs = Runs(Path(name))
        for seed in range(options.rounds):
            for case in cases:
                found[case.name].append(runs.turn(case, seed))
                print(case.name, found[case.name][-1], file=sys.stderr)
    print(description())
    print(table(found))


def table(found: dict[str, list[Turn]]) -> str:
    lines = [
        "| run | sending | possible | ratio, each round | goal | refused | whole process | none refused |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, turns in found.items():
        ratios = [turn.took / turn.possible for turn in turns]
        said = "met" if median(ratios) <= MOST else "missed"
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        took, possible = (f"{median(turn[place] for turn in turns):.1f} s" for place in (0, 1))
        wall, free = (f"{median(turn.wall[place] for turn in turns):.1f} s" for place in (0, 1))
        refused = f"{median(turn.refused for turn in turns):.1%}"
        lines.append(
            f"| {name} | {took} | {possible} | {each} | {MOST:g}: {said} | {refused} | {wall} | {free} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
