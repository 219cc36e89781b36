"""The run's folder beside the output: journal, summary, lock and log, for its owner alone."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrun.errors import LockedError, OutputError, StorageError, UsageError
from batchrun.job import Job, run_folder
from batchrun.journal import Journal, open_for_reading
from batchrun.journal.salvage import Salvaged, salvage


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def salvaged(self) -> Path:
        return self.path / "salvaged.sqlite"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"


def make_run_folder(path: Path) -> RunFolder:
    """Creates the folder with mode 0700 where it is missing. Raises OutputError."""
    try:
        is_new = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if is_new:
            _sync_folder(path.parent)
    except FileExistsError:
        raise OutputError(f"{path} is a file; batchrun needs that name for the run's folder.") from None
    except OSError as error:
        raise OutputError(f"The run's folder {path} can't be made: {error.strerror}.") from None
    return RunFolder(path)


def _sync_folder(path: Path) -> None:
    """So that what is in it outlives a power failure: SQLite syncs the journal's own folder alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: RunFolder, patience: float = 0.2) -> Iterator[None]:
    """Holds the run's lock, which the kernel releases when the process dies. Raises LockedError at once.

    `patience`, in seconds, is for a `status` that looks whether the lock is held.
    """
    import filelock

    lock = filelock.FileLock(folder.path / "lock", mode=0o600)
    try:
        lock.acquire(timeout=patience, poll_interval=0.02)
    except filelock.Timeout:
        raise LockedError(
            f"Another run of this output is going on: it holds the lock in {folder.path}."
        ) from None
    except OSError as error:
        raise StorageError(f"The lock in {folder.path} can't be taken: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(job: Job) -> bool:
    """Whether a run of this output is going on."""
    try:
        with locked(RunFolder(run_folder(job)), patience=0):
            return False
    except LockedError:
        return True
    except StorageError:  # a folder that can't be written has no run
        return False


def write_private(path: Path, text: str) -> None:
    """Replaces a small file atomically, readable for its owner alone. Raises StorageError.

    Only the holder of the run's lock may call this: what a killed run has left of it is written over.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} can't be written: {error.strerror}.") from None


def open_journal_of(job: Job) -> Journal:
    """The journal of a job that has been run before, for reading. Raises UsageError where there is none."""
    path = RunFolder(run_folder(job)).journal
    if not path.exists():
        raise UsageError(f"Nothing has been run yet: there is no journal {path}. First: batchrun run.")
    return open_for_reading(path)


def salvage_journal_of(job: Job) -> tuple[Salvaged, Path]:
    """Puts what can still be read of a damaged journal in its place; says where the damaged one is now.

    Raises UsageError where there is none, LockedError, StorageError, and JournalError where nothing
    can be read.
    """
    folder = RunFolder(run_folder(job))
    if not folder.journal.exists():
        raise UsageError(f"There is no journal {folder.journal} to salvage.")
    with locked(folder):
        unfinished = folder.path / "salvaging.sqlite"
        unfinished.unlink(missing_ok=True)
        refuse_half_salvaged(folder)
        salvaged = salvage(folder.journal, unfinished)
        # From here on until it has its place, the salvaged journal keeps every run from starting.
        unfinished.rename(folder.salvaged)
        aside = _free_name(folder.path / "damaged.sqlite")
        for ending in ("", "-wal", "-shm"):
            part = folder.journal.with_name(folder.journal.name + ending)
            if part.exists():
                shutil.copyfile(part, aside.with_name(aside.name + ending))
        for ending in ("-wal", "-shm"):
            folder.journal.with_name(folder.journal.name + ending).unlink(missing_ok=True)
        folder.salvaged.replace(folder.journal)
    return salvaged, aside


def refuse_half_salvaged(folder: RunFolder) -> None:
    """Raises StorageError where a salvage was broken off: the journal may lack what was in its log."""
    if folder.salvaged.exists():
        raise StorageError(
            f"An `export --salvage` was broken off. Move {folder.salvaged} over {folder.journal}, and away\n"
            "what else begins with journal.sqlite there; then run the same command."
        )


def _free_name(path: Path) -> Path:
    names = (path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())
