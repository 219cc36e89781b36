"""Files in object stores, by their URLs."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import OutputError, StorageError
from batchrun.text import cause, without_secrets

_CHUNK_BYTES = 8 << 20


def filesystem_of(url: str, endpoint_url: str | None = None) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a URL and the path in it.

    `endpoint_url` is the address of a store that speaks S3's or Google's protocol. Raises OSError,
    ArrowException.
    """
    if endpoint_url is not None:
        address = urlsplit(endpoint_url)
        mark = "&" if "?" in url else "?"
        url += f"{mark}endpoint_override={quote(address.netloc)}&scheme={address.scheme}"
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(url)
    return found


def check_uploadable(url: str, endpoint_url: str | None) -> None:
    """Raises OutputError where no object can be written to the URL: writes one beside it, and deletes it.

    Arrow's client leaves an empty object in the place of a folder that is empty then.
    """
    try:
        filesystem, path = filesystem_of(url, endpoint_url)
        with filesystem.open_output_stream(f"{path}.check") as stream:
            stream.write(b"batchrun can write here\n")
        filesystem.delete_file(f"{path}.check")
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{without_secrets(url)} can't be written: {cause(error, url)}") from error


def upload(file: Path, url: str, endpoint_url: str | None) -> None:
    """Writes the object of the URL, which readers see as it was until it is whole. Raises StorageError.

    Arrow ends an object that is broken off as if it were whole. So it is written in a thread, which Ctrl-C
    doesn't break off.
    """
    try:
        with ThreadPoolExecutor(1) as thread:
            stored = thread.submit(_copy, file, url, endpoint_url).result()
    except (OSError, pa.ArrowException) as error:
        raise _not_written(file, url, cause(error, url)) from error
    if stored != file.stat().st_size:
        raise _not_written(file, url, f"the store has {stored} of {file.stat().st_size} bytes")


def _copy(file: Path, url: str, endpoint_url: str | None) -> int | None:
    """Returns the size of the written object."""
    filesystem, path = filesystem_of(url, endpoint_url)
    with file.open("rb") as source, filesystem.open_output_stream(path) as stream:
        shutil.copyfileobj(source, stream, _CHUNK_BYTES)
    size: int | None = filesystem.get_file_info(path).size
    return size


def _not_written(file: Path, url: str, why: str) -> StorageError:
    return StorageError(
        f"{without_secrets(url)} could not be written: {why}. {file} holds the output; "
        "`batchrun export` uploads it again"
    )
