"""A follower of a journal adds up what has ended, each attempt once, whatever the order of the ends."""

from collections import Counter
from pathlib import Path

import pytest

from batchrun.journal import Journal, create_or_open
from batchrun.journal.attempt_rows import abandoned
from batchrun.journal.blocks import write_blocks
from batchrun.journal.connection import transaction
from batchrun.journal.digest_index import insert_indexed
from batchrun.journal.follow import MOST_INTERVALS, Follower
from batchrun.journal.records import AttemptRow, Intent
from batchrun.journal.timeline import FailureKind

START = 1_700_000_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = create_or_open(tmp_path / "journal.sqlite")
    journal.start_run("1", START, False, "e", "f", "{}")
    return journal


def intent(attempt: int, at: int = 0) -> Intent:
    return Intent(attempt, 1, attempt.to_bytes(16), 1, START + at, 1_000, 0, 0)


def begin(journal: Journal, *intents: Intent) -> None:
    with transaction(journal.connection):
        write_blocks(journal.connection, intents)


def end(journal: Journal, begun: Intent, at: int) -> AttemptRow:
    """Ends an intent without an answer: the record that a run writes for one that it gave up."""
    row = abandoned(begun, START + at, final=True)
    insert_indexed(journal.connection, [row])
    return row


def number_of_ends(follower: Follower) -> int:
    return sum(interval.attempts for interval in follower.ended())


def test_each_end_counts_once_whatever_the_order(journal: Journal) -> None:
    intents = [intent(number) for number in range(1, 7)]
    begin(journal, *intents)
    follower = Follower(journal, 1, START)
    for place in (5, 0, 3):
        end(journal, intents[place], 100)
        follower.look()
        follower.look()
    assert number_of_ends(follower) == 3
    assert sorted(open_.attempt for open_ in follower.open) == [2, 3, 5]
    begin(journal, intent(7))
    for place in (1, 2, 4):
        end(journal, intents[place], 900)
    follower.look()
    assert number_of_ends(follower) == 6
    assert [open_.attempt for open_ in follower.open] == [7]
    assert follower.begun() == {0: 7}
    assert Counter({each.number: each.attempts for each in follower.ended()}) == {0: 3, 4: 3}


def test_one_that_ends_between_two_looks_is_seen_although_its_intent_never_was(journal: Journal) -> None:
    follower = Follower(journal, 1, START)
    follower.look()
    begun = intent(1)
    begin(journal, begun)
    end(journal, begun, 50)
    follower.look()
    assert number_of_ends(follower) == 1


def test_failures_are_those_of_the_run_with_an_example(journal: Journal) -> None:
    row = end(journal, intent(1), 10)
    follower = Follower(journal, 1, START)
    follower.look()
    assert follower.failures() == [FailureKind(row.error_code or "", 1, 1, row.error or "")]
    assert follower.answers_since(START) == 0
    other = Follower(journal, 2, START)
    other.look()
    assert other.failures() == []


def test_a_long_run_has_no_more_intervals_than_are_kept(journal: Journal) -> None:
    follower = Follower(journal, 1, START)
    ends = [intent(number, number * 200) for number in range(1, 2 * MOST_INTERVALS)]
    with transaction(journal.connection):
        for begun in ends:
            end(journal, begun, begun.started_at - START)
    follower.look()
    assert len(follower.begun()) <= MOST_INTERVALS
    assert sum(follower.begun().values()) == number_of_ends(follower) == len(ends)
    assert follower.width * max(follower.begun()) == pytest.approx(len(ends) * 200, rel=0.01)
