"""A journal that vanishes under a run: noticed with the next commit, and nothing that was paid is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batchrun.errors import MovedError, StorageError
from batchrun.journal import Journal, JournalWriter, create_or_open, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.journal.salvage import salvage
from batchrun.journal.write_ahead_log import log_of
from batchrun.runs.run_folder import RunFolder, refuse_rescued
from tests.money.journals import Reports, answer_to, ask_all, digest_of, intent, start_run


def delete(path: Path) -> None:
    path.unlink()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def delete_log(path: Path) -> None:
    log_of(path).unlink()


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


WAYS = [delete, delete_folder, rename_folder, delete_log, replace_by_copy]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "out.run"
    folder.mkdir()
    journal = create_or_open(folder / "journal.sqlite")
    ask_all(journal, range(1, 21), start_run(journal))
    return journal


@pytest.mark.parametrize("harm", WAYS)
def test_the_next_commit_tells_before_its_requests_may_go(
    journal: Journal, harm: Callable[[Path], None]
) -> None:
    reports, told = Reports(), list[object]()
    writer = JournalWriter(
        journal,
        lambda intents, _: told.append(intents),
        reports.take_error,
        lambda: False,
        reports.take_nearly_full,
        moved=told.append,
    )
    harm(journal.path)
    writer.write_intent(intent(21))
    writer.close()
    assert [type(one) for one in told] == [MovedError, int]
    assert reports.errors == ()
    journal.close()


@pytest.mark.parametrize("harm", WAYS)
def test_what_is_open_is_put_back_or_laid_beside(journal: Journal, harm: Callable[[Path], None]) -> None:
    expected = journal.totals(sandbox=False)
    harm(journal.path)
    with pytest.raises(MovedError):
        journal.check_place()
    copy = journal.keep()
    journal.close()
    assert copy.parent == journal.path.parent
    assert copy.stat().st_mode & 0o077 == 0 or copy == journal.path
    kept = open_for_reading(copy)
    check_whole(kept)
    assert kept.totals(sandbox=False) == expected
    kept.close()
    assert (copy == journal.path) == (harm is not replace_by_copy)


def test_two_journals_of_one_job_are_put_together(journal: Journal, tmp_path: Path) -> None:
    """As left by a run whose journal was replaced, and by the run that replaced it."""
    other = create_or_open(tmp_path / "other.sqlite")
    ask_all(other, range(1, 31), start_run(other))
    both = journal.totals(sandbox=False), other.totals(sandbox=False)
    journal.close()
    other.close()
    salvage(tmp_path / "other.sqlite", tmp_path / "both.sqlite", [journal.path])
    merged = open_for_reading(tmp_path / "both.sqlite")
    check_whole(merged)
    totals = merged.totals(sandbox=False)
    for field in ("answered", "requests", "uncertain", "input_tokens"):
        assert getattr(totals, field) == sum(getattr(one, field) for one in both), field
    assert totals.spend.committed.nano_usd == sum(one.spend.committed.nano_usd for one in both)
    assert merged.histories([digest_of(1)])[digest_of(1)].answer == answer_to(1).response
    merged.close()


def test_a_copy_that_lies_beside_keeps_runs_from_starting(tmp_path: Path) -> None:
    refuse_rescued(RunFolder(tmp_path))
    (tmp_path / "rescued-1.sqlite").touch()
    with pytest.raises(StorageError, match="export --salvage"):
        refuse_rescued(RunFolder(tmp_path))
