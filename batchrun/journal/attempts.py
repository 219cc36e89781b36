"""Reads single attempts, for people who look at rows."""

from collections.abc import Sequence

import msgspec

from batchrun.journal.connection import translated_errors
from batchrun.journal.journal import Journal


class AttemptMade(msgspec.Struct, frozen=True, gc=False):
    """An attempt that has ended. Times are milliseconds since 1970 UTC; `nano_usd` is None if unknown."""

    digest: bytes
    run: int
    started_at: int
    finished_at: int
    outcome: str
    nano_usd: int | None
    http_status: int | None
    error_code: str | None
    error: str | None


_COLUMNS = ", ".join(AttemptMade.__struct_fields__)


def attempts_of(journal: Journal, digests: Sequence[bytes]) -> list[AttemptMade]:
    """Returns the attempts of some requests, at most 32,766, in sending order. Raises JournalError."""
    with translated_errors(journal.path):
        where, values = journal.digests.condition(digests)
        found = journal.connection.execute(
            f"SELECT {_COLUMNS} FROM attempts WHERE {where} ORDER BY attempt", values
        ).fetchall()
    return [AttemptMade(*row) for row in found]
