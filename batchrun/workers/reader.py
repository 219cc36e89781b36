"""A process that reads the rows of a run with workers: the run's end of it, and what the two say.

Messages are msgpack behind their length, over a pair of sockets. The process is ahead by what the sockets
hold, and by one chunk of rows.
"""

import pickle
import signal
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from batchrun.errors import StorageError
from batchrun.job.spec import Job
from batchrun.journal.child import Failed, error_of, python_command, received, send
from batchrun.rows.active import Row
from batchrun.rows.dataset import Dataset
from batchrun.rows.observer import RowsScanned
from batchrun.rows.selection import Scanned
from batchrun.tables.locations import InputState, input_state
from batchrun.workers.local import start_logged

LEAST_ROWS = 20_000
"""With fewer rows, the start of a process takes more CPU time than it spares the run's own."""
NOTHING = RowsScanned(0, 0, 0, 0)
STOP = b"s"
"""What the run sends before it closes its end. Without it, the run's process is gone."""
_ENDING_SECONDS = 2.0


class Seen(NamedTuple):
    """What an opened input looks like, and all else that determines its requests."""

    files: tuple[str, ...]
    state: InputState
    schema: str
    made_of: bytes


def seen(dataset: Dataset) -> Seen:
    table = dataset.table
    return Seen(table.files, input_state(table.files), str(table.schema), dataset.digest_cache.made_of)


class Task(NamedTuple):
    """What is to be read. `asks_again_before` is as in a `Labelling`."""

    job: Job
    sandbox: bool
    seen: Seen
    journal: Path
    asks_again_before: int


class Rows(msgspec.Struct, frozen=True, tag=True, array_like=True):
    counts: RowsScanned
    rows: list[Row]


class Unlike(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The input that the process can open is not the one that the run has opened."""


class Over(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """All rows have been read."""


Message = Rows | Failed | Unlike | Over
encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def pays(dataset: Dataset) -> bool:
    """Returns whether a process is to read the rows. It opens the input by itself, as the job names it."""
    job, table = dataset.job, dataset.table
    large = table.row_count is not None and table.row_count >= LEAST_ROWS
    return job.workers is not None and not job.request.free_tier and table.in_place and large


@contextmanager
def reader_process(environment: Mapping[str, str], log: Path) -> Iterator["Reader"]:
    """Runs the process during the block; what it prints is appended to `log`. Raises OSError."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = start_logged(
                python_command("batchrun.workers.reader_process"), environment, log, theirs.fileno()
            )
        reader = Reader(ours, process, log)
        try:
            yield reader
        finally:
            reader.interrupt()
            reader.wait()


class Reader:
    """The run's end of the process."""

    def __init__(self, link: socket.socket, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._link = link
        self._process = process
        self._log = log
        self._interrupted = False

    def scan(self, task: Task, here: Callable[[], Iterator[Scanned]]) -> Generator[Scanned, None, None]:
        """Yields the scanned rows, of `here` if the process can't open the input as it was opened here.

        Has no more rows once the run is stopped. Raises what reading them here would raise, and StorageError
        if the process is lost.
        """
        with suppress(OSError):  # what is wrong is known when nothing comes back
            send(self._link, pickle.dumps(task))
        while not isinstance(said := self._next(), Over):
            match said:
                case Rows(counts, rows):
                    yield counts, rows
                case Unlike():
                    yield from here()
                    return
                case Failed():
                    raise error_of(said)

    def interrupt(self) -> None:
        """Ends the process, at the end of what it is doing. Any thread may call it, a signal handler too."""
        self._interrupted = True
        with suppress(OSError):
            self._link.send(STOP, socket.MSG_DONTWAIT)
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def wait(self) -> int:
        """Waits for the end of the process; returns its exit code."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_ENDING_SECONDS)
        self._process.kill()
        return self._process.wait()

    def _next(self) -> Message:
        try:
            content = received(self._link)
        except (OSError, EOFError):
            if self._interrupted:  # the run has been told, and begins no more rows
                return Rows(NOTHING, [])
            raise self._lost() from None
        said: Message = _decode(content)
        return said

    def _lost(self) -> StorageError:
        code = self.wait()
        why = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return StorageError(
            f"The process that reads the input {why}. What it printed, if anything, is in {self._log}.\n"
            "Answers so far are safe in the journal; the same command continues."
        )
