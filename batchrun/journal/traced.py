"""Reads the attempts of a run that become spans: every failure, and some of the answers."""

from collections.abc import Iterator

from batchrun.journal.attempt_rows import FAILURES, read_attempts
from batchrun.journal.connection import translated_errors
from batchrun.journal.journal import Journal
from batchrun.journal.records import AttemptRow


def failures_of(journal: Journal, run: int) -> Iterator[AttemptRow]:
    """Yields the attempts of a run without an answer, by its index. Raises JournalError."""
    with translated_errors(journal.path):
        yield from read_attempts(journal.connection, journal.path, f"run = ? AND {FAILURES}", (run,))


def some_answers_of(journal: Journal, run: int, every: int) -> Iterator[AttemptRow]:
    """Yields the first answer of each `every` attempt numbers of the newest run, from the newest on.

    It reads these alone, so its time is that of what it yields. Raises JournalError.
    """
    with translated_errors(journal.path):
        (last,) = journal.connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()
        for start in range(last - last % every, -1, -every):
            numbers = (start, start + every)
            found = journal.connection.execute(
                "SELECT run FROM attempts WHERE attempt >= ? AND attempt < ? LIMIT 1", numbers
            ).fetchone()
            if found is not None and found[0] < run:
                return
            condition = "attempt >= ? AND attempt < ? AND run = ? AND outcome = 'answered'"
            where = f"{condition} ORDER BY attempt LIMIT 1"
            yield from read_attempts(journal.connection, journal.path, where, (*numbers, run))
