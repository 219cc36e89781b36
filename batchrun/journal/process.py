"""Commits in a process of their own: they cost the run's process neither time nor its interpreter's lock.

The process has the run's locks too: no other run begins before it has ended. It writes the batches that it
is given, one after the other, and ends once the run has shut its socket down, or has died.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from batchrun.errors import JournalError, StorageError
from batchrun.journal.adjustments import Adjustment
from batchrun.journal.child import Failed, error_of, failed, python_command, received, send
from batchrun.journal.commits import Commits, Record, Withdrawal
from batchrun.journal.connection import connect, keep_every_commit, no_longer_written, translated_errors
from batchrun.journal.journal import Journal
from batchrun.journal.place import identity_of, moved
from batchrun.journal.records import Attempt, Intent
from batchrun.journal.samples import Sample
from batchrun.journal.writer import CommitsSomewhere, OpenCommits, commits_here

_ENDING_SECONDS = 2.0
_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


class Write(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """Asks for a transaction with these records."""

    ends: list[Attempt]
    withdrawn: list[int]
    intents: list[Intent]
    adjustments: list[Adjustment]
    samples: list[Sample]
    row_counts: tuple[str, int] | None


class IndexPart(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """Asks for what `Commits.index_digests` does."""

    at_least: int


class Written(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """The transaction is durable, without the refused intents."""

    refused: frozenset[int]


class Indexed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    more: bool


_ORDERS: msgspec.msgpack.Decoder[Write | IndexPart] = msgspec.msgpack.Decoder(Write | IndexPart)
_ANSWERS: msgspec.msgpack.Decoder[Written | Indexed | Failed] = msgspec.msgpack.Decoder(
    Written | Indexed | Failed
)
_encode = msgspec.msgpack.Encoder().encode


def journal_processes_with(descriptor: int) -> Iterator[int]:
    """Yields the processes of this machine that write a journal, and have the descriptor's file open too."""
    file = os.fstat(descriptor)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if __name__.encode() in (process / "cmdline").read_bytes() and any(
                os.path.samestat(file, opened.stat()) for opened in (process / "fd").iterdir()
            ):
                yield int(process.name)


def commits_elsewhere(locks: Sequence[int], environment: Mapping[str, str]) -> OpenCommits:
    """Returns what opens commits in a new process, which inherits the descriptors of the run's `locks`.

    Where no process can be started, this one writes, as without workers.
    """

    def opened(journal: Journal, lost: Callable[[], object]) -> CommitsSomewhere:
        try:
            return JournalProcess(locks, environment, journal, lost)
        except OSError:
            return commits_here(journal, lost)

    return opened


class JournalProcess:
    """The run's side: does what `Commits` does, by asking the process. It is told of its end by `lost`.

    Raises OSError if the process can't be started.
    """

    def __init__(
        self,
        locks: Sequence[int],
        environment: Mapping[str, str],
        journal: Journal,
        lost: Callable[[], object],
    ) -> None:
        self._path = journal.path
        self._said = b""
        self._given_up = False
        self._process, self._link = _started(journal, locks, environment)
        self.process: int | None = self._process.pid
        self._watching = threading.Thread(
            target=self._watch, args=(lost,), name="journal's process", daemon=True
        )
        self._watching.start()

    def write(self, batch: Sequence[Record], row_counts: tuple[str, int] | None = None) -> frozenset[int]:
        answer = self._asked(
            Write(
                [record for record in batch if type(record) is Attempt],
                [int(record) for record in batch if type(record) is Withdrawal],
                [record for record in batch if type(record) is Intent],
                [record for record in batch if type(record) is Adjustment],
                [record for record in batch if type(record) is Sample],
                row_counts,
            )
        )
        return answer.refused if isinstance(answer, Written) else frozenset()

    def index_digests(self, at_least: int = 1) -> bool:
        answer = self._asked(IndexPart(at_least))
        return isinstance(answer, Indexed) and answer.more

    def give_up(self) -> None:
        """Kills the process, and doesn't wait for what it was given: it is frozen, or its disk hangs."""
        self._given_up = True
        self._process.kill()
        self._hang_up()

    def close(self) -> None:
        """Waits for the end of the process."""
        self._hang_up()
        self._wait()
        self._link.close()

    def _asked(self, order: Write | IndexPart) -> Written | Indexed:
        try:
            send(self._link, _encode(order))
            found = _ANSWERS.decode(received(self._link))
        except (OSError, EOFError):
            raise self._has_ended() from None
        if isinstance(found, Failed):
            raise error_of(found)
        return found

    def _watch(self, lost: Callable[[], object]) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout as words:  # read at once: a full pipe would stop the process
            self._said = words.read()
        self._process.wait()
        lost()

    def _hang_up(self) -> None:
        """Lets the process end once it has done what it was given."""
        with suppress(OSError):  # a process that this program has forked off may hold the socket open
            self._link.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        """Waits for the end of the process; if it was killed, only a moment: a disk that hangs keeps it."""
        while self._watching.is_alive():
            self._watching.join(_ENDING_SECONDS)
            if self._given_up:
                return

    def _has_ended(self) -> StorageError:
        self._hang_up()
        self._wait()
        return StorageError(
            f"The process that writes the journal {self._path} {self._why_ended()}.\n"
            "Responses committed so far are safe. Run the same command."
        )

    def _why_ended(self) -> str:
        if self._given_up:
            return f"has not answered, and was killed (process {self.process})"
        code, words = self._process.returncode, self._said.decode(errors="replace").strip().splitlines()
        said = f": {words[-1]}" if words else ""
        return f"was killed by signal {-code}{said}" if code < 0 else f"has ended with exit code {code}{said}"


def _started(
    journal: Journal, locks: Sequence[int], environment: Mapping[str, str]
) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """Returns the process, and the socket to it. Raises OSError."""
    device, inode = journal.identity or (0, 0)
    # The process inherits which signals are blocked. It ends with its run, whoever signals to all processes.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with ExitStack() as after_an_error:
        try:
            ours, theirs = socket.socketpair()
            after_an_error.enter_context(ours)
            with theirs:
                process = subprocess.Popen(  # noqa: S603
                    python_command(__name__, str(journal.path), str(device), str(inode)),
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    pass_fds=tuple(locks),
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        after_an_error.pop_all()
        return process, ours


def main() -> NoReturn:
    """Serves the run that has started this process until it shuts the socket down."""
    path, identity = Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))
    link = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    commits: Commits | None = None
    with suppress(ConnectionError, EOFError):  # the run is over: what it had given is written
        while True:
            order = received(link)
            answer: Written | Indexed | Failed
            try:
                commits = commits or _opened(path, identity)
                answer = _done(commits, _ORDERS.decode(order))
            except (JournalError, StorageError) as error:
                answer = failed(error)
            except Exception as error:
                answer = failed(no_longer_written(path, error))
            send(link, _encode(answer))
    # Without closing the journal: a last connection would copy its log first, and hold the lock meanwhile.
    os._exit(0)


def _opened(path: Path, identity: tuple[int, int]) -> Commits:
    if identity_of(path) != identity:
        raise moved(path)
    with translated_errors(path):
        connection = connect(path, "rw")
        keep_every_commit(connection)
    if identity_of(path) != identity:
        raise moved(path)
    return Commits(connection, path)


def _done(commits: Commits, order: Write | IndexPart) -> Written | Indexed:
    if isinstance(order, IndexPart):
        return Indexed(commits.index_digests(order.at_least))
    withdrawn = map(Withdrawal, order.withdrawn)
    records: list[Record] = [*order.ends, *withdrawn, *order.intents, *order.adjustments, *order.samples]
    return Written(commits.write(records, order.row_counts))
