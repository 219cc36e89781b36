"""A fault after the asking: the summary of the run before doesn't stand for this one."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from batchrun.engine.session import RunSender, own_connections
from batchrun.errors import InputError, StorageError
from batchrun.journal import Journal, open_for_reading
from batchrun.journal.commits import Commits
from batchrun.rows.chunks import Chunk
from batchrun.rows.dataset import Dataset
from batchrun.sandbox import Sandbox, Settings, background
from tests.money.test_next_run import run

ROWS = [{"text": f"row {row}"} for row in range(5)]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with background(Settings()) as server:
        yield server


def summary_in(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "out.run" / "summary.json").read_text())
    return summary


FAULTS: dict[str, tuple[Exception, str]] = {
    "storage": (StorageError("No room.\nMake some."), "No room. Make some."),
    "of batchrun itself": (
        ZeroDivisionError("a private prompt"),
        "batchrun itself failed (ZeroDivisionError).",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_the_output_is_written_is_in_the_summary_and_in_the_journal(
    tmp_path: Path, sandbox: Sandbox, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, sandbox, ROWS[:2])["exit_code"] == 0
    error, reason = FAULTS[fault]

    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr("batchrun.runs.run.write_output", broken)
    with pytest.raises(type(error)):
        run(tmp_path, sandbox, ROWS)
    summary = summary_in(tmp_path)
    assert (summary["exit_code"], summary["reason"]) == (1, reason)
    assert summary["go_on"] == "fix the cause, then run the same command"
    assert not summary["output_written"]
    assert (summary["rows"]["total"], summary["rows"]["ok"], summary["rows"]["pending"]) == (5, 5, 0)
    assert summary["this_run"]["requests"]["sent"] == 3
    journal = open_for_reading(tmp_path / "out.run" / "journal.sqlite")
    last = journal.last_run(sandbox=True)
    journal.close()
    assert last is not None
    assert (last["exit_code"], last["reason"]) == (1, reason)
    monkeypatch.undo()
    assert run(tmp_path, sandbox, ROWS)["this_run"]["requests"]["sent"] == 0


def test_commits_that_fail_while_the_senders_open_end_the_run(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process that writes is killed while a cluster starts workers."""
    opened = threading.Event()

    class Broken(Commits):
        def write(self, *_: object) -> frozenset[int]:
            opened.set()
            raise StorageError("The process was killed.")

    def broken(journal: Journal, lost: Callable[[], object]) -> Commits:
        lost()
        return Broken(journal.connection, journal.path)

    @asynccontextmanager
    async def slowly(*given: Any) -> AsyncIterator[RunSender]:
        await to_thread.run_sync(opened.wait, 0.2)
        async with own_connections(*given) as sender:
            yield sender

    monkeypatch.setattr("batchrun.runs.run.commits_of", lambda *_: broken)
    monkeypatch.setattr("batchrun.runs.run.senders", lambda *_: nullcontext(slowly))
    with pytest.raises(StorageError, match="was killed"):
        run(tmp_path, sandbox, ROWS)


def test_an_input_that_breaks_is_in_the_summary_with_the_rows_that_are_known(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Dataset.chunks

    def broken(self: Dataset, columns: Any = None, journal: Any = None) -> Iterator[Chunk]:
        if journal is None:  # the look at the input before the run
            yield from plain(self, columns, journal)
            return
        chunk = next(plain(self, columns, journal))
        requests = chunk.requests[:3]
        yield replace(chunk, digests=chunk.digests[:3], build=lambda: requests)
        raise InputError("its second half is gone")

    monkeypatch.setattr(Dataset, "chunks", broken)
    with pytest.raises(StorageError, match="second half is gone"):
        run(tmp_path, sandbox, ROWS)
    summary = summary_in(tmp_path)
    assert summary["exit_code"] == 1
    assert "its second half is gone" in summary["reason"]
    assert summary["rows"] == dict.fromkeys(("ok", "invalid", "failed", "pending", "shared")) | {"total": 5}


def test_a_summary_that_finds_no_room_leaves_no_older_one_in_its_place(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, sandbox, ROWS[:2])["exit_code"] == 0

    def full(*_: Any) -> None:
        raise StorageError("No room.")

    monkeypatch.setattr("batchrun.runs.run.write_private", full)
    with pytest.raises(StorageError, match="No room"):
        run(tmp_path, sandbox, ROWS)
    assert not (tmp_path / "out.run" / "summary.json").exists()
