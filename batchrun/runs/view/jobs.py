"""Finds the jobs to look at: job files by name, and those of folders."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchrun.errors import JobError, UsageError
from batchrun.job.spec import Job

_TABLES = {"input", "prompt", "output"}
"""What every job file has, and other TOML files have not."""


@dataclass(frozen=True)
class FoundJob:
    """A job by its name for people; `error` says why it can't be read."""

    name: str
    job: Job | None
    error: str | None = None


def find_jobs(paths: Sequence[Path], load: Callable[[Path], Job]) -> list[FoundJob]:
    """Returns the jobs of job files and folders, each as `load` reads it; without any, the current folder's.

    A file of a folder that isn't a valid job has an `error`. Raises JobError for a file that was named,
    UsageError where there is no job at all.
    """
    found = [each for path in paths or (Path(),) for each in _jobs_at(path, load)]
    if not found:
        where = ", ".join(str(path) for path in paths) or "this folder"
        raise UsageError(f"There is no job file in {where}. `batchrun init TABLE` writes one.")
    return found


def _jobs_at(path: Path, load: Callable[[Path], Job]) -> Iterator[FoundJob]:
    if not path.is_dir():
        yield FoundJob(str(path), load(path))
        return
    for file in sorted(path.glob("*.toml")):
        if _is_job(file):
            name = str(file.relative_to(path) if path == Path() else file)
            try:
                yield FoundJob(name, load(file))
            except JobError as error:
                yield FoundJob(name, None, str(error))


def _is_job(file: Path) -> bool:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig")).keys() >= _TABLES
    except (OSError, ValueError, RecursionError):
        return False
