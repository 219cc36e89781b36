"""The live display's text: three lines of as many parts as fit, the most important first.

A fourth says what went wrong last, while nothing is sent for it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchrun.amounts import Amount, usd_text
from batchrun.exchange import Waiting
from batchrun.job.caps import SECONDS
from batchrun.rows.observer import Worker
from batchrun.runs.observers.progress import Progress
from batchrun.runs.observers.rates import RateMeter, Speed, rows_a_second, seconds_to_next
from batchrun.runs.observers.view import View
from batchrun.text import single_line

MOST_BAR = 30
LEAST_BAR = 6
_MOST_SHOWN = 4
_LATE_COMMIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line; the lower its `rank`, the more important."""

    text: str
    rank: int


def status_lines(view: View, meter: RateMeter, width: int) -> list[str]:
    """Returns the display's lines; `width` in columns, 0 for lines of any length and no bar."""
    return list(map(single_line, _status_lines(view, meter, width)))


def _status_lines(view: View, meter: RateMeter, width: int) -> list[str]:
    progress = view.progress
    if progress.writing:
        immediate = "; Ctrl-C ends at once, and leaves it as it was" if progress.stopping_for else ""
        return [f"writing {view.job.output.path} ...{immediate}"]
    now = time.monotonic()
    if progress.stopping_for and (progress.in_flight or _late_commit(progress, now)):
        return [*stopping_lines(progress, now), fitted(_money(view), width)]
    speed = meter.read(now, view.limiter.pace.requests_per_minute)
    return [
        _rows_line(view, speed, now, width),
        fitted(pace_parts(view, speed, now), width),
        fitted(_money(view), width),
        *([f"last error: {progress.last_error}"] if _is_in_trouble(progress) else []),
    ]


def stopping_lines(progress: Progress, now: float) -> list[str]:
    """Returns what a signal has begun, and what another one does."""
    waiting = f"{progress.in_flight:,} in flight" if progress.in_flight else "the journal"
    late = _late_commit(progress, now)
    return [
        f"{progress.stopping_for} Waiting for {waiting}{f' ({late})' if late else ''}.",
        "Ctrl-C again ends at once; what is in flight may be billed.",
    ]


def _late_commit(progress: Progress, now: float) -> str:
    """Returns how long the journal has been waited for, and for which process; empty while that is usual."""
    commit = progress.commit  # once: the thread that writes changes it
    if commit is None or now - commit[0] < _LATE_COMMIT_SECONDS:
        return ""
    process = "" if commit[1] is None else f" by process {commit[1]}"
    return f"no commit{process} for {duration_text(now - commit[0])}"


def _is_in_trouble(progress: Progress) -> bool:
    """Returns whether nothing is sent because of failures."""
    failing = progress.waiting is not None and progress.waiting.by in ("endpoint", "retry")
    return failing and progress.last_error is not None


def fitted(parts: Sequence[Part], width: int) -> str:
    """Returns as many parts as fit into `width` columns, in their order, the most important ones first."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.rank):
        length = sum(len(each.text) + 2 for each in kept) + len(part.text)
        if not kept or not width or length <= width:
            kept.append(part)
    return ", ".join(part.text for part in parts if part in kept)


# Rows, and when they will be done.


def _rows_line(view: View, speed: Speed, now: float, width: int) -> str:
    progress = view.progress
    done, total = progress.done, progress.rows
    parts = [Part(f"{done:,} of {total:,} rows ({done / total:.0%})" if total else f"{done:,} rows done", 0)]
    if without_answer := _without_answer(progress):
        parts.append(Part(without_answer, 2))
    if ending := _ending(view, speed, now):
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


def _without_answer(progress: Progress) -> str:
    """Returns the rows without a usable answer. Those of earlier runs are not all known as such."""
    counts = [
        f"{rows:,} {status}"
        for rows, status in ((progress.failed, "failed"), (progress.invalid, "invalid"))
        if rows
    ]
    if counts and (progress.answered_before or progress.failed_before):
        counts[-1] += " in this run"
    if progress.unsendable:
        counts.append(f"{progress.unsendable:,} can't be sent")
    return ", ".join(counts)


def _ending(view: View, speed: Speed, now: float) -> str | None:
    """Returns the time to the last row, or to the cap that comes first."""
    progress, rate = view.progress, rows_a_second(view.progress, view.limiter.pace, speed)
    rows_left = None if progress.rows is None else progress.rows - progress.done
    ends: list[tuple[float, str]] = []
    if rows_left and rate > 0:
        wait = max(seconds_to_next(progress.waiting, now) or 0.0, progress.repeats_until - now)
        ends.append((max(wait, rows_left / rate), "to go"))
    if rate > 0 and progress.answers and (cap := view.ledger.answers_to_cap()) is not None:
        answers, name = cap
        answers_a_row = view.ledger.settled.rows / progress.answers
        ends.append((answers / answers_a_row / rate, f"to {name}"))
    seconds = view.job.budget.seconds
    if seconds is not None:
        ends.append((max(0.0, seconds - (now - progress.started)), f"to {SECONDS}"))
    if not ends or rows_left == 0:
        return None
    left, what = min(ends)
    return f"{duration(left)} {what}"


# The pace, and what holds it back.


def pace_parts(view: View, speed: Speed, now: float) -> list[Part]:
    """Returns the rate, the limits on it, what holds it back, and what went wrong."""
    progress, pace = view.progress, view.limiter.pace
    parts = [Part(f"{speed.rows:,.1f} rows/s", 0), *_held(view, now)]
    if pace.requests_per_minute:
        parts.append(Part(_limit(view, speed), 4 if pace.source == "search" else 3))
    if pace.tokens_per_minute:
        parts.append(Part(f"{speed.tokens * 60:,.0f} of {pace.tokens_per_minute:,} tokens/min", 3))
    else:
        parts.append(Part(f"{speed.tokens:,.0f} tokens/s", 7))
    if pace.in_flight is None:
        parts.append(Part(f"{progress.in_flight:,} in flight", 6))
    else:
        parts.append(Part(f"{progress.in_flight:,} of {pace.in_flight:,} in flight (found so far)", 4))
    if view.job.workers is not None:
        parts.append(Part(_workers(progress.workers), 2))
    if progress.by_error:
        kinds = ", ".join(f"{code} x{n:,}" for code, n in progress.by_error.most_common(3))
        parts.append(Part(f"retried {progress.retried:,}, errors: {kinds}", 5))
    if progress.last_error and not _is_in_trouble(progress):
        parts.append(Part(f"last error: {single_line(progress.last_error)}", 8))
    return parts


def _workers(workers: Sequence[Worker]) -> str:
    """Returns the number of workers, and how many requests each has sent to their end."""
    if not workers:
        return "no worker is connected"
    ended = [worker.ended for worker in workers]
    each = f"{' + '.join(f'{number:,}' for number in ended)} requests"
    if len(ended) > _MOST_SHOWN:
        each = f"{min(ended):,} to {max(ended):,} requests each"
    return f"{len(workers)} worker{'' if len(workers) == 1 else 's'}: {each}"


def _limit(view: View, speed: Speed) -> str:
    """Returns the limit on requests, its source, and what is sent of it."""
    pace, given = view.limiter.pace, view.job.limits.requests_per_minute
    sent = "" if speed.requests is None else f"{speed.requests * 60:,.0f} of "
    source = _SOURCES[pace.source]
    if pace.source != "given" and given is not None:
        source += f"; the job's is {given:,}"
    return f"{sent}{pace.requests_per_minute:,.0f} requests/min ({source})"


_SOURCES: dict[Literal["given", "headers", "search"], str] = {
    "given": "limit of the job",
    "headers": "limit of the server",
    "search": "found so far",
}


def _held(view: View, now: float) -> list[Part]:
    """Returns why no more is sent, and until when; nothing if only this machine's speed is the reason."""
    progress, waiting = view.progress, view.progress.waiting
    if late := _late_commit(progress, now):
        return [Part(f"held back by the journal: {late}", 1)]
    if progress.blocked_by is not None:
        return [Part(f"held back by {progress.blocked_by}", 1)]
    if waiting is None:
        if progress.in_flight >= view.job.limits.concurrency:
            return [Part("held back by limits.concurrency", 1)]
        return []
    parts = [Part(_cause(view, waiting, now), 1)]
    seconds = seconds_to_next(waiting, now)
    if seconds is not None and seconds >= 1:
        parts.append(Part(f"next request in {duration_text(seconds)}", 2))
    if waiting.gives_up_at is not None:
        parts.append(Part(f"gives up in {duration_text(max(0.0, waiting.gives_up_at - now))}", 1))
    return parts


def _cause(view: View, waiting: Waiting, now: float) -> str:
    pace, limits = view.limiter.pace, view.job.limits
    if waiting.by == "endpoint":
        return "the endpoint fails"
    if waiting.by == "retry":
        return "all rows left wait for a retry"
    if pace.paused_until - now >= 1:
        return "held back by a 429"
    if pace.source == "given" or (pace.requests_per_minute is None and limits.tokens_per_minute):
        return "held back by the limit of the job"
    return f"held back by the {'limit of the server' if pace.source == 'headers' else 'rate limit'}"


# Money.


def spend_of(view: View) -> Amount:
    """Returns what the job has spent: in earlier runs, and in this one so far."""
    ledger = view.ledger
    return view.before.spend.committed.plus(ledger.settled).plus(ledger.uncertain)


def _money(view: View) -> list[Part]:
    ledger, spent = view.ledger, spend_of(view)
    cap = view.job.budget.nano_usd
    of_cap = "" if cap is None else f" of {usd_text(cap)}"
    parts = [
        Part(f"spent {usd_text(spent.nano_usd)} + {usd_text(ledger.reserved.nano_usd)} reserved{of_cap}", 0)
    ]
    if ledger.pool_left is not None:
        parts.append(Part(f"{usd_text(max(0, ledger.pool_left))} left in the pool", 1))
    if view.server.sandbox:
        parts.append(Part("sandbox: nothing is paid", 2))
    if view.progress.forecast:
        parts.append(Part(view.progress.forecast, 3))
    if ledger.remaining_credits is not None:
        parts.append(Part(f"{ledger.remaining_credits:,} credits left", 1))
    return parts


def duration(seconds: float) -> str:
    """Returns such as 0:09, 14:20 or 2:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration_text(seconds: float) -> str:
    """Returns such as "9 s" or "14:20"."""
    return f"{seconds:.0f} s" if seconds < 60 else duration(seconds)
