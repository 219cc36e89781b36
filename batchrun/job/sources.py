"""Reads a job that Python code gives as a file, as tables or as a `Job`, with settings on top."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec

from batchrun.errors import JobError
from batchrun.job.file import make_job, put, read_overrides, read_tables, read_text, with_file
from batchrun.job.lines import placed
from batchrun.job.profiles import with_profile
from batchrun.job.spec import Job, JobTables

JobSource = str | PathLike[str] | Mapping[str, Any] | Job
Tables = dict[str, Any]


def load_given(
    given: JobSource,
    settings: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    sandbox: bool = False,
) -> Job:
    """Returns the checked job for `given`: the path of a job file, its tables as a dict, or a `Job`.

    `settings` such as `{"budget.usd": 2.5}` win over `overrides` (as `--set` takes them), those over
    `given`, and all over `defaults`. Paths in tables are relative to the current folder.
    Raises JobError.
    """
    tables: Tables = {}
    for name, value in (defaults or {}).items():
        put(tables, name, value)
    file = Path(given) if isinstance(given, str | PathLike) else None
    text = ""
    try:
        text = "" if file is None else read_text(file)
        given_tables, base = _tables_of(given, text)
        for name, table in given_tables.items():
            tables[name] = {**tables.get(name, {}), **table} if isinstance(table, dict) else table
        read_overrides(tables, overrides)
        for name, value in settings.items():
            put(tables, name, _plain(value))
        job = make_job(tables, base, sandbox=sandbox)
        return _with_files_of(given, job)
    except JobError as error:
        raise placed(error, file, text, None, [*overrides, *(f"{name}=." for name in settings)], "") from None


def _tables_of(given: JobSource, text: str) -> tuple[Tables, Path]:
    if isinstance(given, Job):
        return _tables_of_job(given), given.base
    if isinstance(given, Mapping):
        return with_profile(_plain(given), None), Path.cwd()
    if isinstance(given, str | PathLike):
        return with_profile(read_tables(text), None), Path(given).absolute().parent
    raise JobError(
        f"expected the path of a job file, a dict of its tables or a Job, got {type(given).__name__}"
    )


def _with_files_of(given: JobSource, job: Job) -> Job:
    if isinstance(given, str | PathLike):
        return with_file(job, Path(given))
    if isinstance(given, Job):
        return msgspec.structs.replace(job, files=(*given.files, *job.files))
    return job


def _tables_of_job(job: Job) -> Tables:
    """Returns the tables as a job file would give them: without keys that are left out."""
    tables = {name: getattr(job, name) for name in JobTables.__struct_fields__}
    given: Tables = msgspec.to_builtins(tables, builtin_types=(Decimal,))
    return {name: _given_keys(table) for name, table in given.items() if table is not None}


def _given_keys(table: Tables) -> Tables:
    return {key: value for key, value in table.items() if value is not None}


def _plain(value: Any) -> Any:
    """Returns a copy with dicts for mappings, text for paths, Python's values for NumPy's and for columns."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for method in ("tolist", "to_list"):  # NumPy, pandas and pyarrow; polars
        if hasattr(value, method) and not isinstance(value, type):
            return getattr(value, method)()
    return fspath(value) if isinstance(value, PathLike) else value
