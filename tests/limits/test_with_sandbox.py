"""Limits and outages of a real server, met by whole runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from batchrun.job.file import make_job
from batchrun.pipeline import Target, run_job
from batchrun.sandbox import Sandbox, Settings, background


@contextmanager
def meanwhile(sandbox: Sandbox, *steps: tuple[float, str, dict[str, Any]]) -> Iterator[None]:
    """Posts to the sandbox's control paths while the block runs: (seconds to wait before, path, JSON)."""

    def control() -> None:
        for seconds, path, values in steps:
            time.sleep(seconds)
            httpx.post(f"{sandbox.base_url}/sandbox/{path}", json=values).raise_for_status()

    thread = threading.Thread(target=control)
    thread.start()
    yield
    thread.join()


def run(folder: Path, sandbox: Sandbox, rows: int, **tables: dict[str, Any]) -> dict[str, Any]:
    """A run over `rows` rows, with further tables of the job; its summary."""
    pl.DataFrame({"text": [f"review {number}" for number in range(rows)]}).write_parquet(
        folder / "in.parquet"
    )
    job = make_job(
        {
            "input": {"path": "in.parquet"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 16},
            "output": {"path": "out.parquet"},
            **tables,
        },
        folder,
        sandbox=True,
    )
    return dict(run_job(job, Target(sandbox.base_url, "key", sandbox=True)))


def arrivals(sandbox: Sandbox) -> list[tuple[float, int]]:
    """(instant in seconds, status) of each request that arrived, in order."""
    requests = sandbox.bill()["requests"]
    return [(datetime.fromisoformat(each["received_at"]).timestamp(), each["status"]) for each in requests]


def accepted_share(sandbox: Sandbox, per_minute: int, begin: float = 0.0) -> float:
    """How much of the limit was used, from `begin` seconds after the first request until the last one."""
    arrived = arrivals(sandbox)
    first, last = arrived[0][0] + begin, arrived[-1][0]
    accepted = sum(status == 200 for at, status in arrived if at > first)
    return accepted / ((last - first) * per_minute / 60)


def statuses(folder: Path) -> dict[str, int]:
    counts = pl.read_parquet(folder / "out.parquet")["status"].value_counts()
    return dict(zip(counts["status"], counts["count"], strict=True))


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_given_limit_is_used_to_99_percent_without_a_429(tmp_path: Path) -> None:
    """For some seconds at 12,000 a minute; the minutes are simulated elsewhere."""
    with background(Settings(rpm=12_000, latency=0.05, latency_sigma=0.5)) as sandbox:
        summary = run(tmp_path, sandbox, 700, limits={"requests_per_minute": 12_000})
    assert summary["requests"]["sent"] == 700
    assert {status for _, status in arrivals(sandbox)} == {200}
    assert accepted_share(sandbox, 12_000) >= 0.99


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_limit_in_headers_is_kept_without_a_429(tmp_path: Path) -> None:
    """No limit in the job: the first answer's headers name it."""
    with background(Settings(rpm=6_000, latency=0.05)) as sandbox:
        summary = run(tmp_path, sandbox, 250)
    assert summary["requests"]["sent"] == 250
    assert accepted_share(sandbox, 6_000, begin=0.5) == pytest.approx(1.0, abs=0.02)


def test_an_outage_is_survived_without_a_lost_row_or_a_storm(tmp_path: Path) -> None:
    """2.5 seconds of nothing but 500s; each row has 4 attempts."""
    down = (0.7, "faults", {"500": 1.0})
    back = (2.5, "faults", dict[str, Any]())
    with background(Settings(latency=0.02)) as sandbox, meanwhile(sandbox, down, back):
        summary = run(tmp_path, sandbox, 1_200, limits={"concurrency": 16}, retry={"max_attempts": 4})
    assert statuses(tmp_path) == {"ok": 1_200}
    assert summary["exit_code"] == 0
    assert 10 <= summary["requests"]["sent"] - 1_200 < 100


def test_a_small_run_spends_no_attempts_on_an_outage(tmp_path: Path) -> None:
    """10 rows of 2 attempts each meet 500s from the start: the probes use up none of them."""
    with background(Settings(faults={"500": 1.0})) as sandbox, meanwhile(sandbox, (4.0, "faults", {})):
        summary = run(tmp_path, sandbox, 10, retry={"max_attempts": 2})
    assert statuses(tmp_path) == {"ok": 10}
    assert summary["requests"]["by_error"]["internal_error"] > 10


def test_an_outage_that_outlasts_patience_ends_the_run_resumable(tmp_path: Path) -> None:
    """Exit code 5, a reason that names the last error, no failed row; the next run finishes."""
    with background(Settings(faults={"reset-before": 1.0})) as sandbox:
        summary = run(tmp_path, sandbox, 500, limits={"concurrency": 16}, retry={"outage_seconds": 1.0})
        assert summary["exit_code"] == 5
        assert "has let nothing through for" in summary["reason"]
        assert statuses(tmp_path) == {"pending": 500}
        assert len(arrivals(sandbox)) < 100
        httpx.post(f"{sandbox.base_url}/sandbox/faults", json={}).raise_for_status()
        assert run(tmp_path, sandbox, 500)["exit_code"] == 0


def test_a_port_where_nobody_listens_is_an_outage_for_a_single_row_too(tmp_path: Path) -> None:
    """No request was sent, so the row can't be blamed, and keeps its one attempt."""
    with background() as sandbox:
        pass
    summary = run(tmp_path, sandbox, 1, retry={"max_attempts": 1, "outage_seconds": 1.0})
    assert summary["exit_code"] == 5
    assert statuses(tmp_path) == {"pending": 1}


def test_a_server_that_hangs_leaves_no_hang(tmp_path: Path) -> None:
    """Each row times out twice, the last one as the first: every row gets a status."""
    with background(Settings(faults={"hang": 1.0})) as sandbox:
        began = time.monotonic()
        summary = run(
            tmp_path,
            sandbox,
            8,
            endpoint={"timeout_seconds": 0.3},
            retry={"max_attempts": 2, "max_wait_seconds": 0.5},
        )
        assert time.monotonic() - began < 10
    assert summary["exit_code"] == 3
    assert statuses(tmp_path) == {"failed": 8}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_outage_of_20_seconds_is_survived(tmp_path: Path) -> None:
    down = (0.7, "faults", {"reset-before": 1.0})
    back = (20.0, "faults", dict[str, Any]())
    with background(Settings(latency=0.02)) as sandbox, meanwhile(sandbox, down, back):
        summary = run(tmp_path, sandbox, 4_000, limits={"concurrency": 32})
    assert statuses(tmp_path) == {"ok": 4_000}
    assert summary["requests"]["sent"] - 4_000 < 100


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_given_limit_is_kept_over_minutes(tmp_path: Path) -> None:
    """Requests and tokens at once, over several of the server's windows."""
    with background(Settings(rpm=6_000, tpm=1_000_000, latency=0.5, latency_sigma=0.5)) as sandbox:
        limits = {"requests_per_minute": 6_000, "tokens_per_minute": 1_000_000}
        run(tmp_path, sandbox, 15_000, limits=limits)
    assert {status for _, status in arrivals(sandbox)} == {200}
    assert 0.99 <= accepted_share(sandbox, 6_000) <= 1.005


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_unknown_limit_is_found(tmp_path: Path, seed: int) -> None:
    """No headers, only 429s: 97 % of the limit with at most 2 % of 429s, the start included."""
    settings = Settings(rpm=6_000, limit_headers=False, latency=0.2, latency_sigma=0.5, seed=seed)
    with background(settings) as sandbox:
        summary = run(tmp_path, sandbox, 18_000)
    refused = sum(status == 429 for _, status in arrivals(sandbox))
    assert statuses(tmp_path) == {"ok": 18_000}
    assert refused <= 0.02 * summary["requests"]["sent"]
    assert accepted_share(sandbox, 6_000) >= 0.97
