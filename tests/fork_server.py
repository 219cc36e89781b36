"""Imports all of batchrun, then forks `batchrun ...` for each request: python -m tests.fork_server SOCKET

A request is a datagram with {"arguments", "folder", "environment"} and the descriptors of the three standard
streams; the response is the pid. Used by tests.forked.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn, TextIO, cast

import batchrun
from batchrun.cli import main as batchrun_command

_IMPORTED_BY_FUNCTIONS = (
    "_strptime",
    "anyio._backends._asyncio",
    "encodings.utf_8_sig",
    "jsonschema_rs",
    "pandas",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "rich.live",
    "rich.progress",
    "scipy.special",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_all()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        command = _serve(requests)
    if command is not None:
        _become(command)
        try:
            batchrun_command()
        except SystemExit as end:
            _exit(end)


def _import_all() -> None:
    modules = [module.name for module in pkgutil.walk_packages(batchrun.__path__, "batchrun.")]
    for name in [*modules, *_IMPORTED_BY_FUNCTIONS]:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Returns the command in each forked process, and None in the server at the end of the connection."""
    while True:
        request, streams, _, _ = socket.recv_fds(requests, 1 << 18, 3)
        if not request:
            return None
        if not _forked(requests):
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            command: dict[str, Any] = json.loads(request)
            return command
        for stream in streams:
            os.close(stream)


def _forked(requests: socket.socket) -> bool:
    """Whether this is the server still. Forks twice: the process that runs the tests adopts orphans, so it is
    the new one's parent by the time at which it gets the pid.
    """
    reads, writes = os.pipe()
    if not os.fork():
        if pid := os.fork():
            os.write(writes, str(pid).encode())
            os._exit(0)
        os.close(reads)
        os.close(writes)
        return False
    os.close(writes)
    pid_text = os.read(reads, 32)
    os.close(reads)
    os.wait()
    requests.send(pid_text)
    return True


def _become(command: dict[str, Any]) -> None:
    """Sets up what the interpreter would at its start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    time.tzset()
    sys.argv = ["batchrun", *command["arguments"]]
    sys.stdin = _stream(0, "r", sys.stdin)
    sys.stdout = _stream(1, "w", sys.stdout, by_line=os.isatty(1))
    sys.stderr = _stream(2, "w", sys.stderr, by_line=True)


def _stream(number: int, mode: str, old: TextIO, *, by_line: bool = False) -> TextIO:
    buffering = 1 if by_line else -1
    return cast("TextIO", open(number, mode, buffering, old.encoding, old.errors, closefd=False))


def _exit(end: SystemExit) -> NoReturn:
    """The interpreter's end, but for taking all modules apart: most of the time of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        raise end from None
    os._exit(end.code if isinstance(end.code, int) else 0)


if __name__ == "__main__":
    main()
