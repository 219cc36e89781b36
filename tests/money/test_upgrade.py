"""Journals of every released format: read as they are, upgraded without a loss, never paid again.

`tests/journals` has one of each, written by the version that had that format: a run over 40 rows was killed,
with some of them answered, one that has failed permanently, and some requests in flight.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchrun.client.server import Server
from batchrun.errors import JournalError, StorageError
from batchrun.job.file import load_job
from batchrun.journal import Totals, create_or_open, open_for_reading, upgrade
from batchrun.journal.checking import check_answers, check_whole
from batchrun.journal.salvage import salvage
from batchrun.journal.schema import FORMAT
from batchrun.journal.upgrade import copies_of, remove_copies
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import make_run_folder
from batchrun.runs.status import status_of
from batchrun.sandbox import Settings, background
from tests.money.dying import dying_at_size, dying_within

JOURNALS = Path(__file__).parents[1] / "journals"
RELEASED = range(1, FORMAT + 1)
FORMER = range(1, FORMAT)
ROWS = 40
PRICE = 145_000
"""What the sandbox bills for a row of the job, in nano-USD."""


def laid_out(released: int, folder: Path) -> Path:
    """A job's folder whose run left a journal of this format; returns the journal's path."""
    for name in ("job.toml", "rows.jsonl"):
        shutil.copyfile(JOURNALS / name, folder / name)
    path = make_run_folder(folder / "out.run").journal
    shutil.copyfile(JOURNALS / f"format{released}" / "journal.sqlite", path)
    return path


def counts_of(path: Path) -> tuple[int, int, int]:
    """Answers, permanent failures and requests in flight, by plain SQL."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*) FROM "
        tables = ("attempts WHERE outcome = 'answered'", "attempts WHERE final", "intents")
        answered, failed, in_flight = (connection.execute(query + table).fetchone()[0] for table in tables)
    return answered, failed, in_flight


def read(path: Path) -> tuple[Totals, object]:
    with closing(open_for_reading(path)) as journal:
        digests = [digest for (digest,) in journal.connection.execute("SELECT DISTINCT digest FROM attempts")]
        return journal.totals(sandbox=True), (journal.histories(digests), journal.settled_digests(digests))


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but the lock and what SQLite makes for a reader."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.endswith(("-shm", "-wal", "lock"))
    }


@pytest.mark.parametrize("released", RELEASED)
def test_a_killed_run_of_every_released_format_goes_on_and_pays_for_nothing_again(
    released: int, tmp_path: Path
) -> None:
    path = laid_out(released, tmp_path)
    answered, failed, in_flight = counts_of(path)
    assert min(answered, failed, in_flight) > 0
    reserved = read(path)[0].open.nano_usd
    job = load_job(tmp_path / "job.toml", sandbox=True)
    with background(Settings()) as sandbox:
        summary = run_job(job, Server(sandbox.base_url, "a-key", sandbox=True))
        bill = sandbox.bill()["total"]
    missing = ROWS - answered - failed
    assert summary["this_run"]["requests"]["sent"] == bill["requests"] == missing
    rows = summary["rows"]
    assert (rows["ok"] + rows["invalid"], rows["failed"]) == (ROWS - failed, failed)
    assert summary["abandoned_requests"] == in_flight
    assert summary["usd"]["settled"] == pytest.approx((answered * PRICE + bill["nano_usd"]) / 1e9)
    assert summary["usd"]["uncertain"] == pytest.approx(reserved / 1e9)
    with closing(open_for_reading(path)) as journal:
        assert journal.format == FORMAT
        check_whole(journal)
        check_answers(journal)
    assert not any(copy.exists() for copy in copies_of(path)), "the run was good, so its copy is gone"


@pytest.mark.parametrize("released", FORMER)
def test_reading_commands_leave_a_former_format_as_it_is(released: int, tmp_path: Path) -> None:
    path = laid_out(released, tmp_path)
    before = files_in(path.parent)
    status = status_of(load_job(tmp_path / "job.toml", sandbox=True), sandbox=True)
    answered, failed, in_flight = counts_of(path)
    assert (status["answered"], status["failed"], status["in_flight"]) == (answered, failed, in_flight)
    assert status["usd"]["settled"] == pytest.approx(answered * PRICE / 1e9)
    assert files_in(path.parent) == before


@pytest.mark.parametrize("released", FORMER)
def test_an_upgrade_keeps_money_answers_and_open_intents_and_a_copy(released: int, tmp_path: Path) -> None:
    path = laid_out(released, tmp_path)
    before, former = read(path), path.read_bytes()
    create_or_open(path).close()
    assert read(path) == before
    (copy,) = (copy for copy in copies_of(path) if copy.exists())
    assert copy.name == f"journal.v{released}.sqlite"
    assert copy.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (released,)
    assert read(copy) == before
    assert former != path.read_bytes()
    for left_by_a_kill in ("upgrading.sqlite", "upgrading.sqlite-journal", "copying.sqlite"):
        path.with_name(left_by_a_kill).touch()
    remove_copies(path)
    assert sorted(files_in(path.parent)) == ["journal.sqlite"]


def test_without_room_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = laid_out(3, tmp_path)
    before = files_in(path.parent)
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="MB of disk there, and 10 MB are free"):
        create_or_open(path)
    assert files_in(path.parent) == before


@pytest.mark.parametrize(
    "table", ["responses SET body = CAST(body || 'x' AS BLOB)", "attempts SET input_tokens = 1"]
)
def test_a_damaged_answer_is_not_carried_over(table: str, tmp_path: Path) -> None:
    """An upgrade computes checksums; it must not make a right one for what is wrong."""
    path = laid_out(3, tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} WHERE attempt = 2")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="attempt 2 or its answer doesn't match its checksum"):
        create_or_open(path)
    assert path.read_bytes() == before


def dies_upgrading(path: Path, prepare: Callable[[], object]) -> bool:
    """Upgrades in a child process after `prepare`; returns whether that has killed it."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            create_or_open(path).close()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return status != 0


def dying_at_step(step: int) -> Callable[[], object]:
    """The process dies at the beginning of so many steps of the upgrade's own code."""
    return dying_within({upgrade.__file__}, step)


@pytest.mark.parametrize("released", [1, 3])
@pytest.mark.parametrize("dying", [dying_at_size, dying_at_step])
def test_a_kill_during_an_upgrade_loses_nothing(
    released: int, dying: Callable[[int], Callable[[], object]], tmp_path: Path
) -> None:
    path = laid_out(released, tmp_path)
    before, content = read(path), path.read_bytes()
    kills = 0
    for moment in range(4_096, 65_536, 8_192) if dying is dying_at_size else range(1, 90, 6):
        for left in path.parent.iterdir():
            left.unlink()
        path.write_bytes(content)
        kills += dies_upgrading(path, dying(moment))
        assert read(path) == before
        create_or_open(path).close()
        assert read(path) == before
        assert read(copies_of(path)[released - 1]) == before
    assert kills >= 5


@pytest.mark.parametrize("released", FORMER)
def test_of_two_formats_one_journal_is_salvaged(released: int, tmp_path: Path) -> None:
    """A run that has replaced a former journal while it was open, and the one that it replaced."""
    path = laid_out(released, tmp_path)
    answered, _, in_flight = counts_of(path)
    other = tmp_path / "other.sqlite"
    shutil.copyfile(JOURNALS / "format4" / "journal.sqlite", other)
    others, _, open_there = counts_of(other)
    before = read(path)[0].spend.settled.plus(read(other)[0].spend.settled)
    salvage(path, tmp_path / "both.sqlite", [other])
    assert counts_of(tmp_path / "both.sqlite")[::2] == (answered + others, in_flight + open_there)
    with closing(open_for_reading(tmp_path / "both.sqlite")) as journal:
        check_whole(journal)
        assert journal.totals(sandbox=True).spend.settled == before
