"""batchrun.arun: inside event loops of others, and cancelled in the middle."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import polars as pl
import pytest

import batchrun
from batchrun.sandbox import Sandbox, Settings, background
from tests.acceptance.command import until
from tests.python_api.jobs import JOB, reviews

MANY = reviews([f"text {n}" for n in range(40)])

BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("asyncio", {"use_uvloop": False}),
    ("asyncio", {"use_uvloop": True}),
    ("trio", {}),
]


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def slow() -> Iterator[Sandbox]:
    """Every answer takes 0.4 seconds."""
    with background(Settings(latency=0.4)) as sandbox:
        yield sandbox


def call(sandbox: Sandbox, concurrency: int = 4, **more: Any) -> dict[str, Any]:
    """Arguments of a call that asks `sandbox`, as if it were an endpoint that bills."""
    return {
        "input": MANY,
        "api_key": "k",
        "settings": {
            "endpoint.base_url": sandbox.base_url,
            "limits.concurrency": concurrency,
            "pricing": {"input_usd_per_million": 5, "output_usd_per_million": 5},
        },
        **more,
    }


def requests(sandbox: Sandbox) -> int:
    return int(sandbox.bill()["total"]["requests"])


@pytest.mark.parametrize("backend", BACKENDS, ids=["asyncio", "uvloop", "trio"])
def test_under_every_loop_it_gives_what_run_gives(backend: tuple[str, dict[str, Any]]) -> None:
    async def main() -> batchrun.Result:
        return await batchrun.arun(JOB, input=reviews(), sandbox=True)

    result = anyio.run(main, backend=backend[0], backend_options=backend[1])
    assert (result.exit_code, result.summary["requests"]["sent"]) == (0, 3)
    assert result.to_polars()["status"].to_list() == ["ok"] * 4


def test_runs_go_on_at_the_same_time_and_the_loop_is_free(slow: Sandbox) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def main() -> list[batchrun.Result]:
        ticking = asyncio.create_task(tick())
        few = call(slow, input=reviews())
        results = await asyncio.gather(*(batchrun.arun(JOB, **few) for _ in range(5)))
        ticking.cancel()
        return results

    results = asyncio.run(main())
    assert [result.exit_code for result in results] == [0] * 5
    assert requests(slow) == 15
    assert ticks > 10


@pytest.mark.parametrize("backend", BACKENDS, ids=["asyncio", "uvloop", "trio"])
def test_a_cancellation_drains_and_loses_no_answer(
    backend: tuple[str, dict[str, Any]], slow: Sandbox
) -> None:
    async def main() -> None:
        with anyio.move_on_after(20) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_later, scope)
                await batchrun.arun(JOB, **call(slow, journal="a.run"))

    async def cancel_later(scope: anyio.CancelScope) -> None:
        await anyio.to_thread.run_sync(until, lambda: requests(slow) >= 6)
        scope.cancel()

    anyio.run(main, backend=backend[0], backend_options=backend[1])
    sent = requests(slow)
    assert 6 <= sent < 40
    stopped = batchrun.export(JOB, input=MANY, journal="a.run", settings=call(slow)["settings"])
    assert (stopped.to_polars()["status"] == "ok").sum() == sent
    assert stopped.summary["requests"]["by_error"] == {}
    again = batchrun.run(JOB, **call(slow, 40, journal="a.run"))
    assert (again.exit_code, requests(slow)) == (0, 40)


def test_a_task_that_is_cancelled_twice_ends_at_once(slow: Sandbox) -> None:
    slow_endpoint = call(slow, journal="a.run")

    async def main() -> float:
        task = asyncio.create_task(batchrun.arun(JOB, **slow_endpoint))
        await asyncio.to_thread(until, lambda: requests(slow) >= 6)
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()
        started = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) < 0.35
    status = batchrun.status(JOB, journal="a.run", settings=slow_endpoint["settings"])
    assert status["uncertain"] > 0
    assert status["in_flight"] == 0
    assert status["last_run"]["exit_code"] == 130
    assert batchrun.run(JOB, **call(slow, 40, journal="a.run")).to_polars()["status"].to_list() == ["ok"] * 40


def test_a_cancelled_call_without_a_journal_keeps_its_temporary_one(
    slow: Sandbox, temporary_folder: Path
) -> None:
    async def main() -> list[str]:
        task = asyncio.create_task(batchrun.arun(JOB, **call(slow)))
        await asyncio.to_thread(until, lambda: requests(slow) >= 4)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as cancellation:
            return cancellation.__notes__
        return []

    (note,) = asyncio.run(main())
    (journal,) = temporary_folder.glob("*/output.run")
    assert str(journal) in note
    sent = requests(slow)
    assert batchrun.run(JOB, **call(slow, 40, journal=journal)).exit_code == 0
    assert (sent < 40, requests(slow)) == (True, 40)


SCRIPT = """
import asyncio, sys
import polars as pl
import batchrun
from tests.python_api.jobs import JOB
from tests.python_api.test_arun import MANY

options = dict(
    input=MANY,
    api_key="k",
    settings={
        "output.path": "out.parquet",
        "endpoint.base_url": sys.argv[2],
        "limits.concurrency": 4,
        "pricing": {"input_usd_per_million": 5, "output_usd_per_million": 5},
    },
)
try:
    batchrun.run(JOB, **options) if sys.argv[1] == "run" else asyncio.run(batchrun.arun(JOB, **options))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("way", ["run", "arun"])
def test_ctrl_c_drains_writes_the_output_and_is_a_keyboard_interrupt(
    way: str, slow: Sandbox, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, way, slow.base_url]
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as process:
        until(lambda: requests(slow) >= 6)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "interrupted\n")
    statuses = pl.read_parquet(tmp_path / "out.parquet")["status"].to_list()
    assert statuses.count("ok") == requests(slow) < 40


def test_sigterm_ends_the_program_after_the_drain(slow: Sandbox, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, "run", slow.base_url]
    with subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}) as process:
        until(lambda: requests(slow) >= 6)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    statuses = pl.read_parquet(tmp_path / "out.parquet")["status"].to_list()
    assert statuses.count("ok") == requests(slow) < 40
