"""What happens in a run, as events without prompts, answers or keys; a log of them in JSON lines, rotated."""

import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Protocol

import msgspec

from batchrun.books import milliseconds
from batchrun.errors import OutputError
from batchrun.exchange import Failure
from batchrun.summary import instant

LARGEST_BYTES = 10 * 2**20
OLDER_LOGS = 2

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Listener(Protocol):
    """Who is told of a run's events while it goes on."""

    def __call__(self, event: str, **fields: Any) -> None: ...


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


def telling(*listeners: Listener) -> Listener:
    """One listener in the place of several."""

    def tell(event: str, **fields: Any) -> None:
        for listener in listeners:
            listener(event, **fields)

    return tell


def tell_of_failure(tell: Listener, failure: Failure, attempt: int, final: bool) -> None:
    tell(
        "attempt failed",
        attempt=attempt,
        code=failure.code,
        status=failure.status,
        message=failure.message,
        billed=failure.billed,
        retry_after=failure.retry_after,
        final=final,
    )


def check_log(path: Path) -> None:
    """Raises OutputError where a log can't be written to `path`."""
    try:
        os.close(os.open(path, _APPEND, 0o600))
    except OSError as error:
        raise OutputError(f"The log {path} can't be written: {error.strerror}.") from None


class _PrivateHandler(RotatingFileHandler):
    """For the owner alone. A log that can't be written is passed over: the journal is what counts."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, _APPEND, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        pass
