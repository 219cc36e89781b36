"""What a transaction of the journal leaves when the process dies around it, and when it isn't alone."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchrun.errors import JournalError, StorageError
from batchrun.journal import Journal, Outcome, create_or_open
from batchrun.journal.checking import check_at_start, check_whole
from batchrun.journal.commits import Commits, Record, Withdrawal
from tests.money.journals import answer_to, digest_of, failure_of, intent, make_journal, start_run

DAY = 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(create_or_open(tmp_path / "journal.sqlite")) as journal:
        start_run(journal)
    return tmp_path / "journal.sqlite"


def commits_of(journal: Journal) -> Commits:
    return Commits(journal.connection, journal.path)


def intents(*attempts: int) -> list[Record]:
    """Each reserves an amount of its own."""
    return [intent(attempt, nano_usd=500 + attempt) for attempt in attempts]


def killed(path: Path, *batches: Sequence[Record], prepare: Callable[[], object] = lambda: None) -> None:
    """Writes the batches in a process that dies without closing anything, or before, by `prepare`."""
    child = os.fork()
    if child == 0:
        commits = commits_of(create_or_open(path))
        prepare()
        for batch in batches:
            commits.write(batch)
        os._exit(0)
    os.waitpid(child, 0)


def reserved(path: Path) -> dict[int, int]:
    """The uncertain attempts and their amounts, once the dead run was given up. The whole is checked."""
    with closing(create_or_open(path)) as journal:
        check_whole(journal)
        opened = journal.totals(sandbox=False)
        journal.abandon_open_intents(5, final=False)
        check_whole(journal)
        after = journal.totals(sandbox=False)
        assert after.spend.uncertain.nano_usd == opened.spend.uncertain.nano_usd + opened.open.nano_usd
        found = journal.connection.execute(
            "SELECT attempt, nano_usd FROM attempts WHERE outcome = 'uncertain'"
        )
        return dict(found.fetchall())


def test_a_kill_between_the_block_and_the_commit_leaves_no_intent(path: Path) -> None:
    """None of its requests was sent: they wait for the commit."""

    def die_after_the_block() -> None:
        written = Commits._write_block

        def write_block(*arguments: object) -> None:
            written(*arguments)  # type: ignore[arg-type]
            os._exit(9)

        Commits._write_block = write_block  # type: ignore[method-assign, assignment]

    killed(path, intents(1, 2, 3), prepare=die_after_the_block)
    assert reserved(path) == {}


def test_after_a_kill_each_open_intent_of_a_block_counts_at_its_own_amount(path: Path) -> None:
    killed(path, intents(1, 2, 3), [*intents(4, 5), answer_to(2)])
    assert reserved(path) == {1: 501, 3: 503, 4: 504, 5: 505}


def test_what_was_withdrawn_does_not_count_after_a_kill(path: Path) -> None:
    """Its reservation was free, and others may have used it."""
    killed(path, intents(1, 2, 3, 4), [answer_to(1), Withdrawal(3)])
    assert reserved(path) == {2: 502, 4: 504}


def test_a_block_is_gone_with_its_last_intent(path: Path) -> None:
    killed(path, intents(1, 2), [answer_to(1)], [failure_of(2)])
    with closing(create_or_open(path)) as journal:
        assert journal.connection.execute("SELECT count(*) FROM intent_blocks").fetchone() == (0,)
    assert reserved(path) == {}


def test_an_intent_withdrawn_before_its_commit_is_not_written(path: Path) -> None:
    killed(path, [*intents(1, 2), Withdrawal(1)])
    assert reserved(path) == {2: 502}


def test_an_intent_of_an_answered_or_failed_request_is_refused(path: Path) -> None:
    with closing(create_or_open(path)) as journal:
        commits = commits_of(journal)
        commits.write(intents(1, 2, 3))
        commits.write([answer_to(1), failure_of(2), failure_of(3, Outcome.UNCERTAIN, final=False)])
        same = [replace(intent(attempt + 10), digest=digest_of(attempt)) for attempt in (1, 2, 3)]
        assert commits.write(same) == {11, 12}
    assert reserved(path) == {3: 500, 13: 500}


def test_a_second_writer_is_noticed_before_anything_more_is_sent(path: Path) -> None:
    with closing(create_or_open(path)) as journal, closing(create_or_open(path)) as other:
        commits = commits_of(journal)
        commits.write(intents(1))
        commits.write([answer_to(1)])
        others = commits_of(other)
        others.write(intents(2))
        with pytest.raises(StorageError, match="another program wrote"):
            commits.write(intents(3))


def test_a_large_journal_is_checked_whole_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a wrong total stands for whatever only the whole check finds."""
    path = tmp_path / "journal.sqlite"
    make_journal(path, 50)
    monkeypatch.setattr("batchrun.journal.checking.WHOLE_CHECK_BYTES", 1_000)
    with closing(create_or_open(path)) as journal:
        check_at_start(journal, 10 * DAY)
        journal.connection.execute("DELETE FROM totals WHERE outcome = 'refused'")
        check_at_start(journal, 11 * DAY - 1)
        for now in (11 * DAY, 9 * DAY):  # a clock that was set back postpones nothing
            with pytest.raises(JournalError, match="its totals are not the sums over its attempts"):
                check_at_start(journal, now)
