"""A full disk: what was committed is readable, what is in flight is kept in the room held for it."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from batchrun.errors import StorageError
from batchrun.journal import create_or_open
from batchrun.journal.ballast import BALLAST_BYTES, give_up_room, holding_room
from batchrun.journal.checking import check_whole
from batchrun.journal.process import commits_elsewhere
from batchrun.journal.writer import OpenCommits, commits_here
from tests.money.fanout import Provider, Run, SendResult, request
from tests.money.fanout import answer as small_answer
from tests.money.journals import Reports, answer_to, digest_of, intent, start_run, writer_of

BODY = 8_192


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB of its own. Skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.anyio
@pytest.mark.parametrize("open_commits", [commits_here, commits_elsewhere((), os.environ)])
async def test_on_a_full_disk_the_run_stops_and_keeps_what_is_in_flight(
    small_disk: Path, open_commits: OpenCommits
) -> None:
    """Every answer that came is in the journal; the error says what to do."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002)
        small = small_answer()
        return type(small)(os.urandom(BODY), small.input_tokens, small.output_tokens, small.cost_nano_usd)

    run = Run(small_disk / "journal.sqlite", open_commits=open_commits)
    provider = Provider(serve)
    with holding_room(small_disk / "ballast") as ballast:
        run.make_room = lambda: give_up_room(ballast)
        with anyio.fail_after(30), pytest.raises(StorageError, match="Make room"):
            await run.asked(provider, [request(number) for number in range(1, 5_000)])
    journal = run.journal()
    check_whole(journal)
    totals = journal.totals(sandbox=False)
    assert totals.answered == provider.attempts.total() > 100
    assert totals.uncertain == totals.open_intents == 0
    assert len(journal.histories([digest_of(n) for n in provider.attempts])) == totals.answered
    journal.close()


def test_room_that_is_not_there_is_an_error_before_anything_is_sent(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(3 * 2**20))
    with pytest.raises(StorageError, match="4 MiB can't be set aside"), holding_room(small_disk / "ballast"):
        pass
    assert not (small_disk / "ballast").exists()


def test_room_is_held_and_given_up_once(tmp_path: Path) -> None:
    with holding_room(tmp_path / "ballast") as ballast:
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        assert give_up_room(ballast)
        assert not give_up_room(ballast)
    with holding_room(tmp_path / "ballast"):
        pass
    assert not (tmp_path / "ballast").exists()


@pytest.mark.parametrize("writer", ["thread", "process"])
def test_what_was_committed_before_a_write_failed_is_readable(tmp_path: Path, writer: str) -> None:
    """In a process that may write no file of more than 512 KiB, where no room can help."""
    path = tmp_path / "journal.sqlite"
    child = subprocess.run(
        [sys.executable, "-m", "tests.money.test_disk_full", path, writer],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    kind, answers = child.stdout.split()
    assert kind == "StorageError"
    journal = create_or_open(path)
    check_whole(journal)
    totals = journal.totals(sandbox=False)
    assert totals.answered == int(answers) > 10
    histories = journal.histories([digest_of(number) for number in range(1, totals.answered + 1)])
    assert all(history.answer == bytes(BODY) for history in histories.values())
    assert totals.open_intents == 1, "the last one is uncertain"
    journal.close()


def write_until_it_fails(path: Path, open_commits: OpenCommits) -> None:
    """Prints the error's class, and how many answers had been reported as committed."""
    journal = create_or_open(path)
    run = start_run(journal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))
    reports = Reports()
    writer = writer_of(journal, reports, open_commits)
    attempt = 0
    while not reports.errors:
        attempt += 1
        writer.write_intent(intent(attempt, run=run))
        while not reports.committed.acquire(timeout=0.05) and not reports.errors:
            pass
        writer.record(answer_to(attempt, bytes(BODY)))
        # An intent is committed after the answer before it.
    print(type(reports.errors[0]).__name__, journal.totals(sandbox=False).answered)


if __name__ == "__main__":
    write_until_it_fails(
        Path(sys.argv[1]), commits_here if sys.argv[2] == "thread" else commits_elsewhere((), os.environ)
    )
    os._exit(0)
