"""Whole runs against servers that refuse at random, or more requests at a time than they hold."""

import time
from pathlib import Path

import pytest

from batchrun.sandbox import Settings, background
from tests.limits.whole_runs import arrivals, run, statuses


def seconds(folder: Path, settings: Settings, rows: int, in_flight: int) -> float:
    """How long a run takes in which every row gets its response."""
    folder.mkdir()
    begun = time.monotonic()
    with background(settings) as sandbox:
        run(folder, sandbox, rows, limits={"concurrency": in_flight})
    assert statuses(folder) == {"ok": rows}
    return time.monotonic() - begun


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_one_refusal_in_five_costs_the_refused_rows_waits_alone(tmp_path: Path) -> None:
    """Of 500 rows one or two are refused four times in a row: 10 s are possible.

    The better of two runs: one in ten begins with so many refusals that they look like a limit for a while.
    """
    runs = []
    for seed in (0, 1):
        settings = Settings(latency=0.1, faults={"429-random": 0.2}, retry_after=1.0, seed=seed)
        runs.append(seconds(tmp_path / str(seed), settings, 500, 64))
    assert min(runs) <= 20
    assert max(runs) <= 40


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_one_refusal_in_a_hundred_does_not_stop_a_run(tmp_path: Path) -> None:
    without = seconds(tmp_path / "without", Settings(latency=0.1), 3_000, 100)
    settings = Settings(latency=0.1, faults={"429-random": 0.01}, retry_after=1.0)
    assert seconds(tmp_path / "with", settings, 3_000, 100) <= 2 * without


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_stray_refusals_beside_a_limit_in_headers_leave_half_of_it_at_least(tmp_path: Path) -> None:
    """6,000 a minute, as the headers say, and one request in a hundred refused for no reason."""
    settings = Settings(rpm=6_000, latency=0.1, faults={"429-random": 0.01}, retry_after=1.0)
    with background(settings) as sandbox:
        run(tmp_path, sandbox, 1_500, limits={"concurrency": 100})
    assert statuses(tmp_path) == {"ok": 1_500}
    assert arrivals(sandbox).share_used(6_000) >= 0.5


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_bound_on_concurrent_requests_is_used(tmp_path: Path) -> None:
    """8 at a time and 0.2 s each: 40 a second are possible."""
    with background(Settings(concurrency=8, latency=0.2)) as sandbox:
        run(tmp_path, sandbox, 800, limits={"concurrency": 64})
    arrived = arrivals(sandbox)
    assert statuses(tmp_path) == {"ok": 800}
    assert arrived.refused <= 0.1 * len(arrived)
    assert arrived.share_used(40 * 60) >= 0.5
