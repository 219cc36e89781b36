"""Temporary files lie beside the output; a disk without room for them ends the run by the folder's name."""

import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.errors import OutputError, StorageError
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.rows.active import Row
from batchrun.rows.duplicates import OccurrenceCounter
from batchrun.rows.scratch import check_scratch, scratch_folder
from batchrun.rows.selection import in_random_order
from tests.money.fanout import request


def job_in(folder: Path, **output: str) -> Job:
    tables = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m"},
        "output": {"path": "out.csv", **output},
    }
    return make_job(tables, folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own. Skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_temporary_files_lie_beside_the_output_or_where_the_job_says(tmp_path: Path) -> None:
    assert scratch_folder(job_in(tmp_path)) == tmp_path
    assert scratch_folder(job_in(tmp_path, scratch="elsewhere")) == tmp_path / "elsewhere"
    assert scratch_folder(job_in(tmp_path / "none")) == Path(tempfile.gettempdir())


def test_nothing_is_left_of_them(tmp_path: Path) -> None:
    counter = OccurrenceCounter(tmp_path)
    assert [counter.count(bytes(16)) for _ in range(3)] == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_room_is_named_before_anything_is_sent(small_disk: Path) -> None:
    check_scratch(job_in(small_disk), 1_000)
    with pytest.raises(StorageError, match=f"{small_disk} has 1 MiB left, and 62 MiB are needed"):
        check_scratch(job_in(small_disk), 1_000_000)
    with pytest.raises(OutputError, match=r"\[output\] scratch: .*none can't be written"):
        check_scratch(job_in(small_disk, scratch="none"), 1)


def test_a_disk_that_fills_up_is_a_fault_that_names_the_folder(small_disk: Path) -> None:
    counter = OccurrenceCounter(small_disk)
    with pytest.raises(StorageError, match=f"Temporary files in {small_disk} can't be written"):
        deque(map(counter.count, (number.to_bytes(16, "big") for number in range(400_000))), 0)
    chunks = ([Row(number, request(number)) for number in range(at, at + 1_024)] for at in range(10**9))
    with pytest.raises(StorageError, match=f"Temporary files in {small_disk} can't be written"):
        deque(in_random_order(chunks, 0, 1_024, small_disk), 0)
