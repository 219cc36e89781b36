"""Outages of a real server, met by whole runs: no row is lost, no storm breaks out, and every run ends."""

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchrun.sandbox import Sandbox, Settings, background
from tests.limits.whole_runs import Step, arrivals, meanwhile, run, statuses


def outage(begin: float, seconds: float, kind: str = "500") -> tuple[Step, Step]:
    """Everything fails for some seconds."""
    return (begin, "faults", {kind: 1.0}), (seconds, "faults", dict[str, Any]())


def test_an_outage_is_survived_without_a_lost_row_or_a_storm(tmp_path: Path) -> None:
    """2.5 seconds of nothing but 500s; each row has 4 attempts."""
    settings = Settings(latency=0.02)
    with background(settings) as sandbox, meanwhile(sandbox, *outage(0.7, 2.5)) as changed:
        summary = run(tmp_path, sandbox, 1_200, limits={"concurrency": 16}, retry={"max_attempts": 4})
    assert statuses(tmp_path) == {"ok": 1_200}
    assert summary["exit_code"] == 0
    assert 10 <= summary["requests"]["sent"] - 1_200 < 100
    assert len(arrivals(sandbox).between(changed[0] + 1.0, changed[1])) <= 5, "probes, one at a time"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["500", "529", "reset-before"])
def test_an_outage_of_20_seconds_is_survived(tmp_path: Path, kind: str) -> None:
    settings = Settings(latency=0.02)
    with background(settings) as sandbox, meanwhile(sandbox, *outage(0.7, 20.0, kind)) as changed:
        run(tmp_path, sandbox, 4_000, limits={"concurrency": 32})
    assert statuses(tmp_path) == {"ok": 4_000}
    during = arrivals(sandbox).between(*changed)
    assert len(during) < 100
    assert len(during.between(changed[0] + 5, changed[1])) <= 8
    assert arrivals(sandbox).between(changed[1], changed[1] + 5)[0].status == 200


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_is_gone_for_20_seconds_is_waited_for(tmp_path: Path) -> None:
    """Its port is closed and then opened again."""
    with background(Settings(latency=0.02)) as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
    back: list[Sandbox] = []

    def come_back() -> None:
        time.sleep(20)
        with background(Settings(latency=0.02), port) as again:
            back.append(again)
            ended.wait()

    ended = threading.Event()
    server = threading.Thread(target=come_back)
    server.start()
    try:
        summary = run(tmp_path, sandbox.base_url, 500)
    finally:
        ended.set()
        server.join()
    assert statuses(tmp_path) == {"ok": 500}
    assert summary["requests"]["sent"] - 500 < 150
    assert len(arrivals(back[0])) == 500


def test_a_small_run_spends_no_attempts_on_an_outage(tmp_path: Path) -> None:
    """3 rows of 2 attempts each meet 500s from the start: all of them keep the last one."""
    with background(Settings(faults={"500": 1.0})) as sandbox, meanwhile(sandbox, (4.0, "faults", {})):
        summary = run(tmp_path, sandbox, 3, retry={"max_attempts": 2})
    assert statuses(tmp_path) == {"ok": 3}
    assert 10 <= summary["requests"]["by_error"]["internal_error"] < 40


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


# A server that hangs.


def test_a_server_that_hangs_leaves_no_hang(tmp_path: Path) -> None:
    """Each row times out twice, the last one as the first: every row gets a status."""
    with background(Settings(faults={"hang": 1.0})) as sandbox:
        began = time.monotonic()
        summary = run(
            tmp_path,
            sandbox,
            4,
            endpoint={"timeout_seconds": 0.3},
            retry={"max_attempts": 2, "max_wait_seconds": 0.5},
        )
        assert time.monotonic() - began < 10
    assert summary["exit_code"] == 3
    assert statuses(tmp_path) == {"failed": 4}
    assert len(arrivals(sandbox)) == 8


def test_a_server_that_hangs_now_and_then_costs_time_and_no_row(tmp_path: Path) -> None:
    """A tenth of the requests get no answer: they are given up after their time and asked again."""
    with background(Settings(latency=0.02, faults={"hang": 0.1})) as sandbox:
        summary = run(tmp_path, sandbox, 300, endpoint={"timeout_seconds": 0.5})
    assert statuses(tmp_path) == {"ok": 300}
    assert summary["requests"]["by_error"] == {"timeout": summary["requests"]["sent"] - 300}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_hangs_for_20_seconds_is_waited_for(tmp_path: Path) -> None:
    """What may have been billed uses up attempts, so that new rows are the probes."""
    settings = Settings(latency=0.02)
    with background(settings) as sandbox, meanwhile(sandbox, *outage(0.7, 20.0, "hang")) as changed:
        run(tmp_path, sandbox, 3_000, limits={"concurrency": 32}, endpoint={"timeout_seconds": 2})
    assert statuses(tmp_path) == {"ok": 3_000}
    assert len(arrivals(sandbox).between(*changed)) < 60
