"""A damaged journal: either everything that it says is right, or it says that it is damaged."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from batchrun.errors import JournalError, StorageError
from batchrun.journal import Intent, create_or_open, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.journal.schema import FORMAT
from tests.money.journals import (
    Reports,
    answer_to,
    digest_of,
    everything,
    intent,
    make_journal,
    start_run,
    writer_of,
)

ROWS = 200
DAMAGES = int(os.environ.get("BATCHRUN_EXAMPLES", "300"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "journal.sqlite"
    make_journal(path, ROWS)
    return path


def right_or_refused(path: Path, expected: object) -> bool:
    """True where the journal was read as if it were whole. Any other error than ours fails the test."""
    try:
        journal = create_or_open(path)
        try:
            check_whole(journal)
            found = everything(journal, ROWS)
        finally:
            journal.close()
    except (JournalError, StorageError) as error:
        told = str(error)
    else:
        assert found == expected
        return True
    assert 1 <= len(told.splitlines()) <= 2
    return False


def read_whole(path: Path) -> object:
    journal = open_for_reading(path)
    try:
        return everything(journal, ROWS)
    finally:
        journal.close()


def damaged_copies(whole: Path, folder: Path, damage: Callable[[bytearray, random.Random], None]) -> int:
    """Tries many damages; returns how many went unnoticed, since nothing of importance was hit."""
    expected = read_whole(whole)
    content = whole.read_bytes()
    draw = random.Random(20261122)
    unnoticed = 0
    for _ in range(DAMAGES):
        copy = folder / "journal.sqlite"
        changed = bytearray(content)
        damage(changed, draw)
        copy.write_bytes(changed)
        unnoticed += right_or_refused(copy, expected)
        for left in folder.iterdir():
            left.unlink()
    return unnoticed


def test_a_flipped_bit_changes_no_answer_and_no_amount(whole: Path, tmp_path: Path) -> None:
    def flip(content: bytearray, draw: random.Random) -> None:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)

    # What nobody reads may be hit unnoticed: unused bytes of pages, texts of errors.
    assert damaged_copies(whole, tmp_path, flip) < DAMAGES * 0.4


def test_every_bit_of_the_header_and_the_first_cells_counts(whole: Path, tmp_path: Path) -> None:
    """All bits of one record of each table, one by one."""
    expected = read_whole(whole)
    content = whole.read_bytes()
    places = [content.index(digest_of(7)) + offset for offset in range(-12, 60)]
    for place in places:
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            copy = tmp_path / "journal.sqlite"
            copy.write_bytes(changed)
            right_or_refused(copy, expected)
            for left in tmp_path.iterdir():
                left.unlink()


def test_a_journal_that_was_cut_off_is_refused(whole: Path, tmp_path: Path) -> None:
    def cut(content: bytearray, draw: random.Random) -> None:
        del content[draw.randrange(1, len(content)) :]

    assert damaged_copies(whole, tmp_path, cut) == 0


def test_overwritten_bytes_are_noticed(whole: Path, tmp_path: Path) -> None:
    def overwrite(content: bytearray, draw: random.Random) -> None:
        start = draw.randrange(len(content) - 512)
        content[start : start + 512] = draw.randbytes(512)

    assert damaged_copies(whole, tmp_path, overwrite) < DAMAGES * 0.4


def test_the_amount_of_an_open_intent_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = create_or_open(path)
    run = start_run(journal)
    writer = writer_of(journal, Reports())
    writer.write_intent(Intent(1, run, digest_of(1), 1, 5, 0x123456789A, 7, 90))
    writer.close()
    journal.close()
    content = bytearray(path.read_bytes())
    place = content.index(str(0x123456789A).encode())
    content[place + 2] ^= 4
    path.write_bytes(content)
    journal = create_or_open(path)
    with pytest.raises(JournalError, match="the block of intents from attempt 1 doesn't match its checksum"):
        check_whole(journal)
    journal.close()


def torn_log(tmp_path: Path, commits: int) -> tuple[Path, bytes]:
    """A journal as a killed run leaves it: everything is in the write-ahead log still. Returns the log."""
    origin = tmp_path / "origin" / "journal.sqlite"
    origin.parent.mkdir()
    journal = create_or_open(origin)
    run = start_run(journal)
    for attempt in range(1, commits + 1):
        reports = Reports()
        writer = writer_of(journal, reports)
        writer.write_intent(intent(attempt, run=run))
        assert reports.committed.acquire(timeout=20)
        writer.record(answer_to(attempt))
        writer.close()
    copy = tmp_path / "copy" / "journal.sqlite"
    copy.parent.mkdir()
    shutil.copyfile(origin, copy)
    log = origin.with_name("journal.sqlite-wal").read_bytes()
    journal.close()
    return copy, log


def test_a_torn_write_ahead_log_keeps_what_was_committed_before(tmp_path: Path) -> None:
    """The answers are those of the first commits: none is damaged, and none is missing between."""
    commits = 30
    copy, log = torn_log(tmp_path, commits)
    start = copy.read_bytes()
    digests = [digest_of(number) for number in range(1, commits + 1)]
    draw = random.Random(7)
    kept = []
    for _ in range(60):
        at = draw.randrange(len(log))
        copy.write_bytes(start)
        copy.with_name("journal.sqlite-wal").write_bytes(log[:at] + draw.randbytes(draw.randrange(64)))
        journal = create_or_open(copy)
        check_whole(journal)
        answered = journal.settled_digests(digests)
        assert answered == dict.fromkeys(digests[: len(answered)], False)
        assert all(journal.histories(digests)[digest].answer is not None for digest in answered)
        kept.append((at, len(answered)))
        journal.close()
        copy.with_name("journal.sqlite-wal").unlink(missing_ok=True)
    kept.sort()
    assert [answers for _, answers in kept] == sorted(answers for _, answers in kept)
    assert kept[-1][1] > commits / 2


def test_a_newer_format_is_refused_and_left_as_it_is(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    shutil.copyfile(whole, path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    before = path.read_bytes()
    for open_it in (create_or_open, open_for_reading):
        with pytest.raises(JournalError, match=f"format {FORMAT + 1}; this batchrun knows format {FORMAT}"):
            open_it(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for content in (path.read_bytes(), random.Random(1).randbytes(9_000), b"x", b"SQLite format 3\0"):
        path.write_bytes(content)
        for open_it in (create_or_open, open_for_reading):
            with pytest.raises(JournalError):
                open_it(path)
        assert path.read_bytes() == content


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    """A process that was killed right after it had created the file leaves one."""
    path = tmp_path / "journal.sqlite"
    path.touch()
    journal = create_or_open(path)
    check_whole(journal)
    assert journal.next_attempt() == 1
    journal.close()


def test_a_file_whose_creation_was_cut_short_becomes_a_journal(tmp_path: Path) -> None:
    """Killed while the first pages were written: SQLite's own log says that there was nothing before."""
    origin = tmp_path / "origin.sqlite"
    connection = sqlite3.connect(origin, isolation_level=None)
    connection.executescript("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; CREATE TABLE filler (x);")
    for _ in range(50):
        connection.execute("INSERT INTO filler VALUES (randomblob(3000))")
    path = tmp_path / "journal.sqlite"
    shutil.copyfile(origin, path)
    shutil.copyfile(tmp_path / "origin.sqlite-journal", tmp_path / "journal.sqlite-journal")
    connection.close()
    assert path.stat().st_size > 0
    journal = create_or_open(path)
    check_whole(journal)
    journal.close()


def test_a_journal_that_may_not_be_written_is_a_storage_fault(tmp_path: Path) -> None:
    folder = tmp_path / "journal.sqlite"
    folder.mkdir()
    with pytest.raises(StorageError, match="can't be opened for writing"):
        create_or_open(folder)


def test_a_journal_vacuumed_by_another_tool_is_whole(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    shutil.copyfile(whole, path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("VACUUM")
    connection.close()
    assert right_or_refused(path, read_whole(whole))
