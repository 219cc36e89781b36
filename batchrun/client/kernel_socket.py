"""Writes to and peeks at the socket under an event loop's transport, bypassing the loop.

This shows whether the kernel took a byte, and which bytes it holds that the loop has not read yet.
"""

import asyncio
import os
import select
from collections.abc import Iterator

_MOST_READ = 65_536
_MOST_PIECES = 256


class KernelSocket:
    """Writes straight to the kernel while the transport has nothing left to write.

    Writes through the transport where that has no socket of its own, or the system has no poll.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._descriptor = -1
        self._poll: select.poll | None = None
        connected = transport.get_extra_info("socket")
        if connected is not None and hasattr(select, "poll"):
            self._descriptor = connected.fileno()
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)

    def write(self, data: bytes) -> bool:
        """Writes `data`, the rest that the kernel doesn't take through the loop. Returns whether it took all.

        Raises OSError where the kernel took nothing and never will.
        """
        if self._descriptor < 0 or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return self._transport.get_write_buffer_size() == 0
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            written = 0
        if written < len(data):
            self._transport.write(data[written:])
        return written == len(data)

    def is_writing(self) -> bool:
        """Whether the loop still has bytes to write."""
        return self._transport.get_write_buffer_size() > 0

    def unread(self) -> bytes | None:
        """Returns what the kernel holds: bytes, b"" for the end of the connection, None for nothing."""
        if self._poll is None or not self._poll.poll(0):
            return None
        try:
            return os.read(self._descriptor, _MOST_READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def unread_pieces(self) -> Iterator[bytes]:
        """Yields what the kernel holds until it holds nothing, bounded where the server sends on."""
        for _ in range(_MOST_PIECES):
            if not (data := self.unread()):
                return
            yield data
