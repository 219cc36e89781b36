"""A log of a run in JSON lines, without prompts, answers or keys; rotated."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

from batchrun.clock import instant, milliseconds
from batchrun.errors import BatchrunError, cause_of, unwritable
from batchrun.rows.observer import AttemptFailed, Observer, RunAdjusted, RunStarted, Worker

LARGEST_BYTES = 10 * 2**20
OLDER_LOGS = 2

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class EventLog(Observer):
    """Appends one JSON object for each event: `at`, `event` and what belongs to it."""

    def __init__(self, path: Path) -> None:
        self._handler = _PrivateHandler(
            path, maxBytes=LARGEST_BYTES, backupCount=OLDER_LOGS, encoding="utf-8", delay=True
        )

    def run_started(self, event: RunStarted) -> None:
        self._write("run started", run=event.run, sandbox=event.sandbox, rows=event.rows)

    def attempt_failed(self, event: AttemptFailed) -> None:
        failure = event.failure
        self._write(
            "attempt failed",
            attempt=event.attempt,
            code=failure.code,
            status=failure.status,
            message=failure.message,
            billed=failure.billing,
            retry_after=failure.retry_after,
            final=event.final,
        )

    def adjusted(self, event: RunAdjusted) -> None:
        self._write("run adjusted", author=event.author, settings=event.settings, refused=event.refused)

    def worker_joined(self, worker: Worker) -> None:
        self._write("worker joined", worker=worker.name)

    def worker_left(self, worker: Worker, why: str) -> None:
        self._write(
            "worker left", worker=worker.name, why=why, requests=worker.ended, in_flight=worker.in_flight
        )

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None:
        self._write("run ended", run=run, **summary)

    def run_failed(self, run: int, error: BatchrunError) -> None:
        self._write("run failed", run=run, exit_code=error.exit_code, reason=str(error))

    def close(self) -> None:
        with suppress(OSError):
            self._handler.close()

    def _write(self, event: str, **fields: Any) -> None:
        line = msgspec.json.encode({"at": instant(milliseconds()), "event": event, **fields}).decode()
        self._handler.handle(logging.makeLogRecord({"msg": line}))


def check_log(path: Path) -> None:
    """Raises OutputError or StorageError if a log can't be written to `path`."""
    try:
        os.close(os.open(path, _APPEND, 0o600))
    except OSError as error:
        raise unwritable(f"The log {path} can't be written: {cause_of(error)}.", error) from None


class _PrivateHandler(RotatingFileHandler):
    """Writes for the owner alone. Ignores failures to write: only the journal counts."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, _APPEND, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        pass
