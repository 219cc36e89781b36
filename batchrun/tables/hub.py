"""Copies files of Hugging Face's hub, once, to temporary copies that all passes read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from batchrun.errors import InputError
from batchrun.tables.copies import CopiedLocation, copied
from batchrun.tables.endings import format_of
from batchrun.text import first_line

_CHUNK_BYTES = 1 << 20
_WILDCARD = re.compile(r"[*?\[]")


def copies_from_hub(url: str, folder: Path | None) -> list[CopiedLocation]:
    """Returns the files of an hf:// URL or pattern, sorted by name, in temporary copies in `folder`.

    Raises InputError without the package huggingface_hub, and where the hub can't be reached or refuses.
    """
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise InputError(
            f"{url} is read by huggingface_hub. Install it: pip install 'batchrun-llm[huggingface]'"
        ) from None
    files, pattern = HfFileSystem(), url.partition("://")[2]
    try:
        names = sorted(files.glob(pattern)) if _WILDCARD.search(pattern) else [pattern]
    except Exception as error:
        raise _failed(url, error) from error
    if not names:
        raise InputError(f"{url}: no file of the hub matches this pattern")
    return [_copy(files, name, folder) for name in names]


def _copy(files: Any, name: str, folder: Path | None) -> CopiedLocation:
    def write(copy: IO[bytes]) -> None:
        copy.writelines(_chunks(files, name))

    return copied(f"hf://{name.lstrip('/')}", format_of(name), write, folder)


def _chunks(files: Any, name: str) -> Iterator[bytes]:
    try:
        with files.open(name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except Exception as error:
        raise _failed(f"hf://{name}", error) from error


def _failed(url: str, error: Exception) -> InputError:
    """The hub's client raises errors of its own, of fsspec and of HTTP libraries."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{url}: no such file on the hub, or no access to it: a private one needs HF_TOKEN")
    return InputError(f"{url} can't be read: {first_line(error)}")
