"""The hash of a journal's content changes with whatever an output is made of, and with nothing else."""

from pathlib import Path

from batchrun.journal import create_or_open
from batchrun.journal.content import content_hash
from tests.money.journals import ask_all, start_run


def test_attempts_and_bookings_change_the_hash_and_runs_do_not(tmp_path: Path) -> None:
    journal = create_or_open(tmp_path / "journal.sqlite")
    first = start_run(journal)
    hashes = [content_hash(journal)]

    def changed() -> bool:
        hashes.append(content_hash(journal))
        return hashes[-1] not in hashes[:-1]

    ask_all(journal, range(1, 61), first)
    assert changed()
    second = start_run(journal)
    journal.finish_run(second, 1, None, 0, "Nothing to do.")
    assert not changed()
    ask_all(journal, range(61, 62), second)
    assert changed()
    journal.settle(False, 700)
    assert changed()
    journal.settle(False, 700)  # the same amount: only the notes in the texts of errors differ
    assert changed()
    journal.reopen_failures(first, in_doubt=False)
    assert changed()
    assert not changed()
    journal.close()
