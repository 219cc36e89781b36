"""The rates of a run, measured from looks at its counts, and the time to its last row."""

import math
from dataclasses import dataclass

from batchrun.engine.limits.known_limits import Pace
from batchrun.exchange import Waiting
from batchrun.runs.observers.progress import Progress

MEASURED_OVER = 10.0
"""Minimum seconds over which the displayed rates are measured."""
LATELY = 60.0
"""Mean age, in seconds, of what the time to go is computed from."""
LEAST_OF_MEAN = 0.1
"""The rate lately counts as no less than this share of the whole run's, else a long stall, whose cause may be
gone the next moment, would promise years."""
FEWEST_ROWS = 10
"""Slow rows: the rate lately is measured over the time of so many at least."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Per second, over the last ten seconds; `rows_lately` over the last minute or so, without outages.

    `requests` is None just after the limit has fallen: what was sent before tells nothing about it.
    """

    rows: float
    requests: float | None
    tokens: float
    rows_lately: float


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    rows: int
    requests: int
    tokens: int
    limit: float


class RateMeter:
    """Measures rates from successive looks at the counts. Times are seconds of the run's clock."""

    def __init__(self, progress: Progress, now: float) -> None:
        self._progress = progress
        self._looks = [_Look(now, *_counts(progress), 0.0)]
        # Of the rate lately: rows and seconds, those longer ago counting less; then all of the run's.
        self._rows = self._seconds = 0.0
        self._all_rows, self._all_seconds = 0, 0.0

    def read(self, now: float, limit: float | None) -> Speed:
        """`limit` in requests a minute, None for none."""
        look = _Look(now, *_counts(self._progress), limit or math.inf)
        self._add(look.rows - self._looks[-1].rows, now - self._looks[-1].at)
        self._looks.append(look)
        while now - self._looks[1].at > MEASURED_OVER:
            del self._looks[0]
        first = self._looks[0]
        seconds = max(now - first.at, 1e-9)
        return Speed(
            (look.rows - first.rows) / seconds,
            self._requests(look),
            (look.tokens - first.tokens) / seconds,
            self._rows_lately(now),
        )

    def _add(self, rows: int, seconds: float) -> None:
        """Counts a time, unless the endpoint held the run back meanwhile: it says nothing about the rest."""
        waiting = self._progress.waiting
        if not rows and waiting is not None and waiting.by == "endpoint":
            return
        self._all_rows += rows
        self._all_seconds += seconds
        memory = max(LATELY, FEWEST_ROWS * self._all_seconds / max(self._all_rows, 1))
        kept = math.exp(-seconds / memory)
        self._rows = self._rows * kept + rows
        self._seconds = self._seconds * kept + seconds

    def _rows_lately(self, now: float) -> float:
        """A pause that a limit has begun belongs to the rows that filled it."""
        if not self._all_rows:
            return 0.0
        waiting = self._progress.waiting
        by_limit = waiting is not None and waiting.by == "rate limit"
        pause = (seconds_to_next(waiting, now) or 0.0) if by_limit else 0.0
        return max(
            self._rows / max(self._seconds + pause, 1e-9),
            LEAST_OF_MEAN * self._all_rows / max(self._all_seconds + pause, 1e-9),
        )

    def _requests(self, last: _Look) -> float | None:
        """Measures back to the latest time at which the limit was higher."""
        begin = last
        for look in reversed(self._looks):
            if look.limit > 1.1 * last.limit:
                break
            begin = look
        if begin.at == last.at:
            return None
        # The ends of a short time may hold one request more than its share of the limit.
        return min((last.requests - begin.requests) / (last.at - begin.at), last.limit / 60)


def _counts(progress: Progress) -> tuple[int, int, int]:
    return progress.answers + progress.failed, progress.requests, progress.tokens


def rows_a_second(progress: Progress, pace: Pace, speed: Speed) -> float:
    """Returns the rate to expect: a known limit's where it binds, else that of the last minute.

    A known limit bounds what is expected in any case, whatever the first seconds were like.
    """
    by_limit = _by_limit(progress, pace)
    waiting = progress.waiting
    if waiting is not None and waiting.by == "rate limit" and by_limit < math.inf:
        return by_limit
    return min(speed.rows_lately, by_limit)


def _by_limit(progress: Progress, pace: Pace) -> float:
    rows = progress.answers + progress.failed
    rates = [math.inf]
    if pace.requests_per_minute and pace.source != "search":
        refused = sum(progress.by_error.values())
        a_row = max(1.0, (progress.requests - refused - progress.in_flight) / rows) if rows else 1.0
        rates.append(pace.requests_per_minute / 60 / a_row)
    if pace.tokens_per_minute and rows and progress.tokens:
        rates.append(pace.tokens_per_minute / 60 * rows / progress.tokens)
    return min(rates)


def seconds_to_next(waiting: Waiting | None, now: float) -> float | None:
    """Returns the seconds until the next request, None if nothing is known to hold it back, or until when."""
    return None if waiting is None or math.isinf(waiting.until) else max(0.0, waiting.until - now)
