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
        found = [each for each in islice(folder.iterdir(), MOST_NAMES) if _may_end(each, ending)]
    except OSError:
        return None
    by_stem: dict[str, list[Path]] = {}
    for each in sorted(found, key=lambda each: (each.suffix != Path(name).suffix, each)):
        if each.is_dir() if folders else each.is_file():
            by_stem.setdefault(_stem(each.name), []).append(each)
    near = difflib.get_close_matches(_stem(name), by_stem, 1)
    return by_stem[near[0]][0] if near else None


def _may_end(path: Path, ending: str) -> bool:
    """Whether it has the ending. Where any will do, a job file, beside its table, is not what is meant."""
    return path.name.endswith(ending) if ending else path.suffix != ".toml"


def _stem(name: str) -> str:
    """Returns what tells names apart: their endings are alike."""
    return (name.lstrip(".").partition(".")[0] or name).casefold()
