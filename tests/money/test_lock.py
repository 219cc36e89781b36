"""The run's lock: one run at a time, and a look at it turns no run away."""

import threading
import time
from pathlib import Path

import pytest

from batchrun.errors import LockedError
from batchrun.run_folder import RunFolder, locked


def test_a_second_run_is_turned_away_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        locked(RunFolder(tmp_path)),
        pytest.raises(LockedError, match="Another run"),
        locked(RunFolder(tmp_path)),
    ):
        pass
    assert time.monotonic() - started < 2


def test_a_status_that_looks_at_the_lock_turns_no_run_away(tmp_path: Path) -> None:
    looking = threading.Event()

    def look() -> None:
        with locked(RunFolder(tmp_path), patience=0):
            looking.set()
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    with locked(RunFolder(tmp_path)):
        thread.join()
