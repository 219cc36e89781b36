"""The measurements that the goals are about, each on the real command as a process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import Job, Jobs
from benchmarks.peers import Loop
from benchmarks.processes import Measured, Usage, measure, python_module
from benchmarks.server import BenchmarkError, Counts, Server, serving

CLOSED_LOOP_ROWS = 50_000
PACED_ROWS_PER_SECOND = 1_000
PACED_ROWS = 20_000
LATENCY_IN_FLIGHT = 2_000
LATENCY_ROWS = 40_000
FIRST_REQUEST_ROWS = 10


@dataclass(frozen=True)
class Bench:
    """Where measurements take place: jobs in a folder, and the server's program."""

    jobs: Jobs
    program: Path

    def rows(self, server: Server, rows: int, in_flight: int) -> Loop:
        """A whole run, from start to exit, as what each of its rows takes."""
        usage = self.jobs.new(server, rows, in_flight).run()
        return Loop(rows, usage.wall, usage.cpu, usage.peak_mb)

    def paced(self, in_flight: int) -> Loop:
        """A run with so many requests in flight, at the same rate whatever their number."""
        with serving(self.program, delay=in_flight / PACED_ROWS_PER_SECOND) as server:
            return self.rows(server, PACED_ROWS, in_flight)

    def share_of_ideal_rate(self) -> float:
        """The rate of answers at 1 s latency, as a share of requests in flight / latency.

        Measured over the middle of the run: from a quarter of its answers to three quarters.
        """
        with serving(self.program, delay=1.0) as server:
            process = self.jobs.new(server, LATENCY_ROWS, LATENCY_IN_FLIGHT).start()
            begin = _until(process, server, lambda: server.counts().answers >= LATENCY_ROWS // 4)
            end = _until(process, server, lambda: server.counts().answers >= LATENCY_ROWS * 3 // 4)
            process.kill()
        return (end.answers - begin.answers) / (end.seconds - begin.seconds) / LATENCY_IN_FLIGHT

    def few_rows(self) -> Usage:
        """A whole run of a few rows: the start of the command, mostly."""
        with serving(self.program) as server:
            return self.jobs.new(server, FIRST_REQUEST_ROWS, FIRST_REQUEST_ROWS).run()

    def help(self, folder: Path) -> Usage:
        return measure(python_module("batchrun", "--help"), folder / "help.log")

    def plan(self, folder: Path, rows: int) -> tuple[Usage, Usage]:
        """A plan of a CSV table, and what it takes to read the table and render its rows alone."""
        table = self.jobs.input(rows, "csv")
        job = self.jobs.to_plan(table)
        alone = measure(python_module("benchmarks.render", str(table)), folder / "render.log")
        return measure(job.command("plan"), job.log), alone

    def whole_table(self, folder: Path, rows: int, in_flight: int) -> "WholeTable":
        """A run of many rows, then what it takes to see that they are done, and to find a few new ones."""
        with serving(self.program) as server:
            stem = folder / f"table{rows}"
            job = self.jobs.with_journal_of(stem, server, rows, in_flight)
            run = job.run()
            status = measure(job.command("status"), job.log)
            again = self.jobs.with_journal_of(stem, server, rows + FIRST_REQUEST_ROWS, in_flight)
            return WholeTable(rows, run, status, _first_request(again, server))


@dataclass(frozen=True)
class WholeTable:
    """`resumed` is from the start to the first request of a run that finds all but the last rows answered."""

    rows: int
    run: Usage
    status: Usage
    resumed: Usage


def _first_request(job: Job, server: Server) -> Usage:
    """CPU and wall time up to the first request; the peak of memory is that of the whole run."""
    before = server.counts().requests
    process = job.start()
    try:
        while server.counts().requests == before:
            _check_running(process, "no request has come")
            time.sleep(0.002)
        cpu, wall = process.cpu, process.wall
        return Usage(cpu, wall, process.usage().peak_mb)
    finally:
        process.kill()


def _until(process: Measured, server: Server, reached: Callable[[], bool]) -> Counts:
    while not reached():
        _check_running(process, "the middle of the run was not measured")
        time.sleep(0.01)
    return server.counts()


def _check_running(process: Measured, else_what: str) -> None:
    if not process.running:
        raise BenchmarkError(f"The run has ended and {else_what}.")
