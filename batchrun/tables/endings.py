"""The single list of table file endings and URL schemes, for reading and writing.

A new ending of a known format is a line in READ or WRITTEN. A new format also needs its opener in `reader`,
or its encoder in `writer`.
"""

from pathlib import Path

from batchrun.errors import InputError

READ = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".xls": "workbook",
    ".ods": "workbook",
    ".zip": "zip",
}
"""Formats by the endings of inputs."""

WRITTEN = (".parquet", ".csv", ".jsonl")
"""Endings of outputs."""

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""Arrow's codec names by the endings that may follow a text format's ending."""

TEXT_FORMATS = frozenset({"csv", "tsv", "jsonl"})

STORES = ("s3", "gs", "abfs", "abfss")
"""Schemes of the URLs of object stores, which are read and written."""

ARROW_SCHEMES = ("file", *STORES)
"""Schemes of the URLs that Arrow has a file system for."""

WITH_ENDPOINT = ("s3", "gs")
"""Schemes of stores that may be at an `endpoint_url`."""

WRITTEN_IN_WORDS = f"{', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}"
COMPRESSED_IN_WORDS = " or ".join(COMPRESSED)


def format_of(name: str) -> tuple[str, str | None]:
    """Returns the format and the compression by the ending of `name`.

    Raises InputError for an unknown ending, and for a compressed format that is not text.
    """
    stem, compression = _uncompressed(name)
    kind = next((kind for ending, kind in READ.items() if stem.lower().endswith(ending)), None)
    if kind is None:
        raise InputError(
            f"{name}: unknown kind of table. Known endings: {' '.join(READ)}; "
            f"text also with {COMPRESSED_IN_WORDS}"
        )
    if compression and kind not in TEXT_FORMATS:
        raise InputError(f"{name}: compressed {kind} files can't be read in place. Unpack it first")
    return kind, compression


def is_table(name: str) -> bool:
    """Whether `name` has an input's ending, compressed or not."""
    return _uncompressed(name)[0].lower().endswith(tuple(READ))


def without_ending(name: str) -> str:
    """Returns `name` without the endings of an input and its compression, as far as it has them."""
    stem = _uncompressed(name)[0].removesuffix(".")
    ending = next((ending for ending in READ if stem.lower().endswith(ending)), "")
    return stem[: len(stem) - len(ending)]


def is_written(path: Path) -> bool:
    """Whether `path` has an ending of an output."""
    return path.suffix.lower() in WRITTEN


def _uncompressed(name: str) -> tuple[str, str | None]:
    for ending, codec in COMPRESSED.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], codec
    return name, None
