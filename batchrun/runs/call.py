"""A checked call from Python: its job, its table, and the places of its journal and output."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from os.path import normpath
from pathlib import Path
from typing import Any, Protocol

from batchrun.client.server import LOCAL_OVERRIDES
from batchrun.errors import UsageError
from batchrun.job.sources import JobSource, load_given
from batchrun.job.spec import Job, output_path, run_folder
from batchrun.runs.run_folder import RunFolder
from batchrun.tables.data_frames import arrow_table
from batchrun.tables.reader import Table, in_memory

IN_MEMORY = "memory://"
"""The `input.path` of an input that is not a file."""


class ArrowStream(Protocol):
    """A table in memory: of polars, pandas, pyarrow, or of any library that speaks Arrow."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Input = ArrowStream | str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Call:
    """`table` is the input if that is not a file. `temporary_output` is written if no output file is wanted.

    `temporary` is the folder of a journal that is not kept.
    """

    job: Job
    table: Table | None
    temporary_output: Path | None
    temporary: Path | None


def open_call(
    given: JobSource,
    input: Input | None,  # noqa: A002  # the job file's word
    settings: Mapping[str, Any] | None,
    journal: str | PathLike[str] | None,
    *,
    sandbox: bool,
    local: bool,
    needs_input: bool = True,
) -> Call:
    """Returns the checked call. Raises UsageError for a wrong job or a wrong parameter of the call."""
    if sandbox and local:
        raise UsageError("give sandbox or local, not both")
    folder = _journal_folder(journal)
    stand_in = folder.with_suffix(".parquet")
    table, input_settings = _open_input(input)
    job = load_given(
        given,
        {**(settings or {}), **input_settings},
        overrides=LOCAL_OVERRIDES if local else (),
        defaults={"output.path": str(stand_in)} | ({} if needs_input else {"input.path": IN_MEMORY}),
        sandbox=sandbox,
    )
    if output_path(job) == stand_in:
        temporary = folder.parent if journal is None else None
        return Call(job, table, run_folder(job) / f"output-{secrets.token_hex(4)}.parquet", temporary)
    if journal is not None:
        raise UsageError(
            "the job names an output, and its journal lies beside that: remove journal or output.path"
        )
    return Call(job, table, None, None)


def _open_input(data: Input | None) -> tuple[Table | None, Mapping[str, str]]:
    if data is None:
        return None, {}
    if isinstance(data, str | PathLike):
        path = fspath(data)
        return None, {"input.path": path if "://" in path else str(Path(path).absolute())}
    return in_memory(arrow_table(data), "the input"), {"input.path": IN_MEMORY}


def _journal_folder(journal: str | PathLike[str] | None) -> Path:
    if journal is None:
        return Path(tempfile.gettempdir()).absolute() / f"batchrun-{secrets.token_hex(8)}" / "output.run"
    folder = Path(normpath(Path(journal).absolute()))
    if folder.suffix != ".run":
        raise UsageError(
            f"journal is the run's folder, whose name ends in .run, such as labels.run; got {journal}"
        )
    return folder


@contextmanager
def kept_if_it_fails(folder: Path | None) -> Iterator[None]:
    """Holds a temporary folder (None: there is none), which is removed at the end.

    If the block raises, a journal in it is kept, since its responses are paid for; a note on the exception
    says where it is.
    """
    if folder is None:
        yield
        return
    folder.mkdir(mode=0o700)
    try:
        yield
    except BaseException as error:
        journal = RunFolder(folder / "output.run").journal
        if journal.exists():
            error.add_note(
                f"Answers so far are kept: journal={str(journal.parent)!r} in the call goes on from there."
            )
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
