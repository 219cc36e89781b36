"""`batchrun` for a shell: a small script, which has tests.forked start the command."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from tests.forked import can_fork, fork

_SCRIPT = """\
#!{python} -IS
import json, os, socket, sys
command = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tests:
    tests.connect({address!r})
    socket.send_fds(tests, [json.dumps(command).encode()], [0, 1, 2])
    sys.exit(int(tests.recv(32)))
"""


@contextmanager
def folder_with_batchrun() -> Iterator[Path]:
    """A folder for a PATH, whose `batchrun` is forked; where that can't be done, the installed one."""
    if not can_fork(os.environ):
        yield Path(sys.executable).parent
        return
    with tempfile.TemporaryDirectory() as name, _listening(f"{name}/tests") as address:
        script = Path(name) / "batchrun"
        script.write_text(_SCRIPT.format(python=sys.executable, address=address))
        script.chmod(0o755)
        yield Path(name)


@contextmanager
def _listening(address: str) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        thread = Thread(target=_start_commands, args=(listening,))
        thread.start()
        try:
            yield address
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _start_commands(listening: socket.socket) -> None:
    """Until the socket is shut down. Commands of a pipe run at the same time."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            request, streams, _, _ = socket.recv_fds(connection, 1 << 18, 3)
            pid = fork(json.loads(request), streams)
            for stream in streams:
                os.close(stream)
            Thread(target=_tell_the_end, args=(connection, pid)).start()


def _tell_the_end(connection: socket.socket, pid: int) -> None:
    with connection, suppress(OSError):
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        connection.send(str(code if code >= 0 else 128 - code).encode())
