"""Keeps a record of the output that was written last: an output that would be the same is not written again.

The record says what the output was made of, which bytes it has, and what its rows told the summary. Whatever
differs or can't be known, such as the content of a URL, makes a run write the output.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from batchrun.errors import BatchrunError
from batchrun.job.evaluation import PYTHON_METRIC
from batchrun.job.spec import Job, public_job
from batchrun.journal import Journal
from batchrun.journal.content import content_hash
from batchrun.rows.dataset import Dataset
from batchrun.rows.packages import version_of
from batchrun.runs.run_folder import write_private
from batchrun.runs.summary import Summary
from batchrun.tables.locations import InputState, input_state
from batchrun.version import __version__

_PACKAGES = (
    *("jsonschema-rs", "minijinja", "msgspec", "numpy", "polars", "pyarrow", "regex", "scipy"),
    "python-calamine",  # if it is installed
)
"""Packages whose versions may change an output, besides batchrun and Python."""
_BYTES_AT_ONCE = 1 << 20

Check = Callable[[], object]


class OutputRecord(msgspec.Struct, frozen=True):
    """The last written output: hashes of what it was made of and of its bytes, as hex, the ending that its
    metadata states, and the counts and findings of its rows."""

    made_of: str
    content: str
    exit_code: int
    reason: str
    rows: dict[str, int]
    findings: dict[str, Any]

    def states(self, summary: Summary) -> bool:
        """Returns whether the output's metadata would state the same ending."""
        return (self.exit_code, self.reason) == (summary["exit_code"], summary["reason"])


class _Stored(msgspec.Struct, frozen=True):
    sha256: str
    record: msgspec.Raw


class MadeOf(NamedTuple):
    """A hash over all that determines an output, as hex, and the state of the input's files before they were
    read for it."""

    content: str
    input_state: InputState


def made_of(dataset: Dataset, journal: Journal, check: Check) -> MadeOf | None:
    """Returns what the output would be made of now; None where something of it can't be known.

    `check` is called now and then, and may end it by what it raises. Raises JournalError.
    """
    job, files = dataset.job, dataset.table.files
    if _depends_on_more(job) or not all(Path(file).is_absolute() for file in files):
        return None
    before = input_state(files)
    try:
        contents = [(file, _hash_of_file(Path(file), check)) for file in files]
    except OSError:
        return None
    versions = (__version__, sys.version, *map(version_of, _PACKAGES))
    parts = (public_job(job), dataset.endpoint, contents, content_hash(journal), versions)
    return MadeOf(sha256(msgspec.json.encode(parts, order="sorted")).hexdigest(), before)


def _depends_on_more(job: Job) -> bool:
    """Returns whether the output is made of more than the job, local files of the input and the journal."""
    own_metric = job.evaluation is not None and job.evaluation.metric.startswith(PYTHON_METRIC)
    return (
        own_metric
        or job.prompt.image is not None
        or job.input.query is not None
        or "://" in job.input.path
        or "://" in job.output.path
    )


def unchanged_output(record: Path, now_made_of: str, output: Path, check: Check) -> OutputRecord | None:
    """Returns the record at the path `record` if the output is still as it was written, and would be made of
    the same; else None."""
    try:
        stored = msgspec.json.decode(record.read_bytes(), type=_Stored)
        if sha256(stored.record).hexdigest() != stored.sha256:
            return None
        known = msgspec.json.decode(stored.record, type=OutputRecord)
        same = known.made_of == now_made_of and known.content == _hash_of_file(output, check)
    except (OSError, msgspec.MsgspecError):
        return None
    return known if same else None


def keep_record(path: Path, record: OutputRecord) -> None:
    """Writes the record, unless JSON can't hold its findings. Without it, the next run writes the output."""
    encoded = msgspec.json.encode(record)
    if msgspec.json.decode(encoded, type=OutputRecord) == record:
        stored = msgspec.json.encode(_Stored(sha256(encoded).hexdigest(), msgspec.Raw(encoded)))
        with suppress(BatchrunError):
            write_private(path, stored.decode())


def _hash_of_file(path: Path, check: Check) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while part := file.read(_BYTES_AT_ONCE):
            check()
            digest.update(part)
    return digest.hexdigest()
