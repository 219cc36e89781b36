"""Checksums of the journal's records: CRC-32 over everything that money rests on.

A record of the table `attempts` has two: `control` covers its numbers, so that a scan over a million records
need not read their responses; `response_crc32` continues it over the response. HTTP status and the texts of
errors have none.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from batchrun.journal.connection import damaged
from batchrun.journal.records import AttemptRow, Outcome

NUMBERS = AttemptRow._fields[: AttemptRow._fields.index("http_status")]
"""The columns of the table `attempts` that `control` covers, in order."""
UNSEALED = AttemptRow._fields.index("control")
"""The number of columns before the checksums and the response."""

_COVERED = len(NUMBERS)
_encode = msgspec.msgpack.Encoder().encode
_UNENCODABLE = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)


def sealed(values: Sequence[Any], response: bytes | None) -> AttemptRow:
    """Returns a record of the table `attempts`: `values` are its columns before the checksums."""
    control = zlib.crc32(_encode(values[:_COVERED]))
    return AttemptRow._make((*values, control, zlib.crc32(response or b"", control), response))


def has_whole_numbers(numbers: Sequence[Any], control: int) -> bool:
    """Returns whether the columns NUMBERS of a record are as they were written."""
    return checksum(numbers) == control


def is_whole(row: AttemptRow) -> bool:
    """Returns whether a record is as it was written: both checksums match, and an answer has its response."""
    return (
        has_whole_numbers(row[:_COVERED], row.control)
        and (row.outcome == Outcome.ANSWERED) == (type(row.response) is bytes)
        and zlib.crc32(row.response or b"", row.control) == row.response_crc32
    )


def check_numbers(path: Path, numbers: Sequence[Any], control: int) -> None:
    """Raises JournalError where the columns NUMBERS of a record are not as they were written."""
    if not has_whole_numbers(numbers, control):
        raise damaged(path, f"attempt {numbers[0]} doesn't match its checksum")


def checksum(values: Sequence[Any], blob: bytes = b"") -> int | None:
    """CRC-32 of plain values and of bytes that follow them; None where a value has an impossible type."""
    try:
        crc = zlib.crc32(_encode(values))
    except _UNENCODABLE:
        return None
    return zlib.crc32(blob, crc) if blob else crc
