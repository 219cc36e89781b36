"""The log of the runs of one output: JSON lines, rotated, without prompts, answers or keys."""

import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

from batchrun.books import milliseconds
from batchrun.summary import instant

LARGEST_BYTES = 10 * 2**20
OLDER_LOGS = 2


class RunLog:
    """Appends one JSON object for each event: `at`, `event` and what belongs to it."""

    def __init__(self, path: Path) -> None:
        self._handler = _PrivateHandler(
            path, maxBytes=LARGEST_BYTES, backupCount=OLDER_LOGS, encoding="utf-8", delay=True
        )

    def event(self, event: str, **fields: Any) -> None:
        line = msgspec.json.encode({"at": instant(milliseconds()), "event": event, **fields}).decode()
        self._handler.handle(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        with suppress(OSError):
            self._handler.close()


class _PrivateHandler(RotatingFileHandler):
    """For the owner alone. A log that can't be written is passed over: the journal is what counts."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        pass
