"""Whole runs whose rows another process reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchrun
from batchrun.errors import StorageError
from batchrun.rows.selection import Scanned
from batchrun.runs import sending
from batchrun.workers import reader
from batchrun.workers.reader import Reader

TEXTS = [f"{n} {'x' * 60_000}" for n in range(60)]
"""A message has 18 of them."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(reader, "LEAST_ROWS", 1)
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    return {
        "input": {"path": str(tmp_path / "in.parquet")},
        "prompt": {"template": "Say {{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 1000},
        "limits": {"requests_per_minute": 1_000_000},
        "budget": {"usd": 50.0},
        "output": {"path": str(tmp_path / "out.parquet")},
        "workers": {"kind": "local", "count": 1},
    }


def check_rows(job: dict[str, Any]) -> None:
    written = pq.read_table(job["output"]["path"]).to_pydict()
    assert written["text"] == TEXTS
    assert set(written["status"]) == {"ok"}
    assert set(written["attempts"]) == {1}


def test_rows_that_another_process_reads_come_back_in_order(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "scan", lambda *_: pytest.fail("read here"))
    summary = batchrun.run(job, sandbox=True).summary
    assert summary["rows"]["ok"] == len(TEXTS)
    check_rows(job)


@pytest.mark.slow
def test_the_rows_of_a_killed_reader_are_kept_and_the_next_run_goes_on(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Reader.scan

    def killed(self: Reader, *arguments: Any) -> Iterator[Scanned]:
        scanned = scan(self, *arguments)
        yield next(scanned)
        self._process.kill()
        yield from scanned

    monkeypatch.setattr(Reader, "scan", killed)
    with pytest.raises(StorageError, match="reads the input was ended by SIGKILL"):
        batchrun.run(job, sandbox=True)
    kept = batchrun.status(job, sandbox=True)["rows"]["ok"]
    assert 0 < kept < len(TEXTS)
    monkeypatch.setattr(Reader, "scan", scan)
    summary = batchrun.run(job, sandbox=True).summary
    assert summary["rows"]["ok"] == len(TEXTS)
    assert summary["this_run"]["requests"]["sent"] == len(TEXTS) - kept
    check_rows(job)
