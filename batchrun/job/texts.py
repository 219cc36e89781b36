"""Refuses texts of a job that file systems or requests can't hold, naming their keys."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from batchrun.errors import JobError

PATHS = {
    "input": ("path",),
    "prompt": ("template_file", "system_file"),
    "labels": ("json_schema",),
    "endpoint": ("api_key_file",),
    "output": ("path", "scratch"),
}
"""Keys whose text is a path, by their table."""
_LONGEST_NAME = 255
_LONGEST_PATH = 4_095


def check_texts(tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises JobError, which names the key, for bytes that aren't UTF-8 and for impossible paths."""
    for table, values in tables.items():
        for key, value in values.items():
            for text in _texts(value):
                _check_encoding(f"[{table}] {key}", text)
            if key in PATHS.get(table, ()) and isinstance(value, str) and "://" not in value:
                check_path(f"[{table}] {key}", value)


def check_path(name: str, path: str) -> None:
    """Raises JobError for an impossible path: one with a null character, or a name that is too long."""
    if "\0" in path:
        raise JobError(f"{name}: a path can't hold a null character")
    encoded = os.fsencode(path)
    longest = max(map(len, encoded.split(b"/")))
    if longest > _LONGEST_NAME or len(encoded) > _LONGEST_PATH:
        raise JobError(
            f"{name}: the path is too long: a name has at most {_LONGEST_NAME} bytes, got {longest:,}"
        )


def _check_encoding(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # from the command line, where such bytes become lone surrogates
        raise JobError(f"{name}: holds bytes that are not UTF-8") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
