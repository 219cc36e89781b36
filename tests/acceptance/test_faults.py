"""Faults of the machine: exit code 1, a line that says what to do, and no answer lost that was committed."""

import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.command import COMMAND, Done, Place

TEXTS = [f"text {n}" for n in range(20)]
LARGEST_FILE = 5 << 20


def run_with_small_files(place: Place, *settings: str) -> Done:
    """A run that may write no file of more than 5 MiB, as on a full disk."""
    done = subprocess.run(
        [*COMMAND, "run", "job.toml", *[part for one in settings for part in ("--set", one)]],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE)),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_an_output_that_finds_no_room_is_said_by_all_and_comes_with_the_next_run(place: Place) -> None:
    place.texts("one")
    settings = ('output.path="out.csv"', 'prompt.template="Number {{ id }}"')
    assert place.run(*settings).code == 0
    output = place.folder / "out.csv"
    before = output.read_bytes()
    place.texts(*["a long text " * 20_000] * 30)
    done = run_with_small_files(place, *settings)
    assert done.code == 1, done.err
    assert "out.csv could not be written: File too large" in done.last_line
    assert "`batchrun export`" in done.last_line
    summary = place.summary()
    assert (summary["exit_code"], summary["output_written"]) == (1, False)
    assert "File too large" in summary["reason"]
    assert summary["rows"]["ok"] == summary["rows"]["total"] == 30
    assert summary["usd"]["settled"] == place.bill()["usd"]
    assert "File too large" in place.command("status", "job.toml").out
    assert output.read_bytes() == before
    assert list(place.folder.glob(".*")) == []
    assert place.run(*settings).code == 0
    assert output.stat().st_size > LARGEST_FILE
    assert place.summary()["exit_code"] == 0
    assert place.requests == 30, "nothing was asked again"


@pytest.fixture
def small_disk(place: Place) -> Iterator[Place]:
    """The place on a disk of its own of 7 MiB. Skipped where this user may not mount one."""
    job = place.job_file.read_text()
    _mount(place.folder, "-t", "tmpfs", "-o", "size=7m", "tmpfs")
    place.job_file.write_text(job)
    yield place
    subprocess.run(["umount", "--lazy", place.folder], check=True)


def _mount(folder: Path, *arguments: str | Path) -> None:
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a file system")


def test_a_disk_that_fills_up_ends_the_run_and_nothing_is_paid_twice(small_disk: Place) -> None:
    place = small_disk
    rows = 4_000
    place.texts(*(f"text {n}" for n in range(rows)))
    done = place.run("limits.concurrency=50", "limits.requests_per_minute=10000000")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    assert "disk is full" in done.last_line
    assert "make room, then run the same command" in done.last_line
    answered = place.journal("SELECT count(*), sum(nano_usd) FROM attempts WHERE outcome = 'answered'")
    bill = place.bill()
    assert 100 < bill["requests"] < rows
    assert answered == [(bill["requests"], bill["nano_usd"])], "what was in flight found room too"
    assert place.journal("SELECT count(*) FROM intents") == [(0,)]
    assert place.summary()["exit_code"] == 1
    column = place.column("status")
    assert (column.count("ok"), column.count("pending")) == (bill["requests"], rows - bill["requests"])
    _mount(place.folder, "-o", "remount,size=64m")
    assert place.run("limits.concurrency=50", "limits.requests_per_minute=10000000").code == 0
    assert place.column("status") == ["ok"] * rows
    assert place.requests == rows


def test_a_journal_that_may_only_be_read_is_a_fault_and_its_answers_are_readable(place: Place) -> None:
    place.texts(*TEXTS)
    assert place.run("budget.rows=8").code == 4
    journal = place.folder / "out.run" / "journal.sqlite"
    if os.getuid():
        journal.chmod(0o400)
    else:
        _mount(journal, "--bind", journal)
        _mount(journal, "-o", "remount,ro,bind")
    try:
        done = place.run()
        status = place.command("status", "job.toml", "--json").summary
        export = place.command("export", "job.toml", "--to", "so-far.csv")
    finally:
        if not os.getuid():
            subprocess.run(["umount", journal], check=True)
    assert done.code == 1
    assert f"The journal {journal} can't be opened for writing" in done.last_line
    assert place.requests == 8
    assert status["answered"] == 8
    assert export.code == 0
    assert (place.folder / "so-far.csv").read_text().count("ok") >= 8


def _cut(journal: Path) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) * 6 // 10])


def _flip_a_bit(journal: Path) -> None:
    whole = bytearray(journal.read_bytes())
    whole[whole.rindex(b'"output_tokens"') + 3] ^= 4
    journal.write_bytes(whole)


def _from_the_future(journal: Path) -> None:
    connection = sqlite3.connect(journal)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (_cut, "is damaged"),
    "one bit flipped": (_flip_a_bit, "is damaged"),
    "of a newer format": (_from_the_future, "has format 99"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_is_not_whole_is_refused_and_left_as_it_is(place: Place, damage: str) -> None:
    harm, word = DAMAGES[damage]
    place.texts(*TEXTS)
    assert place.run("budget.rows=15", "limits.concurrency=1").code == 4
    journal = place.folder / "out.run" / "journal.sqlite"
    harm(journal)
    harmed = journal.read_bytes()
    shutil.copy(place.output, place.folder / "before.parquet")
    done = place.run("budget.rows=0")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    assert word in done.err
    assert place.output.read_bytes() == (place.folder / "before.parquet").read_bytes()
    assert place.requests == 15
    if damage == "one bit flipped":
        return  # it is in an answer, which is read when the output is written: this run is in the journal
    assert journal.read_bytes() == harmed


def test_what_is_left_of_a_damaged_journal_is_saved_and_the_run_goes_on(place: Place) -> None:
    place.texts(*TEXTS)
    assert place.run().code == 0
    _flip_a_bit(place.folder / "out.run" / "journal.sqlite")
    assert place.run().code == 1  # although the output would be unchanged
    assert place.summary()["exit_code"] == 1
    assert "is damaged" in place.summary()["reason"]
    done = place.command("export", "job.toml", "--salvage")
    assert done.code == 0, done.err
    assert "saved 19 answers" in done.err
    assert place.run().code == 0
    assert place.column("status") == ["ok"] * 20
    assert place.requests == 21, "only the lost answer was bought again"
