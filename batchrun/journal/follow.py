"""Follows a run in its journal: each look reads what has ended since the last one, and no more."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from batchrun.journal.connection import transaction, translated_errors
from batchrun.journal.journal import Journal
from batchrun.journal.records import Intent, Outcome
from batchrun.journal.timeline import FailureKind, Interval

LEAST_MILLISECONDS = 200
MOST_INTERVALS = 4_096
"""Of a longer run, the intervals grow: each two of them become one."""

_QUERY = (
    "SELECT (started_at - :start) / :width, (finished_at - :start) / :width, outcome,"
    " ifnull(http_status = 429, 0), ifnull(error_code, 'unknown'), count(*), ifnull(sum(nano_usd), 0),"
    " sum(final), ifnull(max(error), '') FROM attempts WHERE run = :run AND {} GROUP BY 1, 2, 3, 4, 5"
)
_NEW = _QUERY.format("attempt > :newest")
_OPEN_BEFORE = _QUERY.format("attempt IN (SELECT value FROM json_each(:open))")


class Follower:
    """The sums over the attempts of one run, as far as they have been looked at.

    An attempt is in the journal as an intent before it ends. So those that end after a look are among the
    intents that were open then, or have a higher number than any that was there.
    """

    def __init__(self, journal: Journal, run: int, started_at: int, width: int = LEAST_MILLISECONDS) -> None:
        self.run = run
        self.width = width
        """Milliseconds of an interval."""
        self.open: list[Intent] = []
        self._journal = journal
        self._started_at = started_at
        self._newest = 0
        self._ended: dict[tuple[int, str, bool], list[int]] = {}
        self._begun: Counter[int] = Counter()
        self._failures: dict[str, list[Any]] = {}

    def look(self) -> None:
        """Adds what has ended since the last look. Raises JournalError."""
        values = {
            "start": self._started_at,
            "width": self.width,
            "run": self.run,
            "newest": self._newest,
            "open": msgspec.json.encode([intent.attempt for intent in self.open]).decode(),
        }
        connection = self._journal.connection
        with translated_errors(self._journal.path), transaction(connection):
            found = connection.execute(_NEW, values).fetchall()
            if self.open:
                found += connection.execute(_OPEN_BEFORE, values).fetchall()
            (newest,) = connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()
            self.open = [intent for intent in self._journal.open_intents() if intent.run == self.run]
        self._newest = max([newest, *(intent.attempt for intent in self.open)])
        self._add(found)
        while len(self._begun) > MOST_INTERVALS:
            self._widen()

    def ended(self) -> list[Interval]:
        """Returns the ended attempts, summed over intervals from the run's start on."""
        return [Interval(*key, *sums) for key, sums in self._ended.items()]

    def begun(self) -> dict[int, int]:
        """Returns how many attempts began in each interval, those in flight included."""
        in_flight = Counter((intent.started_at - self._started_at) // self.width for intent in self.open)
        return dict(self._begun + in_flight)

    def failures(self) -> list[FailureKind]:
        """Returns the attempts that brought no answer, the commonest kind first."""
        kinds = [FailureKind(code, *sums) for code, sums in self._failures.items()]
        return sorted(kinds, key=lambda kind: -kind.attempts)

    def answers_since(self, instant: int) -> int:
        """Returns the answers since an instant (milliseconds since 1970 UTC), to the interval."""
        first = (instant - self._started_at) // self.width
        return sum(
            attempts
            for (number, outcome, _), (attempts, _) in self._ended.items()
            if outcome == Outcome.ANSWERED and number >= first
        )

    def _add(self, found: Iterable[tuple[Any, ...]]) -> None:
        for begun, ended, outcome, refused, code, attempts, nano_usd, final, example in found:
            self._begun[begun] += attempts
            sums = self._ended.setdefault((ended, outcome, bool(refused)), [0, 0])
            sums[0] += attempts
            sums[1] += nano_usd
            if outcome != Outcome.ANSWERED:
                kind = self._failures.setdefault(code, [0, 0, ""])
                kind[0] += attempts
                kind[1] += final
                kind[2] = max(kind[2], example)

    def _widen(self) -> None:
        self.width *= 2
        ended, begun = self._ended, self._begun
        self._ended, self._begun = {}, Counter()
        for number, attempts in begun.items():
            self._begun[number // 2] += attempts
        for (number, outcome, refused), (attempts, nano_usd) in ended.items():
            sums = self._ended.setdefault((number // 2, outcome, refused), [0, 0])
            sums[0] += attempts
            sums[1] += nano_usd
