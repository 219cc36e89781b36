"""What the headers of a response say about limits and waiting. No I/O."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from batchrun.exchange import RateLimits

# OpenAI's style and Anthropic's; their `-input-tokens` and `-output-tokens` are parts of `-tokens`.
_FIELD_BY_HEADER = {
    style.encode(): f"{what}_{unit}"
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
    for style in (f"x-ratelimit-{what}-{unit}", f"anthropic-ratelimit-{unit}-{what}")
}

_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII
)
_SECONDS_BY_GROUP = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)

# A bare number this large is an instant in seconds since 1970, not a wait of 30 years.
_EARLIEST_INSTANT = 1e9


def rate_limits(headers: Iterable[tuple[bytes, bytes]], now: float) -> RateLimits | None:
    """The rate limits that a response states, or None where it states none that can be read.

    `headers` are as they came, since to decode them all costs more than all else about them. `now` is the
    time in seconds since 1970: instants are turned into seconds from now.
    """
    stated: dict[str, int | float] = {}
    for name, raw in headers:
        if field := _FIELD_BY_HEADER.get(name.lower()):
            text = raw.decode("latin-1")
            value = _seconds_until(text, now) if field.startswith("reset") else _whole_number(text)
            if value is not None:
                stated[field] = value
    return RateLimits(**stated) if stated else None  # type: ignore[arg-type]  # ints and floats as the field wants


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the endpoint asks to wait, never negative; None where it asks for nothing legible.

    Reads `retry-after-ms`, then `retry-after`: seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    return _seconds_until_http_date(text, now) if seconds is None else seconds


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """What `x-should-retry` says, None where it is missing or neither true nor false."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _whole_number(text: str) -> int | None:
    text = text.strip()
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _seconds_until_http_date(text: str, now: float) -> float | None:
    try:
        instant = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _seconds_between(now, instant)


def _seconds_until(text: str, now: float) -> float | None:
    text = text.strip()
    number = _number(text)
    if number is not None:
        return max(0.0, number - now) if number >= _EARLIEST_INSTANT else number
    duration = _DURATION.fullmatch(text)
    if text and duration:
        return math.fsum(
            float(digits) * seconds
            for digits, seconds in zip(duration.groups(), _SECONDS_BY_GROUP, strict=True)
            if digits and len(digits) <= 15
        )
    try:
        return _seconds_between(now, datetime.fromisoformat(text))
    except ValueError:
        return None


def _seconds_between(now: float, instant: datetime) -> float:
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now)
