"""The files in a run's folder by which another process asks the run for new caps and limits."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from batchrun.runs.run_folder import RunFolder, write_private

STOP = "stop=true"
"""In place of a key and its value: the run is to stop, and drain."""


class Request(msgspec.Struct, frozen=True):
    """`assignments` are texts such as `budget.usd=5`, or `STOP`."""

    id: str
    author: str
    assignments: tuple[str, ...]


def ask(folder: RunFolder, author: str, assignments: tuple[str, ...]) -> Request:
    """Puts a request into the folder, whole or not at all. Raises StorageError."""
    request = Request(secrets.token_hex(8), author, assignments)
    write_private(_path(folder, request.id), msgspec.json.encode(request).decode())
    return request


def is_taken(folder: RunFolder, request: Request) -> bool:
    return not _path(folder, request.id).exists()


def withdraw(folder: RunFolder, request: Request) -> bool:
    """Takes a request back; returns False if the run was faster."""
    return _removed(_path(folder, request.id))


def take_requests(folder: RunFolder) -> list[Request]:
    """Returns the requests in the folder and removes them, so that each is taken once or withdrawn."""
    found = []
    for path in _paths(folder):
        try:
            request = msgspec.json.decode(path.read_bytes(), type=Request)
        except (OSError, ValueError):
            request = None  # withdrawn, or not written by batchrun
        if _removed(path) and request is not None:
            found.append(request)
    return found


def remove_requests(folder: RunFolder) -> None:
    """Removes requests to an earlier run, from processes that were killed before they could withdraw them."""
    for path in _paths(folder):
        _removed(path)


def _path(folder: RunFolder, identity: str) -> Path:
    return folder.path / f"adjust-{identity}.json"


def _paths(folder: RunFolder) -> Iterator[Path]:
    try:
        yield from sorted(folder.path.glob("adjust-*.json"))
    except OSError:
        return


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
