"""Reads what happened when: the runs, and the attempts of one run summed over intervals of time."""

from typing import NamedTuple

import msgspec

from batchrun.journal.connection import translated_errors
from batchrun.journal.journal import Journal


class RunRecord(msgspec.Struct, frozen=True, gc=False):
    """A run, and the sums over its attempts. Times are milliseconds since 1970 UTC; `job` is JSON.

    `nano_usd` is settled, `uncertain_nano_usd` is not.
    """

    run: int
    version: str
    started_at: int
    finished_at: int | None
    job: str
    exit_code: int | None
    reason: str | None
    requests: int
    answered: int
    nano_usd: int
    uncertain_nano_usd: int


class Interval(NamedTuple):
    """The attempts that ended in the `number`th interval in one way. `refused`: with status 429."""

    number: int
    outcome: str
    refused: bool
    attempts: int
    nano_usd: int


class FailureKind(NamedTuple):
    """Attempts without an answer: how many, and how many of them ended their row."""

    error_code: str
    attempts: int
    final: int
    example: str


def runs_of(journal: Journal, sandbox: bool) -> list[RunRecord]:
    """Returns the runs of one kind (sandbox or not), the oldest first. Raises JournalError."""
    with translated_errors(journal.path):
        found = journal.connection.execute(
            "SELECT run, version, started_at, finished_at, job, exit_code, reason, ifnull(requests, 0),"
            " ifnull(answered, 0), ifnull(settled, 0), ifnull(uncertain, 0) FROM runs LEFT JOIN"
            " (SELECT run, count(*) AS requests, sum(outcome = 'answered') AS answered,"
            " sum(CASE outcome WHEN 'answered' THEN nano_usd END) AS settled,"
            " sum(CASE outcome WHEN 'uncertain' THEN nano_usd END) AS uncertain FROM attempts GROUP BY run)"
            " USING (run) WHERE sandbox = ? ORDER BY run",
            (int(sandbox),),
        ).fetchall()
    return [RunRecord(*row) for row in found]


def last_answer_at(journal: Journal, run: int) -> int | None:
    """Returns when the last answer of a run came. Raises JournalError."""
    with translated_errors(journal.path):
        (last,) = journal.connection.execute(
            "SELECT max(finished_at) FROM attempts WHERE run = ? AND outcome = 'answered'", (run,)
        ).fetchone()
    return None if last is None else int(last)


def ends_by_interval(journal: Journal, run: int, start: int, width: int) -> list[Interval]:
    """Returns the ended attempts of a run, summed over intervals of `width` milliseconds from `start` on.

    Their number is bounded by that of the intervals, whatever the size of the run. Raises JournalError.
    """
    with translated_errors(journal.path):
        found = journal.connection.execute(
            "SELECT (finished_at - ?2) / ?3, outcome, ifnull(http_status = 429, 0), count(*),"
            " ifnull(sum(nano_usd), 0) FROM attempts WHERE run = ?1 GROUP BY 1, 2, 3",
            (run, start, width),
        ).fetchall()
    return [Interval(number, outcome, bool(refused), *sums) for number, outcome, refused, *sums in found]


def begins_by_interval(journal: Journal, run: int, start: int, width: int) -> dict[int, int]:
    """Returns how many attempts of a run began in each interval, those in flight included."""
    with translated_errors(journal.path):
        return dict(
            journal.connection.execute(
                "SELECT (started_at - ?2) / ?3, count(*) FROM (SELECT started_at, run FROM attempts"
                " UNION ALL SELECT started_at, run FROM intents) WHERE run = ?1 GROUP BY 1",
                (run, start, width),
            )
        )


def failure_kinds(journal: Journal, sandbox: bool) -> list[FailureKind]:
    """Returns the attempts of one kind of runs that brought no answer, the commonest kind first."""
    with translated_errors(journal.path):
        found = journal.connection.execute(
            "SELECT ifnull(error_code, 'unknown'), count(*), sum(final), ifnull(max(error), '') FROM attempts"
            " JOIN runs USING (run) WHERE outcome <> 'answered' AND sandbox = ? GROUP BY 1 ORDER BY 2 DESC",
            (int(sandbox),),
        ).fetchall()
    return [FailureKind(*row) for row in found]
