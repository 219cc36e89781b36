"""The run's lock: one run at a time, and a look at it turns no run away."""

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from batchrun.errors import LockedError, OutputError, StorageError, UsageError
from batchrun.journal import create_or_open
from batchrun.runs.adjust.ask import adjust_run
from batchrun.runs.run_folder import RunFolder, make_run_folder
from batchrun.runs.run_lock import is_active, locked


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


def test_a_process_that_the_program_has_forked_neither_keeps_nor_frees_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    told, tell = os.pipe()
    with locked(folder):
        child = os.fork()
        if child:
            os.read(told, 1)
            assert is_active(folder)
    if child == 0:
        os.write(tell, b"left the block, and goes on")
        signal.pause()
    try:
        assert not is_active(folder)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


def test_a_second_run_is_turned_away_whatever_happened_to_the_lock_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with locked(folder):
        folder.lock.unlink()
        with pytest.raises(LockedError), locked(folder):
            pass
    with locked(folder):
        pass


def test_a_system_without_flock_is_said_and_has_a_lock_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def no_flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    told: list[str] = []
    with locked(RunFolder(tmp_path), warn=told.append):
        child = os.fork()
        if child == 0:  # the older kind of lock is a process's own
            try:
                with locked(RunFolder(tmp_path), patience=0):
                    os._exit(0)
            except LockedError:
                os._exit(75)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert len(told) == 1
    assert "flock is not available" in told[0]
    assert not recwarn.list


def test_a_lock_that_may_not_be_taken_is_not_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_descriptor: int, _operation: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(StorageError, match="Permission denied"), locked(RunFolder(tmp_path)):
        pass


def test_a_link_in_the_place_of_the_run_s_folder_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (tmp_path / "out.run").symlink_to(theirs)
    with pytest.raises(OutputError, match="is a symbolic link"):
        make_run_folder(tmp_path / "out.run")
    assert theirs.stat().st_mode & 0o777 == 0o755
    assert list(theirs.iterdir()) == []


def test_a_run_s_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out.run"
    folder.mkdir(mode=0o755)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert make_run_folder(folder).path == folder, "a file system that gives all files to one user"
    if owner == 0:
        os.chown(folder, 12_345, -1)
        with pytest.raises(OutputError, match="belongs to another user"):
            make_run_folder(folder)


def test_the_message_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.lock.write_text("99999999 of an earlier run\n")
    with (
        locked(folder),
        pytest.raises(LockedError, match=rf"going on \(process {os.getpid()}\)"),
        locked(folder, patience=0),
    ):
        pytest.fail("both have the lock")


def test_a_lock_file_without_a_number_leaves_the_process_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with locked(folder):
        folder.lock.write_text("")
        with pytest.raises(LockedError, match="is going on: it holds"), locked(folder, patience=0):
            pytest.fail("both have the lock")


def test_a_user_without_permission_is_not_told_that_no_run_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run_folder(tmp_path / "out.run")
    create_or_open(folder.journal).close()
    opened, refused = os.open, {folder.lock}

    def open_(path: Path, *arguments: int) -> int:
        if path in refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    with locked(folder):
        monkeypatch.setattr(os, "open", open_)
        with pytest.raises(UsageError, match=r"No permission for the run's folder .*out\.run"):
            adjust_run(folder, ["budget.usd=3"])
    assert list(folder.path.glob("adjust-*")) == []


def test_who_may_only_read_the_folder_sees_that_a_run_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def open_(path: Path, flags: int, *arguments: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *arguments)

    with locked(RunFolder(tmp_path)):
        monkeypatch.setattr(os, "open", open_)
        assert is_active(RunFolder(tmp_path))
    assert not is_active(RunFolder(tmp_path))


def test_a_run_s_folder_that_may_not_be_read_names_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run_folder(tmp_path / "out.run")
    create_or_open(folder.journal).close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: folder.path.stat().st_uid + 1)
    with pytest.raises(UsageError, match=r"belongs to \w+.*\nNext: run the command as \w+"):
        adjust_run(folder, ["budget.usd=3"])


def test_no_lock_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os.closerange(0, 3)
        with locked(RunFolder(tmp_path)) as locks:
            os._exit(0 if len(locks) == 2 and min(locks) > 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
