"""Processes that a run has started with batchrun's own code: their command, messages, and errors.

A message is bytes behind their length, over a socket pair.
"""

import errno
import socket
import sys
from pathlib import Path
from struct import Struct

import msgspec

from batchrun import errors
from batchrun.errors import BatchrunError

_SIZE = Struct("!Q")
_HOME = str(Path(__file__).parents[2])
"""The folder, or the zip file, that this batchrun was imported from."""


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Says why what was asked for isn't done. `kind` is the class of a BatchrunError, empty for a fault of
    batchrun itself."""

    kind: str
    text: str


class ChildFaultError(Exception):
    """batchrun itself failed in a process that the run has started."""


def failed(error: BatchrunError) -> Failed:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return Failed(kind, str(error))


def error_of(failed: Failed) -> BatchrunError | ChildFaultError:
    """Returns the error that the process has had."""
    kind = getattr(errors, failed.kind, None) if failed.kind else None
    if isinstance(kind, type) and issubclass(kind, BatchrunError):
        return kind(failed.text)
    return ChildFaultError(failed.text)


def python_command(module: str, *arguments: str) -> list[str]:
    """Returns the command that calls `main` of a module of batchrun in a new interpreter.

    It finds batchrun where this one was found, and all else where this interpreter looks for it, except in
    the current folder (""), whose files may have names of libraries. Raises OSError where the program that
    runs is no Python interpreter, as in an executable that PyInstaller has made.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError(errno.ENOEXEC, "the running program has Python built in, and can't start another one")
    path = [*(each for each in sys.path if isinstance(each, str) and each), _HOME]  # as `import` takes them
    begin = (
        f"import sys; sys.path[:] = {[_HOME, *path]!a}; import batchrun; del sys.path[0];"
        f" from {module} import main; main()"
    )
    return [sys.executable, "-P", "-c", begin, *arguments]


def send(link: socket.socket, content: bytes) -> None:
    """Raises OSError where nobody reads any more."""
    link.sendall(_SIZE.pack(len(content)) + content)


def received(link: socket.socket) -> bytearray:
    """Returns the next message. Raises EOFError where the link ends before it is whole, and OSError."""
    (size,) = _SIZE.unpack(_read(link, _SIZE.size))
    return _read(link, size)


def _read(link: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        got = link.recv_into(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return content
