"""Reads a zip archive that holds one table."""

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from batchrun.errors import InputError
from batchrun.tables.copies import CopiedLocation, copied
from batchrun.tables.endings import format_of
from batchrun.tables.locations import Location, reading

_CHUNK_BYTES = 1 << 20


def unpack(location: Location, folder: Path | None) -> CopiedLocation:
    """Returns the archive's one file, unpacked into a temporary copy in `folder`.

    Files that systems add by themselves don't count. Raises InputError for an archive that is damaged, has a
    password, or holds no table or several files.
    """
    try:
        with reading(location), location.open_file() as stream, zipfile.ZipFile(stream) as archive:
            member = _only_table(location, archive)
            return _copy(location, archive, member, folder)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{location.name} is a damaged zip archive: {error}. Copy it again") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or a method unknown to Python
        raise InputError(f"{location.name} can't be unpacked: {error}. Unpack it first") from error


def _only_table(location: Location, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_extra(member)]
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:3])
        held = (
            f"{len(members)} files ({names}{', ...' if len(members) > 3 else ''})" if members else "no file"
        )
        raise InputError(
            f"{location.name} holds {held}. Unpack it, and name one table or a pattern such as *.csv"
        )
    kind, _ = format_of(members[0].filename)
    if kind == "zip":
        raise InputError(f"{location.name} holds another zip archive. Unpack it first")
    return members[0]


def _is_extra(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    return path.parts[0] == "__MACOSX" or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")


def _copy(
    location: Location, archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path | None
) -> CopiedLocation:
    def write(copy: IO[bytes]) -> None:
        with archive.open(member) as stream:
            shutil.copyfileobj(stream, copy, _CHUNK_BYTES)

    return copied(location.name, format_of(member.filename), write, folder)
