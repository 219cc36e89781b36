"""Replaces a damaged journal by its readable part."""

import shutil
from contextlib import closing, suppress
from pathlib import Path

from batchrun.errors import BatchrunError, UsageError
from batchrun.job.spec import Job, run_folder
from batchrun.journal import open_for_reading
from batchrun.journal.pool import share_of
from batchrun.journal.salvage import Salvaged, salvage
from batchrun.runs.pool import pool_of
from batchrun.runs.run_folder import RunFolder, has_journal, refuse_half_salvaged
from batchrun.runs.run_lock import locked


def salvage_journal_of(job: Job) -> tuple[Salvaged, Path]:
    """Replaces a damaged journal by its readable part; returns the damaged journal's new path too.

    Raises UsageError without a journal, LockedError, StorageError, and JournalError if nothing can be read.
    """
    folder = RunFolder(run_folder(job))
    if not has_journal(folder):
        raise UsageError(f"There is no journal {folder.journal} to salvage.")
    with locked(folder):
        unfinished = folder.path / "salvaging.sqlite"
        unfinished.unlink(missing_ok=True)
        refuse_half_salvaged(folder)
        rescued = folder.rescued
        salvaged = salvage(folder.journal, unfinished, rescued)
        # From here until it replaces the old one, the salvaged journal keeps every run from starting.
        unfinished.rename(folder.salvaged)
        aside = _free_name(folder.path / "damaged.sqlite")
        for ending in ("", "-wal", "-shm"):
            part = folder.journal.with_name(folder.journal.name + ending)
            if part.exists():
                shutil.copyfile(part, aside.with_name(aside.name + ending))
        for ending in ("-wal", "-shm"):
            folder.journal.with_name(folder.journal.name + ending).unlink(missing_ok=True)
        folder.salvaged.replace(folder.journal)
        for copy in rescued:
            copy.rename(_free_name(copy.with_stem(f"merged-{copy.stem}")))
        with suppress(BatchrunError):  # the pool counts twice then, and never too little
            _settle_in_pool(job, folder, complete=not salvaged.lost_attempts)
    return salvaged, aside


def _settle_in_pool(job: Job, folder: RunFolder, *, complete: bool) -> None:
    """Raises BatchrunError where the pool or the journal can't be used."""
    for sandbox in (False, True):
        with pool_of(job, sandbox=sandbox) as pool:
            if pool is not None:
                with closing(open_for_reading(folder.journal)) as journal:
                    share = share_of(pool, folder.journal, journal, sandbox=sandbox)
                    counted, attempt = journal.counted_by_day(sandbox), journal.next_attempt() - 1
                share.settle_salvaged(counted, attempt, complete=complete)


def _free_name(path: Path) -> Path:
    names = (path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())
