"""The process that reads a run's rows: it calls `main`, with a socket as its stdin."""

import os
import pickle
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from batchrun.errors import BatchrunError
from batchrun.journal import open_for_reading
from batchrun.journal.child import Failed, failed, received, send
from batchrun.rows.active import Row
from batchrun.rows.dataset import Dataset, keeping_digests, open_dataset
from batchrun.rows.history import with_caps_seen
from batchrun.rows.observer import RowsScanned
from batchrun.rows.selection import scan
from batchrun.workers.reader import (
    NOTHING,
    Message,
    Over,
    Rows,
    Task,
    Unlike,
    encode,
    seen,
)

_MESSAGE_BYTES = 2**20
"""A message ends with the body that passes this: those of a chunk may be images."""


class _RunIsOverError(Exception):
    """Nobody reads any more."""


def main() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it ends
    with socket.socket(fileno=0) as link, suppress(OSError, EOFError):
        task = pickle.loads(received(link))  # noqa: S301 - by the process that has started this one
        threading.Thread(target=_end_with_the_run, args=(link,), daemon=True).start()
        serve(task, partial(send, link))


def _end_with_the_run(link: socket.socket) -> None:
    """Ends the process at once if the run is killed; one that says good-bye lets the digest cache be kept."""
    with suppress(OSError):
        if link.recv(1):
            return
    os._exit(0)


def serve(task: Task, tell_run: Callable[[bytes], object]) -> None:
    """Reads all rows; `tell_run` raises OSError once nobody wants them any more."""

    def tell(content: Message) -> None:
        try:
            tell_run(encode(content))
        except OSError:
            raise _RunIsOverError from None

    with suppress(_RunIsOverError):
        try:
            tell(_read(task, tell))
        except BatchrunError as error:
            tell(failed(error))
        except Exception:
            tell(Failed("", traceback.format_exc()))


def _read(task: Task, tell: Callable[[Message], None]) -> Over | Unlike:
    dataset = _opened(task)
    if dataset is None:
        return Unlike()
    with closing(open_for_reading(task.journal)) as journal:
        caps_seen = with_caps_seen(dataset.labelling, journal)
        labelling = replace(caps_seen, asks_again_before=task.asks_again_before)
        with closing(scan(dataset, journal, labelling)) as scanned:
            for counts, rows in scanned:
                for part in _parts(counts, rows):
                    tell(part)
    return Over()


def _opened(task: Task) -> Dataset | None:
    """Opens the input; None if it isn't what the run has opened. The run reads then, and names the cause."""
    with suppress(BatchrunError):
        dataset = open_dataset(task.job, sandbox=task.sandbox)
        if seen(dataset) == task.seen:
            return keeping_digests(dataset)
    return None


def _parts(counts: RowsScanned, rows: Sequence[Row]) -> Iterator[Rows]:
    """Yields a chunk of rows in messages. The counts come with its last rows."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row.request.body)
        if size >= _MESSAGE_BYTES:
            yield Rows(NOTHING, part)
            part, size = [], 0
    yield Rows(counts, part)
