"""batchrun sends every row of a table as a prompt to `POST /v1/messages`, under a budget that holds.

From Python: `batchrun.run(job)` and `await batchrun.arun(job)`; see docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchrun.errors import (
    BatchrunError,
    InputError,
    JobError,
    JournalError,
    LockedError,
    OutputError,
    StorageError,
    UsageError,
)
from batchrun.version import __version__

if TYPE_CHECKING:
    from batchrun.api import arun, compare, evaluate, export, plan, run, status
    from batchrun.job.file import load_job
    from batchrun.job.spec import Job
    from batchrun.runs.result import Result
    from batchrun.sandbox import Settings as SandboxSettings

__all__ = [
    "BatchrunError",
    "InputError",
    "Job",
    "JobError",
    "JournalError",
    "LockedError",
    "OutputError",
    "Result",
    "SandboxSettings",
    "StorageError",
    "UsageError",
    "__version__",
    "arun",
    "compare",
    "evaluate",
    "export",
    "load_job",
    "plan",
    "run",
    "status",
]

# Imported at their first use: the command line's help must not wait for polars and pyarrow.
_HOMES = {
    "Job": ("batchrun.job.spec", "Job"),
    "Result": ("batchrun.runs.result", "Result"),
    "SandboxSettings": ("batchrun.sandbox", "Settings"),
    "arun": ("batchrun.api", "arun"),
    "compare": ("batchrun.api", "compare"),
    "evaluate": ("batchrun.api", "evaluate"),
    "export": ("batchrun.api", "export"),
    "load_job": ("batchrun.job.file", "load_job"),
    "plan": ("batchrun.api", "plan"),
    "run": ("batchrun.api", "run"),
    "status": ("batchrun.api", "status"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchrun' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
