"""Reads what response headers say about limits and waiting. No I/O."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from batchrun.exchange import RateLimits

# OpenAI's and Anthropic's style; their `-input-tokens` and `-output-tokens` are parts of `-tokens`.
_FIELD_BY_HEADER = {
    style.encode(): f"{what}_{unit}"
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
    for style in (f"x-ratelimit-{what}-{unit}", f"anthropic-ratelimit-{unit}-{what}")
}

# The IETF draft "RateLimit header fields for HTTP", in its present form and as drafts 6 and 7:
# `"default";q=300;w=10`, `300;w=10`, `"default";r=50;t=3`, `limit=300, remaining=50, reset=3`.
_POLICY, _STATE = b"ratelimit-policy", b"ratelimit"
_ITEM = re.compile(r'(?:"[^"]*"|[^",;])+(?:;(?:"[^"]*"|[^",])*)?')
_PARAMETER = re.compile(r"""[;,\s](\w+)=(?:"([^"]*)"|([^";,\s]+))""", re.ASCII)
_LONGEST_WINDOW = 3_600.0
"""Seconds. A quota over a longer window, such as a day, is not a pace: spread evenly it delays short runs."""

_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII
)
_SECONDS_BY_GROUP = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)

# A bare number this large is an instant in seconds since 1970, not a wait of 30 years.
_EARLIEST_INSTANT = 1e9


def rate_limits(headers: Iterable[tuple[bytes, bytes]], now: float) -> RateLimits | None:
    """Returns the rate limits that a response states, or None where it states none that can be read.

    `headers` are the raw ones, since decoding them all costs more than everything else here. `now` is the
    time in seconds since 1970: instants are turned into seconds from now.
    """
    stated: dict[str, int | float] = {}
    for written, raw in headers:
        name = written.lower()
        if field := _FIELD_BY_HEADER.get(name):
            text = raw.decode("latin-1")
            value = _seconds_until(text, now) if field.startswith("reset") else _whole_number(text)
            if value is not None:
                stated[field] = value
        elif name in (_POLICY, _STATE):
            found = _policy if name == _POLICY else _state
            for field, amount in found(raw.decode("latin-1")).items():
                stated.setdefault(field, amount)
    return RateLimits(**stated) if stated else None  # type: ignore[arg-type]  # ints and floats as the field wants


def _policy(text: str) -> dict[str, int | float]:
    """Returns each unit's lowest limit, per minute; the windows are in seconds."""
    lowest: dict[str, int | float] = {}
    for item in _ITEM.findall(text):
        values = _parameters(item)
        first = item.split(";")[0].strip()
        quota, window = _whole_number(values.get("q", first)), _number(values.get("w", ""))
        unit = values.get("qu", "requests")
        if not quota or not window or window > _LONGEST_WINDOW or unit not in ("requests", "tokens"):
            continue
        per_minute = max(1, int(quota * 60 / window))
        lowest[f"limit_{unit}"] = min(per_minute, lowest.get(f"limit_{unit}", per_minute))
    return lowest


def _state(text: str) -> dict[str, int | float]:
    """Returns the remainder and its reset. A limit without a window says nothing about a minute.

    Where several policies are stated, it is unknown which one limits requests: then none is used.
    """
    if text.count('"') > 2:
        return {}
    values = _parameters(text)
    remaining = _whole_number(values.get("r", values.get("remaining", "")))
    reset = _number(values.get("t", values.get("reset", "")))
    stated: dict[str, int | float] = {}
    if remaining is not None:
        stated["remaining_requests"] = remaining
    if reset is not None:
        stated["reset_requests"] = reset
    return stated


def _parameters(text: str) -> dict[str, str]:
    return {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(f";{text}")}


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Returns the requested wait in seconds, never negative; None where no readable one is given.

    Reads `retry-after-ms`, then `retry-after`: seconds or an HTTP date (RFC 9110, 10.2.3), which counts from
    the response's own `date`, since the server's clock may differ from this machine's.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    until, sent = _http_date(text), _http_date(headers.get("date", ""))
    return None if until is None else max(0.0, until - (now if sent is None else sent))


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Returns the value of `x-should-retry`, None where it is missing or neither true nor false."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _whole_number(text: str) -> int | None:
    text = text.strip()
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _http_date(text: str) -> float | None:
    """Seconds since 1970."""
    try:
        instant = parsedate_to_datetime(text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
