"""Finds the input files of a path, a glob or a URL, and opens them as bytes."""

import difflib
import fnmatch
import glob
import lzma
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import InputError
from batchrun.tables.endings import COMPRESSED, READ, TEXT_FORMATS, format_of
from batchrun.tables.near_paths import did_you_mean
from batchrun.tables.object_store import filesystem_of
from batchrun.text import cause, first_line, in_another_form, without_secrets

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WILDCARD = re.compile(r"[*?\[]")


InputState = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Location:
    """One input file. `name` is its name in messages; `path` is its path inside `filesystem`."""

    name: str
    path: str
    filesystem: fs.FileSystem
    size: int
    format: str
    compression: str | None

    def open_stream(self) -> pa.NativeFile:
        """Opens the file's bytes from the beginning, decompressed."""
        if self.compression == "xz":  # Arrow has no codec for it
            return pa.PythonFile(
                lzma.open(self.filesystem.open_input_stream(self.path, compression=None)), "r"
            )
        return self.filesystem.open_input_stream(self.path, compression=self.compression)

    def open_file(self) -> pa.NativeFile:
        """Opens the file's bytes as stored, with random access."""
        return self.filesystem.open_input_file(self.path)


def scheme_of(path: str) -> str | None:
    """Returns the URL scheme in lower case, or None where `path` is a path in the file system."""
    match = _SCHEME.match(path)
    return match.group()[:-3].lower() if match else None


def input_state(files: Sequence[str]) -> InputState:
    """Returns inode, size and time, which reveal a changed file; None where it has none."""
    return tuple(map(_state, files))


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except (OSError, ValueError):
        return None  # a URL, a table in memory
    return found.st_ino, found.st_size, found.st_mtime_ns


def find_locations(path: str, base: Path, endpoint_url: str | None = None) -> tuple[Location, ...]:
    """Returns the files of `path`, sorted by name.

    `path` is relative to `base`, absolute, a glob, or a URL of `endings.ARROW_SCHEMES`. Raises
    InputError when there is no such file, and when one is a folder, empty or of an unknown kind.
    """
    try:
        _check_path(path)
        return _find_locations(path, base, endpoint_url)
    except OSError as error:
        raise InputError(f"{path[:60]}: {error.strerror}") from None


def _check_path(path: str) -> None:
    if "\0" in path:
        raise InputError("the path of the input holds a null character")
    try:
        path.encode()
    except UnicodeEncodeError:  # Arrow takes UTF-8 paths only
        raise InputError(f"{path!a}: the path of the input holds bytes that are not UTF-8") from None


def _find_locations(path: str, base: Path, endpoint_url: str | None) -> tuple[Location, ...]:
    if scheme_of(path):
        return _remote_locations(path, endpoint_url)
    if PurePath(path).name == "-":
        raise InputError(
            "stdin can't be the input, which is read more than once. Save it to a file, and name that"
        )
    full = base / Path(path).expanduser()
    if not full.exists() and _WILDCARD.search(path):
        # Path.glob would match hidden files too.
        found = glob.glob(_pattern(full), recursive=True)  # noqa: PTH207
        names = sorted(name for name in found if Path(name).is_file())
        if not names:
            raise InputError(f"{full}: no file matches this pattern")
    else:
        names = [str(full)]
        here = Path(path).absolute()
        if not full.exists() and here.is_file():
            raise InputError(f"{full}: no such file; did you mean {here}? Paths are relative to the job file")
    local = fs.LocalFileSystem()
    return tuple(_location(name, str(Path(name).absolute()), local) for name in names)


def _pattern(path: Path) -> str:
    """Returns the glob with existing folders escaped: special characters in their names are literal."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    return str(Path(glob.escape(str(folder)), *path.parts[len(folder.parts) :]))


def _remote_locations(url: str, endpoint_url: str | None) -> tuple[Location, ...]:
    shown = without_secrets(url)
    try:
        filesystem, path = filesystem_of(url, endpoint_url)
        if not _WILDCARD.search(path):
            return (_location(shown, path, filesystem),)
        folder = path.rpartition("/")[0]
        if _WILDCARD.search(folder):
            raise InputError(f"{shown}: in a URL, wildcards may stand in the last part only")
        listed = filesystem.get_file_info(fs.FileSelector(folder))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{shown}: {cause(error, url)}") from error
    paths = sorted(info.path for info in listed if info.is_file and fnmatch.fnmatchcase(info.path, path))
    if not paths:
        raise InputError(f"{shown}: no object matches this pattern")
    root = shown.removesuffix(path)
    return tuple(_location(root + found, found, filesystem) for found in paths)


def _location(name: str, path: str, filesystem: fs.FileSystem) -> Location:
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(f"{name}: {first_line(error)}") from error
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{path}: no such file{_hint(path, filesystem)}")
    if info.type == fs.FileType.Directory:
        raise InputError(f"{name} is a folder. Name a file, or a pattern such as {path}/*.parquet")
    if info.type != fs.FileType.File:
        raise InputError(f"{name} is not a regular file; the input is read more than once")
    kind, compression = format_of(name)
    if info.size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    return Location(name, path, filesystem, info.size or 0, kind, compression)


def _hint(path: str, filesystem: fs.FileSystem) -> str:
    """Returns the file that may be meant; without one, that the folder is missing too."""
    folder, _, name = path.rpartition("/")
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    try:
        listed = filesystem.get_file_info(fs.FileSelector(folder or "/"))
    except OSError:
        near = did_you_mean(Path(path)) if is_local else ""
        return near or f". There is no folder {folder} either"
    names = [info.base_name for info in listed if info.is_file]
    same = in_another_form(name, names)
    if same is not None:
        return (
            f". In that folder, {same} looks the same in other characters: {same!a} (Unicode's NFC and NFD)"
        )
    if is_local:
        return did_you_mean(Path(path))
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


@contextmanager
def reading(location: Location, advice: str = "") -> Iterator[None]:
    """Turns errors of Arrow and the system into an InputError that names the file."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{location.name}: permission denied. Make it readable for this user") from error
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        raise InputError(f"{location.name} ({location.size:,} bytes): {first_line(error)}{advice}") from error


def lines(location: Location, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yields the physical lines with their line ends (LF, CRLF or CR), without a byte order mark."""
    with location.open_stream() as stream:
        rest = stream.read(chunk_bytes)
        rest = rest.removeprefix(b"\xef\xbb\xbf")
        while chunk := stream.read(chunk_bytes):
            *whole, rest = _split_lines(rest, chunk)
            yield from whole
        yield from rest.splitlines(keepends=True)


def _split_lines(rest: bytes, chunk: bytes) -> list[bytes]:
    """Returns the complete lines of `rest + chunk`, and the remainder, which may be incomplete.

    A trailing CR stays in the remainder, because its LF may be in the next chunk.
    """
    if b"\n" not in chunk and b"\r" not in chunk:
        return [rest + chunk]
    split = (rest + chunk).splitlines(keepends=True)
    return split if not split[-1].endswith(b"\n") else [*split, b""]


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"PAR1": "parquet",
    b"PARE": "encrypted parquet",
    b"ARROW1": "ipc",
    b"FEA1": "Feather version 1",
}
"""Formats and compressions by their first bytes."""


_BINARY = ("parquet", "ipc", "zip", "workbook")


def check_content(location: Location) -> None:
    """Raises InputError where a file's first bytes contradict its ending."""
    with reading(location), location.open_file() as file:
        begin = file.read(8)
    if location.format == "workbook" and begin.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return
    may_be_text = location.compression is None and location.format in TEXT_FORMATS
    is_text = may_be_text and begin.isascii() and begin.decode().isprintable()
    found = (
        None if is_text else next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)
    )
    expected = location.compression or (location.format if location.format in _BINARY else None)
    if found == expected or (found is None and expected not in COMPRESSED.values()):
        return
    name = location.name
    match found:
        case "encrypted parquet":
            advice = "is an encrypted Parquet file, which can't be read. Write it without encryption"
        case "Feather version 1":
            advice = "is a Feather file of version 1. Write it again: version 2 is Arrow IPC"
        case "zip":
            advice = "is a zip archive, as an Excel workbook is too. Give it the ending .zip or .xlsx"
        case None:
            advice = f"is not {expected}, whatever its name says"
        case _:
            ending = next(ending for ending, kind in (COMPRESSED | READ).items() if kind == found)
            advice = f"is {found} by its content, whatever its name says. Give it the ending {ending}"
    raise InputError(f"{name} {advice}")
