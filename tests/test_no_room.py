"""A full disk, or the shell's limit on the size of files, is a fault of this machine wherever it is met."""

import errno
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import BatchrunError, OutputError, StorageError, cause_of
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.journal.connection import translate
from batchrun.rows.scratch import check_scratch
from batchrun.runs.observers.event_log import check_log
from batchrun.runs.paths import check_side_files
from batchrun.runs.run_folder import make_run_folder
from batchrun.tables import atomic
from batchrun.tables.sheet import write_sheet
from batchrun.tables.writer import check_writable


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tables: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 1},
        "output": {"path": "out.csv", "report": "report.html"},
    }
    return make_job(tables, tmp_path, sandbox=True)


PLACES: dict[str, Callable[[Job], object]] = {
    "output": lambda job: check_writable(job.base / "out.csv"),
    "temporary files": lambda job: check_scratch(job, 1),
    "page": check_side_files,
    "run's folder": lambda job: make_run_folder(job.base / "out.run"),
    "log": lambda job: check_log(job.base / "log.jsonl"),
    "rows to review": lambda job: write_sheet(job.base / "review.csv", ["a"], [["b"]], replace=True),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, StorageError, 1),
        (errno.EDQUOT, StorageError, 1),
        (errno.EFBIG, StorageError, 1),
        (errno.EACCES, OutputError, 2),
        (errno.EROFS, OutputError, 2),
    ],
)
def test_no_room_is_a_fault_and_a_wrong_place_is_not(
    monkeypatch: pytest.MonkeyPatch, job: Job, place: str, number: int, kind: type[BatchrunError], code: int
) -> None:
    def refuse(*_args: Any, **_more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "open_temporary", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(kind, match=os.strerror(number)) as caught:
        PLACES[place](job)
    assert caught.value.exit_code == code


def test_a_limit_on_the_size_of_files_is_named_as_the_shell_calls_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sqlite3

    full = sqlite3.OperationalError("disk I/O error")
    full.sqlite_errorname = "SQLITE_IOERR_WRITE"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**20, resource.RLIM_INFINITY))
    assert "disk I/O error (this shell's `ulimit -f` is 1024 KiB)." in str(translate(tmp_path, full))
    assert "`ulimit -f` is 1024 KiB" in cause_of(OSError(errno.EFBIG, "File too large"))
    assert "ulimit" not in cause_of(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "ulimit" not in str(translate(tmp_path, full))
