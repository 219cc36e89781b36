"""Reads what happened when: the runs, and the attempts of one run summed over intervals of time."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from batchrun.journal.connection import transaction, translated_errors
from batchrun.journal.journal import Journal
from batchrun.journal.records import Outcome
from batchrun.journal.totals import Sums


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
    requests: int = 0
    answered: int = 0
    nano_usd: int = 0
    uncertain_nano_usd: int = 0


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
    with translated_errors(journal.path), transaction(journal.connection):
        found = journal.connection.execute(
            "SELECT run, version, started_at, finished_at, job, exit_code, reason FROM runs"
            " WHERE sandbox = ? ORDER BY run",
            (int(sandbox),),
        ).fetchall()
        sums: dict[tuple[int, str], Sums] = {}
        for group, part in journal.sums().items():
            key = group.run, group.outcome
            sums[key] = sums.get(key, Sums()).plus(part)
    return [msgspec.structs.replace(RunRecord(*row), **_sums_of(sums, row[0])) for row in found]


def _sums_of(sums: Mapping[tuple[int, str], Sums], run: int) -> dict[str, int]:
    answered, refused, uncertain = (sums.get((run, outcome), Sums()) for outcome in Outcome)
    return {
        "requests": answered.requests + refused.requests + uncertain.requests,
        "answered": answered.requests,
        "nano_usd": answered.nano_usd,
        "uncertain_nano_usd": uncertain.nano_usd,
    }


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


def failure_kinds(journal: Journal, sandbox: bool, without: int = 0) -> list[FailureKind]:
    """Returns the attempts of one kind of runs that brought no answer, the commonest kind first.

    Those of the run `without` are left out.
    """
    with translated_errors(journal.path):
        found = journal.connection.execute(
            "SELECT ifnull(error_code, 'unknown'), count(*), sum(final), ifnull(max(error), '') FROM attempts"
            " JOIN runs USING (run) WHERE outcome <> 'answered' AND sandbox = ? AND run <> ?"
            " GROUP BY 1 ORDER BY 2 DESC",
            (int(sandbox), without),
        ).fetchall()
    return [FailureKind(*row) for row in found]
