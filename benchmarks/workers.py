"""What workers cost and save: `python -m benchmarks.workers` runs a job without and with them, by turns."""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.jobs import Jobs
from benchmarks.machine import description
from benchmarks.server import Server, compile_server, serving

IN_FLIGHT = 256
WORKERS = (0, 1, 2, 4)


class Cost(NamedTuple):
    """CPU in us a row, from the start of Python to the exit: of the run's own process, and of its workers."""

    own: float
    workers: float
    rows_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[int, list[Cost]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory(prefix="batchrun-workers-") as name:
        jobs, program = Jobs(Path(name)), compile_server(Path(name))
        with serving(program) as server:
            for _ in range(options.rounds):
                for workers in WORKERS:
                    found[workers].append(_cost(jobs, server, options.rows, workers))
    print(description())
    print(_table(found))


def _cost(jobs: Jobs, server: Server, rows: int, workers: int) -> Cost:
    job = jobs.new(server, rows, IN_FLIGHT)
    if workers:
        job.file.write_text(f'{job.file.read_text()}[workers]\nkind = "local"\ncount = {workers}\n')
    process = job.start()
    try:
        while process.running:
            time.sleep(0.02)
        own = process.cpu  # its own clock: what `usage` has is with the workers that it has waited for
        usage = process.usage()
    finally:
        process.kill()
    return Cost(own / rows * 1e6, (usage.cpu - own) / rows * 1e6, rows / usage.wall)


def _table(found: dict[int, list[Cost]]) -> str:
    lines = [
        "| workers | CPU per row of the run's own process, us | of all workers, us | rows a second |",
        "| --- | --- | --- | --- |",
    ]
    for workers, costs in found.items():
        own, elsewhere, rate = (median(values) for values in zip(*costs, strict=True))
        lines.append(f"| {workers or 'none'} | {own:.0f} | {max(0.0, elsewhere):.0f} | {rate:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
