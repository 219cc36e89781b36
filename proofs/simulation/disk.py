"""The virtual disk: the journal's files, and what a crash leaves of the write that it interrupts.

The files are SQLite's own, in a temporary folder. What a commit has confirmed stays. Of the write that a
crash interrupts, the disk has any part of the bytes, cut anywhere, and perhaps zeros behind the cut, as a
file system leaves them that has written a file's new length but not its content. A checkpoint that a crash
interrupts leaves any mixture of old and new pages.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from batchrun.journal import Journal, create_or_open
from batchrun.journal.write_ahead_log import log_of
from batchrun.runs.run_folder import RunFolder
from proofs.simulation.draw import Draw

PAGE_BYTES = 4096

T = TypeVar("T")


class CrashError(Exception):
    """The process or the machine has died."""


class Files(NamedTuple):
    """The bytes of the database and of its write-ahead log; None where there is no such file."""

    database: bytes | None
    log: bytes | None


class Disk:
    """Keeps one journal through crashes; `folder` is its current place."""

    def __init__(self, root: Path, draw: Draw) -> None:
        self._root = root
        self._draw = draw
        self._places = 0
        self._open: list[Journal] = []
        self.torn = 0
        self.folder = self._next_place()

    def open(self) -> Journal:
        """Opens the journal with batchrun's own function, without waiting for a real disk."""
        journal = create_or_open(self.folder.journal)
        self._open.append(journal)
        journal.connection.execute("PRAGMA synchronous = OFF")
        return journal

    def crash(self) -> None:
        """Ends all connections as a death does: nothing is written any more."""
        self._lay_down(self._files())

    def crash_during(self, write: Callable[[], T]) -> None:
        """Writes, and keeps what a crash before, within or after the write leaves."""
        before = self._files()
        write()
        self._lay_down(self._between(before, self._files()))

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _files(self) -> Files:
        return Files(_bytes(self.folder.journal), _bytes(log_of(self.folder.journal)))

    def _lay_down(self, files: Files) -> None:
        """Continues in a new folder: the old connections would still write when they are closed."""
        place = self._next_place()
        for path, content in zip((place.journal, log_of(place.journal)), files, strict=True):
            if content is not None:
                path.write_bytes(content)
        self.close()
        self.folder = place

    def _next_place(self) -> RunFolder:
        self._places += 1
        path = self._root / f"place-{self._places}"
        path.mkdir()
        return RunFolder(path)

    def _between(self, before: Files, after: Files) -> Files:
        how = self._draw.below(6)
        if how == 0 or before == after:
            return before
        if how == 1:
            return after
        log, new_log = before.log or b"", after.log or b""
        if new_log.startswith(log):
            self.torn += 1
            return after._replace(log=self._torn(log, new_log, zeros=how > 3))
        if not new_log and before.database and after.database:  # a checkpoint, which ends with the log's end
            self.torn += 1
            return before._replace(database=self._mixed(before.database, after.database))
        return before

    def _torn(self, old: bytes, new: bytes, *, zeros: bool) -> bytes:
        kept = len(old) + self._draw.below(len(new) - len(old) + 1)
        return new[:kept] + bytes(len(new) - kept if zeros else 0)

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        """Returns the new pages in place of the old ones, each of them or not."""
        padded = old.ljust(len(new), b"\0")
        pages = range(0, len(new), PAGE_BYTES)
        return b"".join((new if self._draw.below(2) else padded)[at : at + PAGE_BYTES] for at in pages)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
