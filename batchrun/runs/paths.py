"""The files of a command: a written file must not be one that is read or kept.

Every command and every call checks its paths here, before it writes anything. Two paths are one file where
they lead to the same place, by whatever spelling, symbolic link or hard link.
"""

import glob
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from pathlib import Path

from pyarrow.fs import LocalFileSystem

from batchrun.errors import InputError, OutputError, StorageError, UsageError, cause_of, unwritable
from batchrun.job.spec import Job, output_path, run_folder
from batchrun.runs.pool import pool_file
from batchrun.runs.run_folder import RunFolder
from batchrun.tables.atomic import try_replacing
from batchrun.tables.database import DATABASE_FILES, database_file
from batchrun.tables.locations import find_locations, scheme_of

Named = tuple[str, Path]
"""A path, and its name for people."""

_ROTATED = (".1", ".2")


def check_paths(
    job: Job,
    written: Mapping[str, Path | None] | None = None,
    read: Mapping[str, Path | None] | None = None,
    *,
    may_be_output: bool = False,
) -> None:
    """Raises OutputError where a path that is written is another one that is written, read or kept.

    `written` and `read` are the command's own files by the names of their options, None where one wasn't
    given; the job's files are added. `may_be_output` says that the command writes the files in `written`
    in the place of the job's output.
    """
    its_own = {
        "[output] report": report_file(job),
        "[telemetry] prometheus": prometheus_file(job),
        **_pool_files(job),
    }
    own = _given(its_own | dict(written or {}))
    for name, path in [*own, *_given(read or {})]:
        if "\0" in str(path):
            raise OutputError(f"{name}: a path can't hold a null character")
    _refuse_object(job)
    output = ("[output] path", output_path(job))
    kept = [*_read_by(job), *_given(read or {})]
    for name, path in [output, *own]:
        _refuse(name, path, kept)
        _refuse_pattern(name, path, job)
    others = own if may_be_output else [output, *own]
    for place, (name, path) in enumerate(others):
        _refuse(name, path, others[:place])
    _refuse_in_run_folder(own, job)
    _refuse_foreign_output(job)
    for path in RunFolder(run_folder(job)).files:
        _refuse("the run's own file", path, [*kept, *others])


def report_file(job: Job) -> Path | None:
    """Returns the page that the job wants at the end of every run."""
    return None if job.output.report is None else job.base / job.output.report


def prometheus_file(job: Job) -> Path | None:
    """Returns the file of the job's metrics."""
    return None if job.telemetry.prometheus is None else job.base / job.telemetry.prometheus


def _pool_files(job: Job) -> dict[str, Path]:
    path = pool_file(job)
    name = "[budget] pool"
    return (
        {}
        if path is None
        else {name: path, f"{name}, during a change": path.with_name(f"{path.name}-journal")}
    )


def check_side_files(job: Job) -> None:
    """Raises OutputError or StorageError if a file that the job wants besides its output can't be written."""
    for path in (report_file(job), prometheus_file(job)):
        try:
            if path is not None:
                try_replacing(path)
        except OSError as error:
            raise unwritable_file(path, error) from None


def unwritable_file(path: Path | None, error: OSError) -> UsageError | StorageError:
    return unwritable(f"{path} can't be written: {cause_of(error)}. Name another file", error)


def rotated(log: Path | None) -> dict[str, Path | None]:
    """A log that is rotated, and the older logs beside it."""
    older = {} if log is None else {f"--log-file, rotated to {end},": Path(f"{log}{end}") for end in _ROTATED}
    return {"--log-file": log, **older}


def _given(paths: Mapping[str, Path | None]) -> list[Named]:
    return [(name, path) for name, path in paths.items() if path is not None]


def _read_by(job: Job) -> list[Named]:
    named = [("the job's input", path) for path in _inputs(job)]
    named += [(f"read by the job as {name}", path) for name, path in job.files]
    if job.endpoint.api_key_file is not None:
        named.append(("the file of the API key", job.base / job.endpoint.api_key_file))
    return named


def _inputs(job: Job) -> list[Path]:
    if scheme_of(job.input.path) in DATABASE_FILES:
        return [database_file(job.input.path, job.base)]
    if scheme_of(job.input.path) not in (None, "file"):
        return []
    try:
        locations = find_locations(job.input.path, job.base)
    except InputError:  # reported when the input is opened
        return [job.base / job.input.path]
    return [Path(place.path) for place in locations if isinstance(place.filesystem, LocalFileSystem)]


def _refuse(name: str, path: Path, others: Iterable[Named]) -> None:
    for what, other in others:
        if is_same_file(path, other):
            raise OutputError(f"{name} {path} is {what}, which would be lost. Name another file")


def _refuse_pattern(name: str, path: Path, job: Job) -> None:
    """Refuses a path that the next run would take for one of the input's files."""
    pattern = job.input.path
    if (
        scheme_of(pattern) is None
        and not os.path.lexists(job.base / pattern)
        and matches(path, job.base, pattern)
    ):
        raise OutputError(
            f"{name} {path} matches the pattern of the input, {pattern}: the next run would read it.\n"
            "Name another file, or one in another folder"
        )


def _refuse_object(job: Job) -> None:
    """Refuses an object as output that is the input, or that the input's pattern would find."""
    target, source = _object(job.output.path), _object(job.input.path)
    if target is None or source is None or job.output.endpoint_url != job.input.endpoint_url:
        return
    folder, _, name = target.rpartition("/")
    its_folder, _, pattern = source.rpartition("/")
    if folder == its_folder and (name == pattern or fnmatchcase(name, pattern)):
        raise OutputError(
            f"[output] path {target} is the job's input, or would be a part of it: {source}.\n"
            "Name another object, or one in another folder"
        )


def _object(url: str) -> str | None:
    """Returns an object's URL without its keys and options; None for a file."""
    scheme, mark, rest = url.partition("?")[0].partition("://")
    user, _, place = rest.rpartition("@")
    return f"{scheme.lower()}://{place if ':' in user else rest}" if mark else None


def _refuse_in_run_folder(written: Iterable[Named], job: Job) -> None:
    folder = os.path.realpath(run_folder(job))
    for name, path in written:
        if folder in map(str, Path(os.path.realpath(path)).parents):
            raise OutputError(f"{name} {path} lies in the run's folder {folder}. Name a file elsewhere")


def _refuse_foreign_output(job: Job) -> None:
    """Refuses a link or another user's file: it could show the output to that user."""
    path = output_path(job)
    if job.output.follow_links:
        return
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return  # it doesn't exist yet
    if stat.S_ISLNK(found.st_mode):
        raise OutputError(
            f"[output] path {path} is a symbolic link to {os.path.realpath(path)}.\n"
            "Name that file, or set output.follow_links = true"
        )
    if found.st_uid != os.geteuid() and path.parent.stat().st_uid != found.st_uid:
        raise OutputError(
            f"[output] path {path} is a file of another user.\n"
            "Remove it, name another one, or set output.follow_links = true"
        )


def is_same_file(path: Path, other: Path) -> bool:
    """Returns whether both are one file, or would be one once they exist."""
    try:
        if path.samefile(other):
            return True
    except (OSError, ValueError):  # one of them doesn't exist
        pass
    return os.path.realpath(path) == os.path.realpath(other)


def matches(path: Path, base: Path, pattern: str) -> bool:
    """Returns whether a glob such as `data/**/*.csv`, relative to `base`, would find the file."""
    parts = Path(os.path.normpath(Path(glob.escape(str(base))) / Path(pattern).expanduser())).parts
    found = Path(os.path.normpath(path.absolute())).parts
    return _match(found, parts)


def _match(found: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts or not found:
        return not parts and not found
    if parts[0] == "**":
        return _match(found, parts[1:]) or (not found[0].startswith(".") and _match(found[1:], parts))
    hidden = found[0].startswith(".") and not parts[0].startswith(".")
    return not hidden and bool(re.match(translate(parts[0]), found[0])) and _match(found[1:], parts[1:])
