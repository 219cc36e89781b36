"""A job as Python code gives it: a file, tables or a `Job`, with settings on top."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec

from batchrun.errors import JobError
from batchrun.job import Job, JobTables
from batchrun.job.file import make_job, put, read_overrides, read_tables

Given = str | PathLike[str] | Mapping[str, Any] | Job
Tables = dict[str, Any]


def load_given(
    given: Given,
    settings: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    sandbox: bool = False,
) -> Job:
    """The checked job that `given` describes: the path of a job file, its tables as a dict, or a `Job`.

    `settings` such as `{"budget.usd": 2.5}` are put on top, `overrides` (as `--set` takes them) below them,
    and `defaults` where nothing else says anything. Paths in tables are relative to the present folder.
    Raises JobError.
    """
    tables: Tables = {}
    for name, value in (defaults or {}).items():
        put(tables, name, value)
    try:
        given_tables, base = _tables_of(given)
        for name, table in given_tables.items():
            tables[name] = {**tables.get(name, {}), **table} if isinstance(table, dict) else table
        read_overrides(tables, overrides)
        for name, value in settings.items():
            put(tables, name, _plain(value))
        return make_job(tables, base, sandbox=sandbox)
    except JobError as error:
        where = f"{fspath(given)}: " if isinstance(given, str | PathLike) else ""
        raise JobError(f"{where}{error}") from None


def _tables_of(given: Given) -> tuple[Tables, Path]:
    if isinstance(given, Job):
        return _tables_of_job(given), given.base
    if isinstance(given, Mapping):
        return _plain(given), Path.cwd()
    if isinstance(given, str | PathLike):
        path = Path(given)
        return read_tables(path), path.absolute().parent
    raise JobError(
        f"expected the path of a job file, a dict of its tables or a Job, got {type(given).__name__}"
    )


def _tables_of_job(job: Job) -> Tables:
    """As a job file would give them: without what is left out."""
    tables = {name: getattr(job, name) for name in JobTables.__struct_fields__}
    given: Tables = msgspec.to_builtins(tables, builtin_types=(Decimal,))
    return {name: _given_keys(table) for name, table in given.items() if table is not None}


def _given_keys(table: Tables) -> Tables:
    return {key: value for key, value in table.items() if value is not None}


def _plain(value: Any) -> Any:
    """A copy with dicts for mappings and text for paths."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return fspath(value) if isinstance(value, PathLike) else value
