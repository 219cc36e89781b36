"""Where input lies: finds the files behind a path, a glob or a URL, and opens them as bytes."""

import difflib
import fnmatch
import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import InputError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_TEXT_FORMATS = {"csv", "tsv", "jsonl"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Location:
    """One input file. `name` is what messages call it; `path` is its path inside `filesystem`."""

    name: str
    path: str
    filesystem: fs.FileSystem
    size: int
    format: str
    compression: str | None

    def open_stream(self) -> pa.NativeFile:
        """The file's bytes from the beginning, decompressed."""
        return self.filesystem.open_input_stream(self.path, compression=self.compression)

    def open_file(self) -> pa.NativeFile:
        """The file's bytes as stored, with random access."""
        return self.filesystem.open_input_file(self.path)


def scheme_of(path: str) -> str | None:
    """The URL scheme in lower case, or None where `path` is a path in the file system."""
    match = _SCHEME.match(path)
    return match.group()[:-3].lower() if match else None


def format_of(name: str) -> tuple[str, str | None]:
    """Format and compression that the ending of `name` says; InputError for an unknown ending."""
    stem, compression = name.lower(), None
    for ending, codec in COMPRESSIONS.items():
        if stem.endswith(ending):
            stem, compression = stem.removesuffix(ending), codec
    kind = next((kind for ending, kind in FORMATS.items() if stem.endswith(ending)), None)
    if kind is None:
        known = " ".join(FORMATS)
        raise InputError(f"{name}: unknown kind of table. Known endings: {known}; text also with .gz or .zst")
    if compression and kind not in _TEXT_FORMATS:
        raise InputError(f"{name}: compressed {kind} files can't be read in place. Unpack it first")
    return kind, compression


def find_locations(path: str, base: Path) -> tuple[Location, ...]:
    """The files that `path` means, sorted by name.

    `path` is relative to `base`, absolute, a glob, or a URL that Arrow has a file system for. Raises
    InputError when there is no such file, and when one is a folder, empty or of an unknown kind.
    """
    if scheme_of(path):
        return _remote_locations(path)
    full = base / Path(path).expanduser()
    if not full.exists() and _WILDCARD.search(path):
        # Path.glob would take hidden files too.
        found = glob.glob(str(full), recursive=True)  # noqa: PTH207
        names = sorted(name for name in found if Path(name).is_file())
        if not names:
            raise InputError(f"{full}: no file matches this pattern")
    else:
        names = [str(full)]
    local = fs.LocalFileSystem()
    return tuple(_location(name, str(Path(name).absolute()), local) for name in names)


def _remote_locations(url: str) -> tuple[Location, ...]:
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
        if not _WILDCARD.search(path):
            return (_location(url, path, filesystem),)
        folder = path.rpartition("/")[0]
        if _WILDCARD.search(folder):
            raise InputError(f"{url}: in a URL, wildcards may stand in the last part only")
        listed = filesystem.get_file_info(fs.FileSelector(folder))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{url}: {_first_line(error)}") from error
    paths = sorted(info.path for info in listed if info.is_file and fnmatch.fnmatchcase(info.path, path))
    if not paths:
        raise InputError(f"{url}: no object matches this pattern")
    root = url.removesuffix(path)
    return tuple(_location(root + found, found, filesystem) for found in paths)


def _location(name: str, path: str, filesystem: fs.FileSystem) -> Location:
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(f"{name}: {_first_line(error)}") from error
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{path}: no such file{_near_names(path, filesystem)}")
    if info.type == fs.FileType.Directory:
        raise InputError(f"{name} is a folder. Name a file, or a pattern such as {path}/*.parquet")
    if info.type != fs.FileType.File:
        raise InputError(f"{name} is no regular file; the input is read more than once")
    kind, compression = format_of(name)
    if info.size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    return Location(name, path, filesystem, info.size or 0, kind, compression)


def _near_names(path: str, filesystem: fs.FileSystem) -> str:
    folder, _, name = path.rpartition("/")
    try:
        listed = filesystem.get_file_info(fs.FileSelector(folder or "/"))
    except OSError:
        return f". There is no folder {folder} either"
    near = difflib.get_close_matches(name, [info.base_name for info in listed if info.is_file])
    return f". In that folder: {', '.join(near)}" if near else ""


@contextmanager
def reading(location: Location, advice: str = "") -> Iterator[None]:
    """Turns what Arrow and the system raise on a file into an InputError that names it."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{location.name}: permission denied. Make it readable for this user") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{location.name} ({location.size:,} bytes): {_first_line(error)}{advice}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def lines(location: Location, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The physical lines with their line ends (LF, CRLF or CR), without a byte order mark."""
    with location.open_stream() as stream:
        rest = stream.read(chunk_bytes)
        rest = rest.removeprefix(b"\xef\xbb\xbf")
        while chunk := stream.read(chunk_bytes):
            *whole, rest = _split_lines(rest, chunk)
            yield from whole
        yield from rest.splitlines(keepends=True)


def _split_lines(rest: bytes, chunk: bytes) -> list[bytes]:
    """The whole lines of `rest + chunk`, then what may not be a whole line yet.

    A trailing CR stays behind, because its LF may be in the next chunk.
    """
    if b"\n" not in chunk and b"\r" not in chunk:
        return [rest + chunk]
    split = (rest + chunk).splitlines(keepends=True)
    return split if not split[-1].endswith(b"\n") else [*split, b""]
