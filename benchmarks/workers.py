"""What workers cost and save: `python -m benchmarks.workers` runs a job without and with them, by turns."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.coordinator import cpu_while_sending
from benchmarks.jobs import Jobs
from benchmarks.machine import description
from benchmarks.server import Server, compile_server, serving

IN_FLIGHT = 256
_FREE = ("--free-senders",)


class Senders(NamedTuple):
    """So many workers, and the options of `benchmarks.coordinator`."""

    name: str
    workers: int
    options: Sequence[str] = ()


SENDERS = (
    Senders("none", 0),
    Senders("1", 1),
    Senders("2", 2),
    Senders("4", 4),
    Senders("free, and all in this process", 0, _FREE),
    Senders("free, only the reader in a process of its own", 2, (*_FREE, "--journal-by-thread")),
    Senders("free, journal and reader in processes of their own", 2, _FREE),
)


class Cost(NamedTuple):
    """CPU in us a row, from the start of Python to the exit: of the run's own process, and of all others.

    `sending` is the part of `own` between the first row and the last response.
    """

    own: float
    sending: float
    others: float
    rows_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[Senders, list[Cost]] = {senders: [] for senders in SENDERS}
    with tempfile.TemporaryDirectory(prefix="batchrun-workers-") as name:
        jobs, program = Jobs(Path(name)), compile_server(Path(name))
        with serving(program) as server:
            for _ in range(options.rounds):
                for senders in SENDERS:
                    found[senders].append(_cost(jobs, server, options.rows, senders))
    print(description())
    print(_table(found))


def _cost(jobs: Jobs, server: Server, rows: int, senders: Senders) -> Cost:
    job = jobs.new(server, rows, IN_FLIGHT)
    if senders.workers:
        workers = f'[workers]\nkind = "local"\ncount = {senders.workers}\n'
        job.file.write_text(f"{job.file.read_text()}{workers}")
    process = job.start_as_coordinator(*senders.options)
    try:
        while process.running:
            time.sleep(0.02)
        own = process.cpu  # its own clock: what `usage` has is with the workers that it has waited for
        usage = process.usage()
    finally:
        process.kill()
    sending = cpu_while_sending(job.log.read_text())
    return Cost(own / rows * 1e6, sending / rows * 1e6, (usage.cpu - own) / rows * 1e6, rows / usage.wall)


def _table(found: dict[Senders, list[Cost]]) -> str:
    lines = [
        "| workers | CPU a row of the run's process, us | while sending | of all others | rows a second |",
        "| --- | --- | --- | --- | --- |",
    ]
    for senders, costs in found.items():
        own, sending, others, rate = (median(values) for values in zip(*costs, strict=True))
        lines.append(f"| {senders.name} | {own:.0f} | {sending:.0f} | {max(0.0, others):.0f} | {rate:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
