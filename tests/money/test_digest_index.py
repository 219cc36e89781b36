"""The index by digest lags behind the attempts: nothing is missed meanwhile, whenever a process dies."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchrun.errors import JournalError
from batchrun.journal import Intent, Journal, create_or_open, digest_index, open_for_reading, writer
from batchrun.journal.attempt_rows import read_attempts
from batchrun.journal.attempts import attempts_of
from batchrun.journal.checking import check_quickly, check_whole
from batchrun.journal.commits import Commits
from batchrun.journal.salvage import salvage
from tests.money import journals
from tests.money.dying import DIED, dying_at_size, dying_within
from tests.money.journals import Reports, answer_to, failure_of, make_journal, start_run, writer_of

BATCH = 5


def digest_of(number: int) -> bytes:
    """As random as real ones are."""
    return blake2b(b"%d" % number, digest_size=16).digest()


def intent(attempt: int, *, run: int = 1, number: int = 1) -> Intent:
    return replace(journals.intent(attempt, run=run, number=number), digest=digest_of(attempt))


def commits_of(journal: Journal) -> Commits:
    return Commits(journal.connection, journal.path)


def answer_all(commits: Commits, attempts: range) -> None:
    commits.write([intent(attempt) for attempt in attempts])
    commits.write([answer_to(attempt) for attempt in attempts])


def tables_of(journal: Journal) -> tuple[int, int]:
    """How many attempts are in the index, and how many records list others."""
    query = "SELECT (SELECT count(*) FROM attempts_by_digest), (SELECT count(*) FROM unindexed)"
    indexed, records = journal.connection.execute(query).fetchone()
    return int(indexed), int(records)


def answered(journal: Journal, attempts: range) -> int:
    return len(journal.settled_digests([digest_of(number) for number in attempts]))


def retried(attempt: int, of: int) -> Intent:
    return replace(intent(attempt, number=2), digest=digest_of(of))


def test_attempts_are_found_before_and_after_they_are_indexed(journal: Journal) -> None:
    commits = commits_of(journal)
    answer_all(commits, range(1, 8))
    assert (tables_of(journal), answered(journal, range(1, 9))) == ((0, 1), 7)
    commits.index_digests()
    assert (tables_of(journal), answered(journal, range(1, 9))) == ((7, 1), 7)
    answer_all(commits, range(8, 10))
    assert (tables_of(journal), answered(journal, range(1, 20))) == ((7, 2), 9)
    check_whole(journal)


def test_the_attempts_of_one_request_are_found_together_wherever_they_are(journal: Journal) -> None:
    commits = commits_of(journal)
    for attempt in range(1, 6):
        commits.write([retried(attempt, of=7)])
        commits.write([failure_of(attempt, final=False)])
        if attempt == 2:
            commits.index_digests()
    commits.write([retried(6, of=7)])
    commits.write([answer_to(6)])
    digest = digest_of(7)
    assert journal.histories([digest])[digest].attempts == 6
    assert len(attempts_of(journal, [digest])) == 6
    assert journal.settled_digests([digest]) == {digest: False}
    assert journal.attempted_before(2, [digest, digest_of(1)]) == {digest}
    assert commits.write([retried(7, of=7)]) == {7}, "it has been answered"


def test_requests_with_several_attempts_are_known_wherever_these_are(journal: Journal) -> None:
    commits = commits_of(journal)
    attempts = iter(range(1, 100))

    def fail(*requests: int) -> None:
        for request in requests:
            attempt = next(attempts)
            commits.write([retried(attempt, of=request)])
            commits.write([failure_of(attempt, final=False)])

    fail(1, 1, 2, 3)
    commits.index_digests()
    fail(2, 4, 4, 5)
    assert journal.digests.repeated(3) == frozenset(map(digest_of, (1, 2, 4)))
    assert journal.digests.repeated(2) is None


def test_an_intent_is_refused_whose_response_is_in_the_same_batch(journal: Journal) -> None:
    commits = commits_of(journal)
    commits.write([intent(1)])
    assert commits.write([answer_to(1), retried(2, of=1), retried(3, of=2)]) == {2}


def test_what_a_failed_transaction_has_written_is_not_found(journal: Journal) -> None:
    commits = commits_of(journal)
    commits.write([intent(1), intent(2)])
    journal.connection.execute(
        "CREATE TEMP TRIGGER fails BEFORE INSERT ON intent_blocks BEGIN SELECT raise(ABORT, 'no'); END"
    )
    with pytest.raises(Exception, match="no"):
        commits.write([answer_to(1), intent(3)])
    assert answered(journal, range(1, 4)) == 0
    journal.connection.execute("DROP TRIGGER fails")
    assert commits.write([answer_to(1), intent(3), retried(4, of=1)]) == {4}
    assert answered(journal, range(1, 4)) == 1


def test_a_reader_sees_each_commit_whether_it_is_indexed_or_not(journal: Journal) -> None:
    """Also where records are indexed that it had read, and where they are that it never saw."""
    commits = commits_of(journal)
    with closing(open_for_reading(journal.path)) as reader:
        for first in range(1, 200, BATCH):
            answer_all(commits, range(first, first + BATCH))
            if first % 3 == 0:
                assert answered(reader, range(1, 250)) == first + BATCH - 1
            if first % 7 == 0:
                commits.index_digests()
        assert answered(reader, range(1, 250)) == 200


def test_what_is_indexed_between_a_readers_two_looks_is_not_missed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = commits_of(journal)
    answer_all(commits, range(1, 4))
    with closing(open_for_reading(journal.path)) as reader:
        assert answered(reader, range(1, 4)) == 3
        answer_all(commits, range(4, 7))
        records = digest_index.unindexed_records

        def indexed_just_before(*arguments: object) -> object:
            monkeypatch.setattr(digest_index, "unindexed_records", records)
            commits.index_digests()
            return records(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(digest_index, "unindexed_records", indexed_just_before)
        assert answered(reader, range(1, 7)) == 6
        answer_all(commits, range(7, 9))
        assert answered(reader, range(1, 9)) == 8


def test_the_memory_of_a_reader_is_bounded_by_what_is_not_indexed(journal: Journal) -> None:
    commits = commits_of(journal)
    with closing(open_for_reading(journal.path)) as reader:
        index = digest_index.DigestIndex(reader.connection, journal.path)
        for first in range(1, 61, 10):
            answer_all(commits, range(first, first + 10))
            assert index.unindexed() == 10
            commits.index_digests(at_least=10)
        assert index.unindexed() == 0


def test_a_large_journal_is_indexed_in_parts_and_all_is_found_and_whole_between_them(
    journal: Journal,
) -> None:
    commits = commits_of(journal)
    answer_all(commits, range(1, 101))
    commits.index_digests()
    answer_all(commits, range(101, 151))
    seen = []
    with closing(open_for_reading(journal.path)) as reader:
        while more := commits.index_digests(attempts_in_a_part=30):
            seen.append(tables_of(journal)[0])
            newest = 150 + len(seen)
            answer_all(commits, range(newest, newest + 1))  # commits go on meanwhile
            check_whole(journal)
            assert answered(reader, range(1, 300)) == answered(journal, range(1, 300)) == newest
            assert journal.digests.repeated(10) == frozenset()
        assert not more
        assert answered(reader, range(1, 300)) == newest
    assert len(seen) == 5
    assert sorted(set(seen)) == seen, "each part adds some"
    assert tables_of(journal) == (150, 5), "what came meanwhile waits"
    check_whole(journal)
    commits.index_digests()
    assert tables_of(journal) == (155, 1)


def test_a_process_that_died_between_parts_leaves_them_to_the_next_one(journal: Journal) -> None:
    answer_all(first := commits_of(journal), range(1, 61))
    assert first.index_digests(attempts_in_a_part=20)
    again = commits_of(journal)
    while again.index_digests(attempts_in_a_part=20):
        check_whole(journal)
    assert (tables_of(journal), answered(journal, range(1, 61))) == ((60, 1), 60)
    check_whole(journal)


def test_a_run_that_ends_leaves_everything_indexed(tmp_path: Path) -> None:
    make_journal(tmp_path / "journal.sqlite", 40)
    with closing(open_for_reading(tmp_path / "journal.sqlite")) as journal:
        assert tables_of(journal) == (40, 1)


def test_requests_in_doubt_are_indexed_when_they_are_booked(journal: Journal) -> None:
    commits_of(journal).write([intent(1), intent(2)])
    journal.abandon_open_intents(5, final=False)
    check_whole(journal)
    assert len(journal.histories([digest_of(1), digest_of(2)])) == 2


def test_without_room_the_run_goes_on_unindexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    monkeypatch.setattr(writer, "MOST_UNINDEXED", 3)
    monkeypatch.setattr(digest_index.DigestIndex, "index_part", full)
    journal = create_or_open(tmp_path / "journal.sqlite")
    run = start_run(journal)
    reports = Reports()
    writes = writer_of(journal, reports)
    for attempt in range(1, 10):
        writes.write_intent(intent(attempt, run=run))
        assert reports.committed.acquire(timeout=20)
        writes.record(answer_to(attempt))
    writes.close()
    assert reports.errors == ()
    assert (tables_of(journal)[0], answered(journal, range(1, 10))) == (0, 9)
    journal.close()


@pytest.mark.parametrize("damage", ["digests = zeroblob(length(digests))", "attempts = '[2,1,3,4,5]'"])
def test_a_damaged_list_is_an_error_and_never_a_request_unanswered(journal: Journal, damage: str) -> None:
    answer_all(commits_of(journal), range(1, 6))
    journal.connection.execute(f"UPDATE unindexed SET {damage}")
    for read in (lambda: answered(journal, range(1, 6)), lambda: check_quickly(journal)):
        with pytest.raises(JournalError, match="record 1 of its unindexed attempts doesn't match"):
            read()
    with pytest.raises(JournalError, match="record 1 of its unindexed attempts doesn't match"):
        commits_of(journal).index_digests()
    assert tables_of(journal) == (0, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM attempts_by_digest WHERE attempt = 3",
        "UPDATE attempts_by_digest SET attempt = 99 WHERE attempt = 3",
        "UPDATE attempts_by_digest SET digest = zeroblob(16) WHERE attempt = 3",
        "INSERT INTO attempts_by_digest VALUES (zeroblob(16), 3)",
        "DELETE FROM unindexed",
        "DELETE FROM attempts WHERE attempt = 3",
    ],
)
def test_a_whole_check_compares_the_index_with_the_attempts(journal: Journal, damage: str) -> None:
    commits = commits_of(journal)
    answer_all(commits, range(1, 6))
    commits.index_digests()
    answer_all(commits, range(6, 9))
    check_whole(journal)
    journal.connection.execute(damage)
    with pytest.raises(JournalError, match="its index by digest doesn't match its attempts"):
        check_whole(journal)


def test_a_whole_check_finds_what_is_listed_and_is_no_attempt(journal: Journal) -> None:
    commits = commits_of(journal)
    answer_all(commits, range(1, 6))
    commits.index_digests()
    (third,) = read_attempts(journal.connection, journal.path, "attempt = 3")
    digest_index.list_unindexed(journal.connection, [third])
    check_whole(journal)
    digest_index.list_unindexed(journal.connection, [third._replace(attempt=9)])
    with pytest.raises(JournalError, match="its index by digest doesn't match its attempts"):
        check_whole(journal)


def test_a_salvaged_journal_has_an_index_of_its_own(tmp_path: Path) -> None:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        start_run(journal)
        commits = commits_of(journal)
        answer_all(commits, range(1, 41))
        commits.index_digests()
        answer_all(commits, range(41, 61))
        expected = journal.histories([digest_of(number) for number in range(1, 61)])
        journal.connection.execute("UPDATE unindexed SET crc32 = 0")
        journal.connection.execute("DELETE FROM attempts_by_digest WHERE attempt < 20")
    salvage(tmp_path / "journal.sqlite", tmp_path / "saved.sqlite")
    with closing(create_or_open(tmp_path / "saved.sqlite")) as saved:
        check_whole(saved)
        assert saved.histories(list(expected)) == expected
        assert len(expected) == 60


def dies_writing(path: Path, told: int, prepare: Callable[[], object]) -> bool:
    """Writes and indexes in a child process; returns whether `prepare` has killed it.

    The child tells the pipe `told` of each batch once it is durable.
    """
    child = os.fork()
    if child == 0:
        try:
            journal = create_or_open(path)
            prepare()
            commits = commits_of(journal)
            first = journal.next_attempt()
            for start in range(first, first + 12 * BATCH, BATCH):
                batch = range(start, start + BATCH)
                ends = [answer_to(attempt) for attempt in range(start - BATCH, start) if attempt >= first]
                commits.write([*ends, *(intent(attempt) for attempt in batch)])
                os.write(told, bytes(len(ends)))
                commits.index_digests(at_least=4 * BATCH, attempts_in_a_part=3 * BATCH)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, DIED)
    return status != 0


def dying_at_step(step: int) -> Callable[[], object]:
    """The process dies at the beginning of so many steps of the code that commits and indexes."""
    return dying_within({digest_index.__file__, sys.modules[Commits.__module__].__file__}, step)


@pytest.mark.parametrize(
    ("dying", "moments"),
    [(dying_at_size, range(40_000, 520_000, 20_000)), (dying_at_step, range(5, 2_000, 83))],
)
def test_a_kill_between_block_and_commit_or_while_indexing_loses_nothing(
    dying: Callable[[int], Callable[[], object]], moments: range, tmp_path: Path
) -> None:
    """What was reported as committed is found, by readers and by the next run, which completes the index."""
    kills = 0
    indexed_when_killed = set()
    for moment in moments:
        folder = tmp_path / str(moment)
        folder.mkdir()
        path = folder / "journal.sqlite"
        with closing(create_or_open(path)) as journal:
            start_run(journal)
        reading, told = os.pipe()
        killed = dies_writing(path, told, dying(moment))
        os.close(told)
        with os.fdopen(reading, "rb") as pipe:
            ended = len(pipe.read())
        kills += killed
        with closing(open_for_reading(path)) as reader:
            assert answered(reader, range(1, ended + 1)) == ended
        with closing(create_or_open(path)) as journal:
            check_whole(journal)
            found = answered(journal, range(1, 100))
            assert ended <= found <= ended + BATCH
            if killed:
                indexed_when_killed.add(tables_of(journal)[0])
            assert journal.abandon_open_intents(9, final=False) <= BATCH
            commits_of(journal).index_digests()
            assert answered(journal, range(1, 100)) == found
            check_whole(journal)
        shutil.rmtree(folder)
    assert kills >= 10
    assert len(indexed_when_killed) >= 3, "they died before the first indexing, between, and after"
