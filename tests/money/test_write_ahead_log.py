"""The journal's write-ahead log: damage in its middle is refused, and a torn end is not."""

import random
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from batchrun.errors import JournalError
from batchrun.journal import Journal, create_or_open, open_for_reading
from batchrun.journal.salvage import salvage
from batchrun.journal.write_ahead_log import find_break, log_of, repair
from tests.money.journals import ask_all, digest_of, everything, start_run

ROWS = 120
FRAME = 24 + 4096


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal as a killed run leaves it: the newest rows are in its log alone, in commits of 10 rows."""
    folder = tmp_path_factory.mktemp("killed")
    origin = folder / "origin.sqlite"
    journal = create_or_open(origin)
    run = start_run(journal)
    for first in range(1, ROWS, 10):
        ask_all(journal, range(first, first + 10), run)
    copied(origin, folder / "journal.sqlite")
    journal.close()
    return folder / "journal.sqlite"


def copied(path: Path, into: Path) -> Path:
    shutil.copyfile(path, into)
    shutil.copyfile(log_of(path), log_of(into))
    return into


def read(journal: Journal) -> object:
    try:
        return everything(journal, ROWS)
    finally:
        journal.close()


def commits_of(log: bytes) -> list[int]:
    """The numbers of the frames that end a transaction."""
    return [n for n in range(len(log) // FRAME) if any(log[32 + n * FRAME + 4 : 32 + n * FRAME + 8])]


def test_a_flipped_bit_before_the_last_commit_is_refused_by_writers_and_readers(
    killed: Path, tmp_path: Path
) -> None:
    log = log_of(killed).read_bytes()
    end_of_others = 32 + commits_of(log)[-1] * FRAME
    draw = random.Random(16)
    path = copied(killed, tmp_path / "journal.sqlite")
    for at in (0, 9, 17, 25, *(draw.randrange(end_of_others) for _ in range(200))):
        damaged = bytearray(log)
        damaged[at] ^= 1 << draw.randrange(8)
        log_of(path).write_bytes(damaged)
        for open_it in (create_or_open, open_for_reading):
            with pytest.raises(JournalError, match="write-ahead log is not as it was written"):
                open_it(path)
        assert log_of(path).read_bytes() == damaged, "it is left as it is"


def rewritten_frames(log: bytes) -> list[int]:
    """The numbers of the frames whose page comes again: of the others there is only one copy to lose."""
    pages = [log[32 + n * FRAME : 36 + n * FRAME] for n in range(len(log) // FRAME)]
    return [n for n, page in enumerate(pages) if page in pages[n + 1 :]]


def test_of_a_damaged_log_both_sides_are_saved(killed: Path, tmp_path: Path) -> None:
    expected = read(open_for_reading(copied(killed, tmp_path / "whole.sqlite")))
    log = log_of(killed).read_bytes()
    draw = random.Random(5)
    path = copied(killed, tmp_path / "journal.sqlite")
    for trial in range(12):
        damaged = bytearray(log)
        frame = draw.choice(rewritten_frames(log))
        damaged[32 + frame * FRAME + draw.randrange(FRAME)] ^= 1 << draw.randrange(8)
        log_of(path).write_bytes(damaged)
        into = tmp_path / f"{trial}.sqlite"
        told = salvage(path, into)
        assert (told.attempts, told.lost_attempts) == (ROWS, 0)
        assert told.lost_answers == 0
        assert read(open_for_reading(into)) == expected


def test_pages_of_garbage_in_the_log_cost_few_answers(killed: Path, tmp_path: Path) -> None:
    log = bytearray(log_of(killed).read_bytes())
    at = 32 + FRAME * (commits_of(bytes(log))[5] - 1)
    log[at : at + FRAME] = random.Random(2).randbytes(FRAME)
    path = copied(killed, tmp_path / "journal.sqlite")
    log_of(path).write_bytes(log)
    told = salvage(path, tmp_path / "saved.sqlite")
    assert told.attempts >= ROWS - 10


def test_a_log_without_its_header_is_damaged(killed: Path, tmp_path: Path) -> None:
    path = copied(killed, tmp_path / "journal.sqlite")
    log = log_of(killed).read_bytes()
    log_of(path).write_bytes(bytes(32) + log[32:])
    with pytest.raises(JournalError):
        open_for_reading(path)
    assert salvage(path, tmp_path / "saved.sqlite").attempts == ROWS


def test_a_torn_end_is_none(killed: Path, tmp_path: Path) -> None:
    log = log_of(killed).read_bytes()
    torn = tmp_path / "torn-wal"
    for end in (0, 5, 31, 32, 50, 32 + FRAME, 32 + FRAME * 3 - 1, len(log) - 1, len(log) - FRAME + 24):
        torn.write_bytes(log[:end])
        assert find_break(torn) is None
    torn.write_bytes(log[:-100] + bytes(100))
    assert find_break(torn) is None
    torn.unlink()
    assert find_break(torn) is None


def test_what_earlier_transactions_and_logs_have_left_behind_the_end_is_no_damage(tmp_path: Path) -> None:
    """A transaction that was rolled back leaves frames of this log, a checkpoint those of an earlier one."""
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x); PRAGMA cache_size = 5;")
    connection.executescript("BEGIN; INSERT INTO t VALUES (1);")
    for _ in range(50):
        connection.execute("INSERT INTO t VALUES (randomblob(3000))")
    connection.execute("ROLLBACK")
    connection.execute("INSERT INTO t VALUES (2)")
    size = log_of(path).stat().st_size
    assert size > 40 * FRAME
    assert find_break(log_of(path)) is None
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    for _ in range(3):
        connection.execute("INSERT INTO t VALUES (3)")
    assert log_of(path).stat().st_size == size
    assert find_break(log_of(path)) is None
    connection.close()


def test_a_log_is_never_taken_for_damaged_beside_a_run_that_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (x);")
    connection.execute("PRAGMA wal_autocheckpoint = 40")

    def write() -> None:
        for _ in range(400):
            connection.execute("INSERT INTO t SELECT randomblob(3000) FROM (VALUES (1), (2), (3), (4))")

    thread = threading.Thread(target=write)
    thread.start()
    looks = 0
    while thread.is_alive():
        assert find_break(log_of(path)) is None
        looks += 1
    thread.join()
    connection.close()
    assert looks > 3


def test_a_whole_log_that_is_written_again_is_the_same(killed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for keep_damaged in (True, False):
        assert repair(log_of(killed), again, keep_damaged=keep_damaged)
        assert again.read_bytes()[32:] == log_of(killed).read_bytes()[32 : again.stat().st_size]
    assert digest_of(1) in again.read_bytes()
