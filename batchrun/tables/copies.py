"""Temporary copies of inputs that can't be read again and again in place, such as the file in an archive.

A copy has no name, so it is gone when the process is, however that ends. All passes over the input read the
same copy.
"""

import io
import lzma
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import InputError, cause_of, unwritable
from batchrun.tables.locations import Location


@dataclass(frozen=True)
class CopiedLocation(Location):
    """A file whose bytes are read from `copy`. Its own path is that of the original."""

    copy: "_Copy"

    def open_stream(self) -> pa.NativeFile:
        """Opens the copy's bytes from the beginning, decompressed."""
        if self.compression == "xz":  # Arrow has no codec for it
            return pa.PythonFile(lzma.open(io.BufferedReader(_CopyReader(self.copy))), "r")
        file = self.open_file()
        return file if self.compression is None else pa.CompressedInputStream(file, self.compression)

    def open_file(self) -> pa.NativeFile:
        """Opens the copy's bytes as stored, with random access."""
        return pa.PythonFile(_CopyReader(self.copy), "r")


class _Copy:
    """The descriptor of a temporary file, closed once neither its location nor a reader needs it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.descriptor)


class _CopyReader(io.RawIOBase):
    """Reads a file at a place of its own, so that several readers share one descriptor."""

    def __init__(self, copy: _Copy) -> None:
        self._copy = copy
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = os.pread(self._copy.descriptor, len(buffer), self._place)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self._copy.descriptor).st_size
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def copied(
    name: str,
    kind: tuple[str, str | None],
    write: Callable[[IO[bytes]], None],
    folder: Path | None,
) -> CopiedLocation:
    """Returns the location of what `write` writes, in the format and compression `kind`.

    Messages call it `name`. The copy is a temporary file in `folder`. Raises StorageError where it has no
    room there, InputError where it is empty.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            write(file)
            file.flush()
            copy = _Copy(file)
    except OSError as error:
        place = folder or tempfile.gettempdir()
        raise unwritable(
            f"{name}: {place} can't hold its temporary copy: {cause_of(error)}. "
            "Make room, or name another folder in output.scratch",
            error,
            InputError,
        ) from error
    size = os.fstat(copy.descriptor).st_size
    if not size:
        raise InputError(f"{name} is empty (0 bytes)")
    return CopiedLocation(name, name, fs.LocalFileSystem(), size, *kind, copy=copy)
