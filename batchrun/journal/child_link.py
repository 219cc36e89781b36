"""Messages between a run and a process that it has started: bytes behind their length, over a socket pair."""

import socket
from struct import Struct

_SIZE = Struct("!Q")


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
