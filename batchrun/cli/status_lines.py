"""What the live display says: up to three lines, made of as many parts as fit, the most important first."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchrun.amounts import usd_text
from batchrun.pipeline import View
from batchrun.plain_text import on_one_line

MEASURED_OVER = 10.0
"""Seconds over which rates are measured, or longer where looks are rare."""
MOST_BAR = 30
LEAST_BAR = 6


@dataclass(frozen=True, slots=True)
class Speed:
    """Per second, over the last ten seconds."""

    rows: float
    requests: float
    tokens: float


class Speedometer:
    """Measures by looks at the counts."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._looks = [(time.monotonic(), self._counts())]

    def read(self) -> Speed:
        now = time.monotonic()
        self._looks.append((now, self._counts()))
        while now - self._looks[1][0] > MEASURED_OVER:
            del self._looks[0]
        then, before = self._looks[0]
        seconds = max(now - then, 1e-9)
        rows, requests, tokens = (
            (after - each) / seconds for each, after in zip(before, self._looks[-1][1], strict=True)
        )
        return Speed(rows, requests, tokens)

    def _counts(self) -> tuple[int, int, int]:
        progress = self._view.progress
        return progress.answers + progress.failed, progress.requests, progress.tokens


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line; the lower its `rank`, the more important."""

    text: str
    rank: int


def status_lines(view: View, speedometer: Speedometer, width: int) -> list[str]:
    """What the display says now; `width` in columns, 0 for lines of any length and no bar."""
    progress = view.progress
    if progress.writing:
        at_once = "; Ctrl-C ends at once, and leaves it as it was" if progress.stopping else ""
        return [f"writing {view.job.output.path} ...{at_once}"]
    if progress.stopping and progress.in_flight:
        return [
            f"{progress.stopping} Waiting for {progress.in_flight:,} in flight.",
            "Ctrl-C again ends at once; what is in flight may be billed.",
            fitted(_money(view), width),
        ]
    speed = speedometer.read()
    return [
        _rows_line(view, speed, width),
        fitted(_pace(view, speed), width),
        fitted(_money(view), width),
    ]


def fitted(parts: Sequence[Part], width: int) -> str:
    """The parts in their order, as many as fit into `width` columns, the most important ones first."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.rank):
        length = sum(len(each.text) + 2 for each in kept) + len(part.text)
        if not kept or not width or length <= width:
            kept.append(part)
    return ", ".join(part.text for part in parts if part in kept)


# Rows, and when they will be done.


def _rows_line(view: View, speed: Speed, width: int) -> str:
    progress = view.progress
    done, total = progress.done, progress.rows
    parts = [Part(f"{done:,} of {total:,} rows ({done / total:.0%})" if total else f"{done:,} rows done", 0)]
    if progress.failed:
        parts.append(Part(f"{progress.failed:,} failed", 2))
    if progress.invalid:
        parts.append(Part(f"{progress.invalid:,} invalid", 3))
    if ending := _ending(view, speed):
        parts.append(Part(ending, 1))
    if progress.scored:
        mean = progress.score_sum / progress.scored
        parts.append(Part(f"mean score {mean:.3f} of {progress.scored:,} scored", 4))
    text = fitted(parts, width)
    room = min(MOST_BAR, width - len(text) - 3)
    if not total or room < LEAST_BAR:
        return text
    filled = room * min(done, total) // total
    return f"[{'#' * filled}{'.' * (room - filled)}] {text}"


def _ending(view: View, speed: Speed) -> str | None:
    """How long it will take to the last row, or to the cap that comes first."""
    progress, rate = view.progress, _rows_a_second(view, speed)
    rows_left = None if progress.rows is None else progress.rows - progress.done
    ends: list[tuple[float, str]] = []
    if rows_left and rate > 0:
        ends.append((rows_left / rate, "to go"))
    if rate > 0 and progress.answers and (cap := view.ledger.answers_to_cap()) is not None:
        answers, name = cap
        answers_a_row = view.ledger.settled.rows / progress.answers
        ends.append((answers / answers_a_row / rate, f"to {name}"))
    seconds = view.job.budget.seconds
    if seconds is not None:
        ends.append((max(0.0, seconds - (time.monotonic() - progress.started)), "to budget.seconds"))
    if not ends or rows_left == 0:
        return None
    left, what = min(ends)
    return f"{_duration(left)} {what}"


def _rows_a_second(view: View, speed: Speed) -> float:
    """The rate of the last seconds, but no higher than the limits allow in the long run."""
    progress, pace = view.progress, view.limiter.pace
    rates = [speed.rows]
    if pace.requests_per_minute and pace.source != "search":
        rates.append(pace.requests_per_minute / 60)
    if pace.tokens_per_minute and progress.answers and progress.tokens:
        rates.append(pace.tokens_per_minute / 60 * progress.answers / progress.tokens)
    return min(rates)


# The pace, and what holds it back.


def _pace(view: View, speed: Speed) -> list[Part]:
    progress, pace = view.progress, view.limiter.pace
    parts = [Part(f"{speed.rows:,.1f} rows/s", 0)]
    if holds := _holds_back(view):
        parts.append(Part(f"held back by {holds}", 1))
    if pace.requests_per_minute:
        source = _SOURCES[pace.source]
        limit = f"{speed.requests * 60:,.0f} of {pace.requests_per_minute:,.0f} requests/min"
        parts.append(Part(f"{limit} ({source})", 3 if pace.source == "search" else 2))
    if pace.tokens_per_minute:
        parts.append(Part(f"{speed.tokens * 60:,.0f} of {pace.tokens_per_minute:,} tokens/min", 2))
    else:
        parts.append(Part(f"{speed.tokens:,.0f} tokens/s", 6))
    parts.append(Part(f"{progress.in_flight:,} in flight", 5))
    if progress.by_error:
        kinds = ", ".join(f"{code} x{n:,}" for code, n in progress.by_error.most_common(3))
        parts.append(Part(f"retried {progress.retried:,}: {kinds}", 4))
    if progress.last_error:
        parts.append(Part(f"last error: {on_one_line(progress.last_error)}", 7))
    return parts


_SOURCES: dict[Literal["given", "headers", "search"], str] = {
    "given": "given",
    "headers": "by headers",
    "search": "found so far",
}


def _holds_back(view: View) -> str | None:
    """Why no more is sent; None where nothing but this machine's speed is the reason."""
    progress = view.progress
    if progress.held_by is not None:
        return progress.held_by
    if progress.slowed_by == "endpoint":
        return "the endpoint, which fails"
    if progress.slowed_by == "rate limit":
        pause = view.limiter.pace.paused_until - time.monotonic()
        return f"a 429, {pause:,.0f} s more" if pause >= 1 else "the rate limit"
    if progress.in_flight >= view.job.limits.concurrency:
        return "limits.concurrency"
    return None


# Money.


def _money(view: View) -> list[Part]:
    ledger, before = view.ledger, view.before.spend
    spent = before.committed.plus(ledger.settled).plus(ledger.uncertain)
    cap = view.job.budget.nano_usd
    of_cap = "" if cap is None else f" of {usd_text(cap)}"
    parts = [
        Part(f"spent {usd_text(spent.nano_usd)} + {usd_text(ledger.reserved.nano_usd)} reserved{of_cap}", 0)
    ]
    if view.target.sandbox:
        parts.append(Part("sandbox: nothing is paid", 2))
    if view.progress.notice:
        parts.append(Part(view.progress.notice, 3))
    if ledger.remaining_credits is not None:
        parts.append(Part(f"{ledger.remaining_credits:,} credits left", 1))
    return parts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
