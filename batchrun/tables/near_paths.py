"""Finds the file that somebody may have meant by a path where there is none."""

import difflib
import os
from itertools import islice
from pathlib import Path

MOST_NAMES = 10_000
"""Of a folder: a hint is not worth reading more."""


def near_file(path: Path, *, ending: str = "") -> Path | None:
    """Returns the existing file whose path is most like this one, part by part; None without one.

    Only names with this `ending` count.
    """
    folder = path.parent if path.parent.is_dir() else _near_folder(path.parent)
    if folder is None:
        return None
    if (folder / path.name).is_file():
        return folder / path.name
    return _nearest(path.name, folder, folders=False, ending=ending)


def did_you_mean(path: Path, *, ending: str = "") -> str:
    """Returns such as "; did you mean data/reviews.csv?", or nothing, as for a file that can't be read."""
    near = None if os.path.exists(path) else near_file(path, ending=ending)  # noqa: PTH110  # raises nothing
    return f"; did you mean {near}?" if near else ""


def _near_folder(folder: Path) -> Path | None:
    if folder == folder.parent:
        return None
    above = folder.parent if folder.parent.is_dir() else _near_folder(folder.parent)
    if above is None or (above / folder.name).is_dir():
        return above and above / folder.name
    return _nearest(folder.name, above, folders=True)


def _nearest(name: str, folder: Path, *, folders: bool, ending: str = "") -> Path | None:
    try:
        found = [each for each in islice(folder.iterdir(), MOST_NAMES) if each.name.endswith(ending)]
    except OSError:
        return None
    by_name = {each.name.casefold(): each for each in sorted(found)}
    for near in difflib.get_close_matches(name.casefold(), by_name):
        if by_name[near].is_dir() if folders else by_name[near].is_file():
            return by_name[near]
    return None
