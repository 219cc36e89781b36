"""What a job's files say, read without batchrun's own reading code: the journal by plain SQL."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from batchrun.client.request import Request
from batchrun.job.file import load_job
from batchrun.rows.dataset import open_dataset


class Attempt(NamedTuple):
    """`message_id` is the id of the answer, None where there is none."""

    digest: bytes
    outcome: str
    nano_usd: int
    error_code: str | None
    message_id: str | None


class OpenIntent(NamedTuple):
    digest: bytes
    nano_usd: int


@dataclass(frozen=True)
class Snapshot:
    """A journal as it stood: attempts with a known end and intents without one, by attempt number."""

    attempts: dict[int, Attempt] = field(default_factory=dict)
    open: dict[int, OpenIntent] = field(default_factory=dict)

    def nano_usd(self, outcome: str) -> int:
        return sum(attempt.nano_usd for attempt in self.attempts.values() if attempt.outcome == outcome)

    @property
    def settled(self) -> int:
        return self.nano_usd("answered")

    @property
    def uncertain(self) -> int:
        """What attempts and intents whose fate is unknown may have cost at most."""
        return self.nano_usd("uncertain") + sum(intent.nano_usd for intent in self.open.values())

    @property
    def answered(self) -> dict[int, Attempt]:
        return {n: attempt for n, attempt in self.attempts.items() if attempt.outcome == "answered"}


def snapshot(journal: Path) -> Snapshot:
    """Reads a copy of the journal, so that the files stay as they are. Empty where it has no tables."""
    with _copied(journal) as copy, closing(sqlite3.connect(copy)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'attempts'").fetchone():
            return Snapshot()
        attempts = connection.execute(
            "SELECT attempt, digest, outcome, ifnull(nano_usd, 0), error_code, body"
            " FROM attempts LEFT JOIN responses USING (attempt)"
        )
        intents = connection.execute("SELECT attempt, digest, nano_usd FROM intents")
        return Snapshot(
            {row[0]: Attempt(row[1], row[2], row[3], row[4], _message_id(row[5])) for row in attempts},
            {row[0]: OpenIntent(row[1], row[2]) for row in intents},
        )


def _message_id(body: bytes | None) -> str | None:
    return None if body is None else str(json.loads(body)["id"])


@contextmanager
def _copied(journal: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal", "-journal"):  # the last one while the journal is created
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{journal}{suffix}", Path(folder, journal.name + suffix))
        yield Path(folder, journal.name)


class RowRequest(NamedTuple):
    """How a row's request is known to the journal and to the bill."""

    digest: bytes
    body_sha256: str


def row_requests(job_file: Path) -> list[RowRequest]:
    """The request of each row, in input order."""
    dataset = open_dataset(load_job(job_file), sandbox=False)
    return [
        RowRequest(request.digest, sha256(request.body).hexdigest())
        for chunk in dataset.chunks([])
        for request in chunk.requests
        if isinstance(request, Request)
    ]
