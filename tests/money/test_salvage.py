"""What `salvage` saves of a damaged journal: nothing wrong, and nearly everything."""

import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from batchrun.errors import StorageError
from batchrun.journal import create_or_open
from batchrun.journal.adjustments import Adjustment, adjustments_of, insert_adjustments
from batchrun.journal.checking import check_whole
from batchrun.journal.salvage import PAGE_BYTES, Salvaged, salvage
from batchrun.journal.samples import Sample, insert_samples, samples_of
from tests.money.journals import (
    Reports,
    answer_to,
    ask_all,
    digest_of,
    intent,
    make_journal,
    start_run,
    writer_of,
)

ROWS = 200
ANSWERS = ROWS - ROWS // 10 - ROWS // 15 + ROWS // 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "journal.sqlite"
    make_journal(path, ROWS)
    return path


def saved_answers(path: Path) -> dict[bytes, bytes]:
    journal = create_or_open(path)
    try:
        check_whole(journal)
        histories = journal.histories([digest_of(number) for number in range(1, ROWS + 1)])
        return {digest: found.answer for digest, found in histories.items() if found.answer is not None}
    finally:
        journal.close()


def spend_of(path: Path) -> int:
    journal = create_or_open(path)
    try:
        return journal.totals(sandbox=False).spend.committed.nano_usd
    finally:
        journal.close()


def right_answer(attempt: int) -> bytes | None:
    return answer_to(attempt).response


def test_of_a_whole_journal_everything_is_saved(whole: Path, tmp_path: Path) -> None:
    into = tmp_path / "saved.sqlite"
    assert salvage(whole, into) == Salvaged(ANSWERS, ROWS, 0, 0)
    before, after = create_or_open(whole), create_or_open(into)
    assert before.totals(sandbox=False) == after.totals(sandbox=False)
    before.close()
    after.close()
    assert len(saved_answers(into)) == ANSWERS


def test_what_was_set_and_what_runs_knew_is_saved_too(tmp_path: Path) -> None:
    path, other, into = (tmp_path / f"{name}.sqlite" for name in ("journal", "rescued-1", "saved"))
    for number, each in enumerate((path, other)):
        with closing(create_or_open(each)) as journal:
            run = start_run(journal)
            made = [Adjustment(f"{number}", run, 5, "ann", '{"budget.usd": ["1", "2"]}')]
            insert_adjustments(journal.connection, made)
            insert_samples(journal.connection, [Sample(run, 1, 1, 3, 4 + number, None, None)])
            journal.connection.execute("INSERT INTO samples VALUES (1000000, 1, 1, 3, 4, NULL, NULL)")
    salvage(path, into, [other])
    with closing(create_or_open(into)) as journal:
        assert [(each.id, each.run) for each in adjustments_of(journal)] == [("0", 1), ("1", 2)]
        assert [samples_of(journal, run)[0].nano_usd for run in (1, 2)] == [4, 5]
        assert samples_of(journal, 1_000_000) == [], "there is no such run"


def test_one_damaged_page_takes_few_answers_along(whole: Path, tmp_path: Path) -> None:
    """Whichever page it is: the rest is saved, and every saved answer is the right one, at its row."""
    content, spent = whole.read_bytes(), spend_of(whole)
    pages = len(content) // PAGE_BYTES
    answers = {digest_of(number): right_answer(number) for number in range(1, ROWS + 1)}
    draw = random.Random(3)
    counts = []
    for page in range(pages):
        damaged = bytearray(content)
        damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = draw.randbytes(PAGE_BYTES)
        path = tmp_path / f"{page}.sqlite"
        path.write_bytes(damaged)
        into = tmp_path / f"{page}.saved.sqlite"
        told = salvage(path, into)
        saved = saved_answers(into)
        assert len(saved) == told.answers
        assert saved.items() <= answers.items()
        assert path.read_bytes() == damaged
        assert spend_of(into) == spent, "what lost records have cost still counts"
        counts.append(told.answers)
    lost = sorted(ANSWERS - count for count in counts)
    # The inner page of the attempts holds the way to all of their pages.
    assert all(loss <= ROWS / 4 for loss in lost[:-1])
    assert sum(lost[:-1]) <= 2 * ANSWERS
    assert counts[0] == ANSWERS, "the first page is the same in all journals"


def test_an_answer_that_is_gone_leaves_its_cost_behind(whole: Path, tmp_path: Path) -> None:
    """The money was spent: it counts as uncertain, and the row is asked again."""
    damaged = bytearray(whole.read_bytes())
    place = damaged.index(b'{"id":"msg_7"')
    damaged[place + 2] ^= 1
    path, into = tmp_path / "journal.sqlite", tmp_path / "saved.sqlite"
    path.write_bytes(damaged)
    assert salvage(path, into) == Salvaged(ANSWERS - 1, ROWS, 1, 0)
    journal = create_or_open(into)
    history = journal.histories([digest_of(7)])[digest_of(7)]
    assert (history.answer, history.error_code) == (None, "answer_lost")
    assert history.uncertain_nano_usd == answer_to(7).nano_usd
    assert journal.settled_digests([digest_of(7)]) == {}
    journal.close()


def test_requests_in_flight_that_cant_be_read_are_told(tmp_path: Path) -> None:
    """No total has what they may have cost: it must not look as if nothing was lost."""
    path = tmp_path / "journal.sqlite"
    make_journal(path, ROWS)
    journal = create_or_open(path)
    writer = writer_of(journal, Reports())
    for attempt in range(ROWS + 1, ROWS + 15):
        writer.write_intent(intent(attempt))
    writer.close()
    (page,) = journal.connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'intent_blocks'"
    ).fetchone()
    journal.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * PAGE_BYTES] = 0xFF  # the kind of the page
    path.write_bytes(content)
    assert salvage(path, tmp_path / "saved.sqlite") == Salvaged(ANSWERS, ROWS, 0, 1)


def test_what_a_killed_run_has_left_in_the_write_ahead_log_is_saved(tmp_path: Path) -> None:
    origin = tmp_path / "origin.sqlite"
    journal = create_or_open(origin)
    ask_all(journal, range(1, 21), start_run(journal))
    path = tmp_path / "journal.sqlite"
    shutil.copyfile(origin, path)
    shutil.copyfile(origin.with_name("origin.sqlite-wal"), path.with_name("journal.sqlite-wal"))
    journal.close()
    assert salvage(path, tmp_path / "saved.sqlite").attempts == 20


def test_of_a_file_that_is_no_journal_nothing_is_saved(tmp_path: Path) -> None:
    path, into = tmp_path / "journal.sqlite", tmp_path / "saved.sqlite"
    path.write_bytes(random.Random(5).randbytes(20 * PAGE_BYTES))
    told = salvage(path, into)
    assert (told.answers, told.attempts) == (0, 0)
    assert saved_answers(into) == {}


def test_nothing_is_overwritten(whole: Path, tmp_path: Path) -> None:
    into = tmp_path / "saved.sqlite"
    into.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        salvage(whole, into)
    assert into.read_text() == "mine"
