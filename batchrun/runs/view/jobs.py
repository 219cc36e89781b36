"""Finds the jobs to look at: job files by name, and those of folders."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from batchrun.errors import JobError, UsageError
from batchrun.job.spec import Job

_TABLES = {"input", "prompt", "output"}
"""What every job file has, and other TOML files have not."""


@dataclass(frozen=True)
class FoundJob:
    """A job by its name for people; `error` says why it can't be read.

    `load` reads its job file again, None where it has none. `files` are the times at which its files were
    written.
    """

    name: str
    job: Job | None
    error: str | None = None
    load: Callable[[], Job] | None = None
    file: Path | None = None
    files: tuple[int, ...] = ()


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
        yield _found(str(path), path, load(path), load)
        return
    for file in sorted(path.glob("*.toml")):
        if _is_job(file):
            name = str(file.relative_to(path) if path == Path() else file)
            yield read_again(FoundJob(name, None, load=partial(load, file), file=file, files=(-1,)))


def _found(name: str, file: Path, job: Job, load: Callable[[Path], Job]) -> FoundJob:
    return FoundJob(name, job, None, partial(load, file), file, _times(file, job))


def read_again(found: FoundJob) -> FoundJob:
    """Returns the job as its files have it now: the same object where they haven't changed."""
    if found.load is None or found.file is None or _times(found.file, found.job) == found.files:
        return found
    try:
        job = found.load()
    except JobError as error:
        return replace(found, job=None, error=str(error), files=_times(found.file, None))
    return replace(found, job=job, error=None, files=_times(found.file, job))


def _times(file: Path, job: Job | None) -> tuple[int, ...]:
    """Returns when the job file, and the files that it names, were last written; 0 for one that is gone."""
    return tuple(map(_time, (file, *(path for _, path in (() if job is None else job.files)))))


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_job(file: Path) -> bool:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig")).keys() >= _TABLES
    except (OSError, ValueError, RecursionError):
        return False
