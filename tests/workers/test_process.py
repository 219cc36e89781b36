"""How `batchrun worker` ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.errors import UsageError
from batchrun.workers import process
from batchrun.workers.access import new_token
from batchrun.workers.worker import Ending


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A worker's own process needs its former handlers of signals no more; this one does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_run_that_has_ended_while_the_cable_was_cut_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has removed its token file, which doesn't make the worker's command a wrong one."""
    token_file, said = tmp_path / "workers.token", list[str]()
    token_file.write_text(new_token().text())

    async def lost(*_: object, **__: object) -> Ending:
        token_file.unlink()
        return Ending.LOST

    monkeypatch.setattr(process, "serve", lost)
    monkeypatch.setattr(process, "_RECONNECT_SECONDS", 0.0)
    assert process.run_worker(("127.0.0.1", 1), token_file, 0.0, said.append) == 1
    assert said == ["the coordinator is gone"]


def test_a_worker_that_waits_for_its_run_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    monkeypatch.setattr(process, "_SECONDS_BETWEEN_TRIES", 0.01)
    with pytest.raises(UsageError):
        process.run_worker(("127.0.0.1", 1), tmp_path / "workers.token", 0.05, said.append)
    assert said == [
        f"waits for the run at 127.0.0.1:1 and its {tmp_path / 'workers.token'}, for 0.05 s at most"
    ]
