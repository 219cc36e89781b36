"""What an open `batchrun view` costs a run at full speed: `python -m benchmarks.view`.

In one run, seconds in which a browser looks at the job's page alternate with as many in which nobody does, so
that both see the same machine. CPU per row is that of the run alone; what the page itself takes is apart, and
has the lowest priority. It also times pages of the table of rows, each with a choice that no page had before.
"""

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from benchmarks.jobs import Job, Jobs
from benchmarks.processes import python_module
from benchmarks.server import Server, compile_server, serving

SECONDS_OF_A_WINDOW = 3.0
SECONDS_BETWEEN_LOOKS = 1.0
"""As the page's own script looks."""
PAGES = {
    "in the input's order": "page={}",
    "of one status": "status=ok&page={}",
    "sorted by cost": "sort=cost_usd&descending=1&page={}",
    "with a text": "text=great&page={}",
}


@dataclass(frozen=True)
class Window:
    """What the run did in one window: rows per second, and microseconds of its CPU per row."""

    rate: float
    cpu: float


class Looking:
    """Asks for the live part of a page once a second while `on`."""

    def __init__(self, page: str) -> None:
        self.on = threading.Event()
        self._page = page
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        with httpx.Client(trust_env=False, timeout=60) as browser:
            while True:
                self.on.wait()
                browser.get(self._page)
                time.sleep(SECONDS_BETWEEN_LOOKS)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--in-flight", type=int, default=256)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchrun-view-bench-") as name:
        folder = Path(name)
        with serving(compile_server(folder)) as server:
            _measure(Jobs(folder), server, given.rows, given.in_flight)
    return 0


def _measure(jobs: Jobs, server: Server, rows: int, in_flight: int) -> None:
    job = jobs.new(server, rows, in_flight)
    with _view(job) as (viewing, address):
        run, looking = job.start(), Looking(f"{address}job/1/live")
        windows: tuple[list[Window], list[Window]] = ([], [])
        journal = job.file.with_suffix(".run") / "journal.sqlite"
        while run.running and _rows_so_far(journal) < 2_000:
            time.sleep(0.1)
        before, took = _cpu(viewing), 0.0
        while run.running:
            looked = len(windows[0]) > len(windows[1])
            looking.on.set() if looked else looking.on.clear()
            cpu, so_far, began = run.cpu, _rows_so_far(journal), time.perf_counter()
            time.sleep(SECONDS_OF_A_WINDOW)
            if not run.running:
                break
            sent, seconds = _rows_so_far(journal) - so_far, time.perf_counter() - began
            took += seconds if looked else 0.0
            if sent > 0:
                windows[looked].append(Window(sent / seconds, (run.cpu - cpu) / sent * 1e6))
        looking.on.clear()
        view_cpu = _cpu(viewing) - before
        run.usage()
        _print_run(windows, view_cpu / max(took, 1e-9))
        _print_pages(address, rows)


def _print_run(windows: tuple[list[Window], list[Window]], view_cpu: float) -> None:
    print(f"| {len(windows[1])} pairs of windows | nobody looks | a page is open | ratio |")
    print("| --- | --- | --- | --- |")
    for name, attribute in (("rows a second", "rate"), ("CPU of the run, us a row", "cpu")):
        closed, opened = ([getattr(each, attribute) for each in part] for part in windows)
        ratios = [b / a for a, b in zip(closed, opened, strict=False)]
        print(f"| {name} | {median(closed):,.0f} | {median(opened):,.0f} | {median(ratios):.3f} |")
    print(f"\nThe view itself: {1000 * view_cpu:.0f} ms of CPU for a second of an open page.")


def _print_pages(address: str, rows: int) -> None:
    print(f"\n| page of {rows:,} rows | first, ms | the next ones, ms |\n| --- | --- | --- |")
    with httpx.Client(trust_env=False, timeout=600) as browser:
        while "are being read" in browser.get(f"{address}job/1/rows").text:
            time.sleep(0.5)
        for name, query in PAGES.items():
            times = []
            for number in (1, 2, 3, 50, 51, 52, 100):
                began = time.perf_counter()
                browser.get(f"{address}job/1/rows?{query.format(number)}").raise_for_status()
                times.append(1000 * (time.perf_counter() - began))
            print(f"| {name} | {times[0]:.0f} | {median(times[1:]):.0f} (at most {max(times[1:]):.0f}) |")


@contextmanager
def _view(job: Job) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = python_module("batchrun", "view", str(job.file), "--no-browser")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.terminate()


def _cpu(process: "subprocess.Popen[str]") -> float:
    """CPU seconds so far, by the process's own clock (see clock_getcpuclockid(3))."""
    return time.clock_gettime((~process.pid) << 3 | 2)


def _rows_so_far(journal: Path) -> int:
    if not journal.exists():
        return 0
    connection = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
