"""Worker processes on this machine that can't start, or that end by themselves."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from batchrun.workers import local
from batchrun.workers.access import new_token
from batchrun.workers.local import _last_words, local_workers, start_logged
from tests.workers.connected import until

if TYPE_CHECKING:
    from batchrun.errors import BatchrunError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def complaint_of(arguments: list[str], log: Path) -> str:
    """Starts a worker with these arguments; returns what the run is told of it."""
    said: list[BatchrunError] = []
    async with local_workers(1, arguments, os.environ, log, said.append):
        await until(lambda: bool(said))
    return str(said[0])


async def test_a_worker_whose_run_is_gone_ends_at_once_and_says_so(tmp_path: Path) -> None:
    token = tmp_path / "workers.token"
    token.write_text(f"{new_token().text()}\n")
    arguments = ["--connect", "127.0.0.1:1", "--token-file", str(token), "--wait", "0"]
    complaint = await complaint_of(arguments, tmp_path / "workers.log")
    assert "ended with exit code 1: No coordinator answers at 127.0.0.1:1: Connection refused" in complaint


async def test_a_large_log_is_emptied_and_one_that_was_moved_away_does_not_end_the_run(
    tmp_path: Path,
) -> None:
    log = tmp_path / "workers.log"
    log.touch()
    for size, left in ((10 * 2**20, 10 * 2**20 + 3), (10 * 2**20 + 1, 3)):
        os.truncate(log, size)
        start_logged(["echo", "hi"], os.environ, log).wait()
        assert log.stat().st_size == left
    assert _last_words(log) == "hi"
    log.unlink()
    assert _last_words(log) == "it said nothing."


async def test_a_process_that_can_t_be_started_is_said(tmp_path: Path) -> None:
    assert "can't be started: Is a directory." in await complaint_of([], tmp_path)


async def test_one_of_several_that_ends_while_they_start_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[None] = []

    async def once(*_: object) -> str:
        if ended:
            await anyio.sleep_forever()
        ended.append(None)
        return "it ended"

    monkeypatch.setattr(local, "_run_once", once)
    monkeypatch.setattr(local, "_SECONDS_BETWEEN_STARTS", 0.0)
    said: list[BatchrunError] = []
    async with local_workers(2, [], os.environ, tmp_path / "workers.log", said.append):
        await until(lambda: bool(ended))
        await anyio.sleep(0.01)
    assert said == []
