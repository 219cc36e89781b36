"""Checks that a journal is undamaged: quickly at most starts, and as a whole once a day."""

from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.journal.attempt_rows import read_attempts, read_numbers
from batchrun.journal.blocks import open_blocks
from batchrun.journal.connection import damaged, transaction, translated_errors
from batchrun.journal.digest_index import check_index, unindexed_records
from batchrun.journal.journal import Journal
from batchrun.journal.schema import FORMAT, OVERRUN_CONTROL, RUN_CONTROL, has_our_tables
from batchrun.journal.totals import read_sums, sum_up

WHOLE_CHECK_BYTES = 32 * 2**20
"""A smaller journal is checked as a whole at each start: it takes a fraction of a second."""


def check_at_start(journal: Journal, now: int) -> None:
    """Raises JournalError where the journal is damaged, as far as this is looked for.

    All of it, if it is small or the last whole check is a day old (`now` is in milliseconds since 1970 UTC);
    else the tables, the runs, the open intents and the sums. Attempts and answers are compared with their
    checksums whenever they are read.
    """
    is_large = journal.path.stat().st_size > WHOLE_CHECK_BYTES
    if is_large and 0 <= now - _checked_at(journal) < MILLISECONDS_PER_DAY:
        check_quickly(journal)
        return
    check_whole(journal)
    with translated_errors(journal.path), transaction(journal.connection):
        journal.connection.execute("DELETE FROM checks")
        journal.connection.execute("INSERT INTO checks VALUES (?)", (now,))


def check_whole(journal: Journal) -> None:
    """Raises JournalError where anything in the journal is damaged but a response or a text of an error."""
    with translated_errors(journal.path):
        (verdict,) = journal.connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise damaged(journal.path, str(verdict).splitlines()[-1])
        check_quickly(journal)
        sums = sum_up(read_numbers(journal.connection, journal.path))
        if journal.format == FORMAT:
            check_index(journal.connection, journal.path)
            stored = read_sums(journal.connection, journal.path)
            if {group: part.stored() for group, part in sums.items()} != {
                group: part.stored() for group, part in stored.items()
            }:
                raise damaged(journal.path, "its totals are not the sums over its attempts")


def check_answers(journal: Journal) -> None:
    """Raises JournalError where a response is damaged."""
    with translated_errors(journal.path):
        for _ in read_attempts(journal.connection, journal.path):
            pass


def check_answers_of_small(journal: Journal) -> None:
    """Raises JournalError where a response is damaged, if the journal is small."""
    if journal.path.stat().st_size <= WHOLE_CHECK_BYTES:
        check_answers(journal)


def check_quickly(journal: Journal) -> None:
    """Raises JournalError where the tables, the runs, the open intents or the sums are damaged."""
    if journal.format < FORMAT:
        return
    connection, path = journal.connection, journal.path
    with translated_errors(path):
        if not has_our_tables(connection):
            raise damaged(path, "its tables are not as they were made")
        for table, control in (("runs", RUN_CONTROL), ("overruns", OVERRUN_CONTROL)):
            if connection.execute(f"SELECT 1 FROM {table} WHERE control IS NOT {control} LIMIT 1").fetchone():
                raise damaged(path, f"a record of {table} doesn't match its sum")
        open_blocks(connection, path)
        read_sums(connection, path)
        for _ in unindexed_records(connection, path):
            pass


def _checked_at(journal: Journal) -> int:
    with translated_errors(journal.path):
        row = journal.connection.execute("SELECT max(checked_at) FROM checks").fetchone()
    return int(row[0] or 0)
