"""Lines on a terminal that the next ones replace, also after the terminal was resized."""

import os
import shutil
from collections.abc import Sequence
from threading import Lock
from typing import TextIO

from rich.cells import cell_len, set_cell_size

ERASE = "\r\x1b[2K"
UP_AND_ERASE = "\x1b[1A\x1b[2K"


class InPlace:
    """Shows lines above the cursor, which stays at the start of the line below them: what the terminal
    echoes there, such as ^C, is erased with them and makes no line longer.

    Other threads may call it. All methods raise OSError where the terminal is closed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: list[str] = []
        self._columns = 0
        self._lock = Lock()

    @property
    def columns(self) -> int:
        """Returns the terminal's present width."""
        return self._size()[0]

    def _size(self) -> tuple[int, int]:
        """Returns the terminal's present columns and rows."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, rows = shutil.get_terminal_size()
        return columns or 80, rows or 24

    def show(self, lines: Sequence[str]) -> None:
        """Replaces the lines. One that is too long for the terminal is cut, and of more than it has room for
        the ones before the last are left out: what has left the screen can't be erased.
        """
        with self._lock:
            columns, rows = self._size()
            shown = lines if len(lines) < rows else [*lines[: max(rows - 2, 0)], lines[-1]]
            fitting = [_cut(line, columns) for line in shown]
            if (fitting, columns) != (self._shown, self._columns):
                self._write(self._erased(columns), fitting)
                self._shown, self._columns = fitting, columns

    def say(self, line: str) -> None:
        """Prints a line above the others, which stays."""
        with self._lock:
            self._write(f"{self._erased(self.columns)}{line}\n", self._shown)

    def clear(self) -> None:
        """Removes the lines."""
        with self._lock:
            self._write(self._erased(self.columns), [])
            self._shown = []

    def _erased(self, columns: int) -> str:
        """Returns what erases the lines. A terminal that became narrower has broken the longer ones.

        Row by row: tmux takes a screen that is erased as a whole into its history.
        """
        rows = sum(max(1, -(-cell_len(line) // columns)) for line in self._shown)
        return f"{ERASE}{UP_AND_ERASE * rows}" if rows else ""

    def _write(self, before: str, lines: Sequence[str]) -> None:
        self._stream.write(before + "".join(f"{line}\n" for line in lines))
        self._stream.flush()


def _cut(line: str, columns: int) -> str:
    return line if cell_len(line) <= columns else f"{set_cell_size(line, columns - 1)}…"
