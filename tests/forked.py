"""`batchrun ...` as a process forked from one that has imported batchrun: about a second of CPU sooner.

It is a process like any other, with its own pid, streams, environment, folder and signals, and a child of the
process that runs the tests. Only the start of the interpreter is shared: see fork_server.
"""

import atexit
import ctypes
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): a process whose parent has ended becomes a child of this one."""


class BatchrunProcess(subprocess.Popen[Any]):
    """`Popen` of `python -m batchrun` with these arguments; options: Popen's for streams, text, cwd and env.

    A plain one elsewhere than on Linux, where BATCHRUN_FORK is "0" (`make prove`), and where the environment
    has settings of its own for the interpreter.
    """

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        super().__init__([sys.executable, "-m", "batchrun", *arguments], **options)

    def _execute_child(self, *given: Any) -> None:
        """Overrides the step of Popen that starts the process; the pipes are there."""
        (_, _, _, *arguments), cwd, handles = given[0], given[5], given[10:16]
        environment = dict(os.environ if given[6] is None else given[6])
        if not can_fork(environment):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        inner = handles[0], handles[3], handles[5]
        streams = [number if handle == -1 else handle for number, handle in enumerate(inner)]
        command = {"arguments": arguments, "folder": str(cwd or Path.cwd()), "environment": environment}
        self.pid = fork(command, streams)
        self._child_created = True
        self._close_pipe_fds(*handles)  # type: ignore[attr-defined]


def can_fork(environment: Mapping[str, str]) -> bool:
    same_start = _for_the_interpreter(environment) == _for_the_interpreter(os.environ)
    return sys.platform == "linux" and os.environ.get("BATCHRUN_FORK") != "0" and same_start


def _for_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    names = {name for name in environment if name.startswith(("PYTHON", "LC_", "LANG", "LD_"))}
    return {name: environment[name] for name in names - {"PYTHONUNBUFFERED"}}


def fork(command: Mapping[str, Any], streams: Sequence[int]) -> int:
    """Has a server fork a process for the command; returns its pid."""
    server = next(_servers())
    socket.send_fds(server, [json.dumps(command).encode()], streams)
    return int(server.recv(32))


@cache
def _servers() -> Iterator[socket.socket]:
    """Two servers in turns, so that two commands in a row differ in the seed of their hashes."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return itertools.cycle([_server(), _server()])


def _server() -> socket.socket:
    """A connection to a new server, which ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(its.fileno())],
            pass_fds=[its.fileno()],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
        )

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours
