"""The line of a job file that an error is about: tomllib's values don't know where they stood."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchrun.errors import JobError

_PLACE = re.compile(
    r"(?:\[profiles\.(?P<profile>[^\]]+)\] )?(?:\[(?P<table>[^\]]+)\] ?)?(?P<key>[\w.-]*)[:\[]"
)
_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_LONG_TEXT = re.compile(r"\"{3}|'{3}")


def placed(
    error: JobError, file: Path | None, text: str, profile: str | None, above: Sequence[str], named: str
) -> JobError:
    """Returns the error with its place: the line of the job `file`, whose text is `text`.

    An error about what is put on top of the file, `above` such as `budget.usd=2`, has the words `named` for
    that instead. None: there is no file.
    """
    key = _key_of(str(error))
    is_above = key is not None and _is_overridden(key, above)
    hint = f"; {key}=null removes it" if is_above and str(error).endswith('got ""') else ""
    message = f"{error}{hint}"
    if file is None:
        return JobError(message)
    line = None if key is None or is_above else _line_of(key, text, profile)
    return JobError(f"{file}{named}: {message}" if line is None else f"{file}:{line}: {message}")


def _key_of(message: str) -> str | None:
    """Returns the full name of the key or table that an error's text begins with, such as `budget.usd`."""
    match = _PLACE.match(message)
    if match is None:
        return None
    profile = None if match["profile"] is None else f"profiles.{match['profile']}"
    return ".".join(part for part in (profile, match["table"], match["key"]) if part) or None


def _is_overridden(name: str, above: Iterable[str]) -> bool:
    """Returns whether one of `above` sets the key, a part of it, or the table that it is about."""
    names = [one.partition("=")[0].strip() for one in above]
    return any(f"{one}.".startswith(f"{name}.") or f"{name}.".startswith(f"{one}.") for one in names)


def _line_of(name: str, text: str, profile: str | None) -> int | None:
    """Returns the line of a key, from 1: in the profile, else in the job, else of its table."""
    lines = _lines(text)
    if profile is not None and (line := lines.get(f"profiles.{profile}.{name}")) is not None:
        return line
    parts = name.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((lines[one] for one in names if one in lines), None)


def _lines(text: str) -> dict[str, int]:
    """Returns the line of each table and key by its full name."""
    lines: dict[str, int] = {}
    table, open_text = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if not open_text and (header := _HEADER.fullmatch(line)):
            table = _plain(header[1])
            lines.setdefault(table, number)
        elif not open_text and (key := _KEY.match(line)):
            lines.setdefault(f"{table}.{_plain(key[1])}".lstrip("."), number)
        for mark in _LONG_TEXT.findall(line):
            open_text = "" if open_text == mark else open_text or mark
    return lines


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
