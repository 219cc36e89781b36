"""What an open `batchrun view` costs a run at full speed: `python -m benchmarks.view`.

In one run, seconds in which a browser looks at the job's page alternate with as many in which nobody does, so
that both see the same machine. They begin after the first pass over all rows, or with a fifth of the run. CPU
per row is that of the run alone; what the page itself takes is apart, at the lowest priority. It also times
pages of a large table.
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
from urllib.parse import parse_qsl

import httpx
import numpy as np
import polars as pl

from batchrun.runs.view import pages, table
from batchrun.runs.view.app import render
from batchrun.tables.writer import ROWS_PER_GROUP
from benchmarks.jobs import Job, Jobs
from benchmarks.processes import python_module
from benchmarks.server import Server, compile_server, serving

SECONDS_OF_A_WINDOW = 2.0
SECONDS_BETWEEN_LOOKS = 1.0
"""As the page's own script looks."""
PAGES = {
    "in the input's order": "page={}",
    "of one status": "status=ok&page={}",
    "sorted by cost": "sort=cost_usd&descending=1&page={}",
    "with a text": "text=great+screen&page={}",
}


@dataclass(frozen=True)
class Window:
    """What the run did in one window: rows per second, and microseconds of its CPU per row."""

    rate: float
    cpu: float


class Looking:
    """Asks for the live part of a page once a second while `on`. `counted`: all rows have been read once."""

    def __init__(self, page: str) -> None:
        self.on = threading.Event()
        self.counted = False
        self._page = page
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        with httpx.Client(trust_env=False, timeout=60) as browser:
            while True:
                self.on.wait()
                shown = browser.get(self._page)
                self.counted = shown.is_success and 'data-counted="0"' not in shown.text
                time.sleep(SECONDS_BETWEEN_LOOKS)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--in-flight", type=int, default=256)
    options.add_argument("--table-rows", type=int, default=1_000_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchrun-view-bench-") as name:
        folder = Path(name)
        with serving(compile_server(folder)) as server:
            _measure(Jobs(folder), server, given.rows, given.in_flight)
        _print_pages(folder, given.table_rows)
    return 0


def _measure(jobs: Jobs, server: Server, rows: int, in_flight: int) -> None:
    job = jobs.new(server, rows, in_flight)
    with _view(job) as (viewing, address):
        run, looking = job.start(), Looking(f"{address}job/1/live")
        windows: tuple[list[Window], list[Window]] = ([], [])
        journal = job.file.with_suffix(".run") / "journal.sqlite"
        looking.on.set()
        while run.running and (_rows_so_far(journal) < 2_000 or not looking.counted):
            if _rows_so_far(journal) > rows / 5:
                break
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


def _print_run(windows: tuple[list[Window], list[Window]], view_cpu: float) -> None:
    print(f"| {len(windows[1])} pairs of windows | nobody looks | a page is open | ratio |")
    print("| --- | --- | --- | --- |")
    for name, attribute in (("rows a second", "rate"), ("CPU of the run, us a row", "cpu")):
        closed, opened = ([getattr(each, attribute) for each in part] for part in windows)
        ratios = [b / a for a, b in zip(closed, opened, strict=False)]
        print(f"| {name} | {median(closed):,.0f} | {median(opened):,.0f} | {median(ratios):.3f} |")
    print(f"\nThe view itself: {1000 * view_cpu:.0f} ms of CPU for a second of an open page.")


def _print_pages(folder: Path, rows: int) -> None:
    """Times pages of a table as a browser gets them, but for HTTP: choice, rows, HTML."""
    file = _table(folder, rows)
    print(f"\n| page of {rows:,} rows | first, ms | the next ones, ms |\n| --- | --- | --- |")
    _page(file, "")
    for name, query in PAGES.items():
        times = []
        for number in (*range(1, 13), 500, 501):
            began = time.perf_counter()
            _page(file, query.format(number))
            times.append(1000 * (time.perf_counter() - began))
        print(f"| {name} | {times[0]:.0f} | {median(times[1:]):.0f} (at most {max(times[1:]):.0f}) |")


def _page(file: table.RowsFile, query: str) -> str:
    choice, page = table.choice_of(file, parse_qsl(query))
    found = table.found_rows(file, choice)
    read = table.rows_of_page(file, choice, page, pages.columns_of_page(file))
    choices = {name: table.values_of(file, name) for name in ("status", "label")} | {"reason": ()}
    number = file.rows if found is None else len(found)
    values = pages.rows_values(file, choice, page, number, read, choices)
    return render("rows.html", root="/token", job={"number": 1, "name": "job.toml"}, **values)


def _table(folder: Path, rows: int) -> table.RowsFile:
    """Returns a table like an output: texts of a hundred characters, answers, costs."""
    draw, path = np.random.default_rng(0), folder / "table.parquet"
    words = np.array(["good", "bad", "phone", "screen", "battery", "slow", "fast", "never", "again", "great"])
    texts = [" ".join(row) for row in words[draw.integers(0, len(words), (rows, 18))]]
    columns = {
        "text": texts,
        "status": np.array(["ok", "ok", "ok", "failed"])[draw.integers(0, 4, rows)],
        "output": np.array(["positive", "negative"])[draw.integers(0, 2, rows)],
        "error_code": [None] * rows,
        "cost_usd": draw.random(rows) * 1e-4,
        "latency_ms": draw.random(rows) * 1000,
        "response_id": [f"msg_{number:024d}" for number in range(rows)],
    }
    frame = pl.DataFrame(columns, schema_overrides={"error_code": pl.String})
    frame.write_parquet(path, row_group_size=ROWS_PER_GROUP)
    return table.RowsFile(path, 0, rows, tuple(frame.columns), ("text",), ("text",))


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
