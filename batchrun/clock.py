"""Wall-clock time: milliseconds since 1970 UTC, and as ISO 8601."""

import time
from datetime import UTC, datetime

MILLISECONDS_PER_DAY = 86_400_000


def milliseconds() -> int:
    """Returns the current time in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def instant(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
