"""The run's folder beside the output: journal, summary, lock and log, for its owner alone."""

import os
import pwd
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchrun.errors import OutputError, StorageError, UsageError, cause_of, unwritable
from batchrun.job.spec import Job, run_folder
from batchrun.journal import Journal, open_for_reading
from batchrun.journal.place import RESCUED
from batchrun.journal.upgrade import copies_of
from batchrun.rows import digest_cache
from batchrun.tables.atomic import replace_file, sync_folder


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
    def digests(self) -> Path:
        return self.path / digest_cache.FILE_NAME

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def output_record(self) -> Path:
        return self.path / "output.json"

    @property
    def rescued(self) -> tuple[Path, ...]:
        """Returns the journals of runs whose journal file was replaced while they ran."""
        return tuple(sorted(self.path.glob(f"{RESCUED}-*.sqlite")))

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def token(self) -> Path:
        return self.path / "workers.token"

    @property
    def workers_log(self) -> Path:
        return self.path / "workers.log"

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the files that a run writes."""
        logs = (self.journal.with_name(f"{self.journal.name}{end}") for end in ("-wal", "-shm"))
        copies = copies_of(self.journal)
        small = (self.digests, self.lock, self.log, self.summary, self.output_record)
        workers = (self.token, self.workers_log)
        return (self.journal, *logs, *copies, *small, *workers)


def make_run_folder(path: Path) -> RunFolder:
    """Creates the folder with mode 0700 if missing. Raises OutputError, also for another user's folder and
    for a symbolic link: its creator could read prompts and responses.
    """
    _refuse_folders(RunFolder(path))
    try:
        is_new = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        if is_new:
            sync_folder(path.parent)  # SQLite only syncs the journal's own folder
    except (FileExistsError, NotADirectoryError):
        kind = "a symbolic link" if path.is_symlink() else "a file"
        raise OutputError(f"{path} is {kind}; the run needs a folder of its own by that name") from None
    except OSError as error:
        raise unwritable(f"The run's folder {path} can't be made: {cause_of(error)}", error) from None
    return RunFolder(path)


def _refuse_folders(folder: RunFolder) -> None:
    for path in (*folder.files, folder.path / "ballast"):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; the run needs that name for a file. Move it away")


def _make_private(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not _is_own(path, os.fstat(descriptor).st_uid):
            raise OutputError(f"The run's folder {path} belongs to another user. Name another output")
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _is_own(path: Path, owner: int) -> bool:
    """Returns whether this user owns the path. Some file systems give all files to one user."""
    if owner == os.geteuid():
        return True
    with tempfile.TemporaryFile(dir=path) as file:
        return os.fstat(file.fileno()).st_uid == owner


def write_private(path: Path, text: str) -> None:
    """Replaces a small file atomically, readable only for its owner. Raises StorageError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been moved away
        replace_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {cause_of(error)}.") from None


def has_journal(folder: RunFolder) -> bool:
    """Returns whether the folder has a journal. Raises UsageError where this user may not look."""
    try:
        folder.journal.stat()
    except PermissionError:
        raise no_permission(folder) from None
    except OSError:
        return False
    if not os.access(folder.journal, os.R_OK):  # opening and closing it would drop SQLite's locks on it
        raise no_permission(folder)
    return True


def no_permission(folder: RunFolder) -> UsageError:
    """Returns the error of a user who may not see another one's run, and so can't know what goes on there."""
    owner = ""
    with suppress(OSError, KeyError):  # no name, as in a container
        found = folder.path.stat().st_uid
        owner = pwd.getpwuid(found).pw_name if found != os.geteuid() else ""
    whose = f": it belongs to {owner}, and is for its owner alone" if owner else ""
    way = f"run the command as {owner} (sudo -u {owner} ...)" if owner else "fix its permissions"
    return UsageError(f"No permission for the run's folder {folder.path}{whose}.\nNext: {way}")


def open_journal_of(job: Job) -> Journal:
    """Opens the journal of a job that has been run before, for reading. Raises UsageError without one."""
    folder = RunFolder(run_folder(job))
    if not has_journal(folder):
        raise UsageError(
            f"Nothing has been run yet: there is no journal {folder.journal}. First: batchrun run."
        )
    _refuse_folders(folder)
    return open_for_reading(folder.journal)


def refuse_half_salvaged(folder: RunFolder) -> None:
    """Raises StorageError after an interrupted salvage: the journal may lack entries of its log."""
    if folder.salvaged.exists():
        raise StorageError(
            f"An `export --salvage` was broken off. Move {folder.salvaged} over {folder.journal}, and away\n"
            "what else begins with journal.sqlite there; then run the same command."
        )


def refuse_rescued(folder: RunFolder) -> None:
    """Raises StorageError if a run's journal was replaced while it ran, and a copy of it exists."""
    if folder.rescued:
        raise StorageError(
            f"A run's journal was replaced while it ran; its responses are in {folder.rescued[0]}.\n"
            "Put both together, then run the same command: batchrun export --salvage JOB"
        )
