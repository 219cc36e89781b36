"""Commits in a process of their own: the same journal, whoever is killed, and one run at a time."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from batchrun.engine import session
from batchrun.engine.shutdown import ShutdownRequest
from batchrun.errors import JournalError, LockedError, MovedError, StorageError
from batchrun.journal import Journal, create_or_open
from batchrun.journal.adjustments import Adjustment
from batchrun.journal.checking import check_whole
from batchrun.journal.child import send
from batchrun.journal.commits import Commits, Record, Withdrawal
from batchrun.journal.process import JournalProcess, Write, commits_elsewhere
from batchrun.journal.samples import Sample
from batchrun.journal.writer import OpenCommits, commits_here
from batchrun.runs import run_lock
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.run_lock import is_active, locked
from batchrun.stops import interrupted
from tests.money.journals import Reports, answer_to, digest_of, failure_of, intent, start_run, writer_of

ELSEWHERE = commits_elsewhere((), os.environ)
BATCHES: list[list[Record]] = [
    [intent(1), intent(2), intent(3), intent(4)],
    [
        answer_to(1),
        Withdrawal(2),
        Adjustment("a", 1, 5, "me", '{"budget.usd": ["1", "2"]}'),
        Sample(1, 10, 10, 3, 999, 60.0, None),
        replace(failure_of(3), error="caf\u00e9 \U0001f600"),
    ],
    [intent(5), replace(intent(6), digest=digest_of(1))],
]


def wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def process_of(commits: object) -> int:
    assert isinstance(commits, JournalProcess)
    return commits._process.pid


def written(path: Path, open_commits: OpenCommits) -> tuple[list[frozenset[int]], list[str]]:
    """Writes all batches; returns what was refused, and the whole content of the journal."""
    with closing(create_or_open(path)) as journal:
        start_run(journal)
        commits = open_commits(journal, lambda: None)
        refused = [commits.write(batch, (f"[{place}]", 1)) for place, batch in enumerate(BATCHES)]
        while commits.index_digests():
            pass
        commits.close()
        check_whole(journal)
        return refused, list(journal.connection.iterdump())


def test_a_process_writes_what_a_thread_writes(tmp_path: Path) -> None:
    by_thread = written(tmp_path / "thread.sqlite", commits_here)
    assert written(tmp_path / "process.sqlite", ELSEWHERE) == by_thread
    assert by_thread[0] == [frozenset(), frozenset(), frozenset({6})]


def test_a_killed_process_is_noticed_at_once_and_nothing_that_was_reported_is_lost(journal: Journal) -> None:
    reports = Reports()
    writer = writer_of(journal, reports, ELSEWHERE)
    attempt = 0
    while not reports.errors:
        attempt += 1
        writer.write_intent(intent(attempt))
        while not reports.committed.acquire(timeout=0.05) and not reports.errors:
            pass
        writer.record(answer_to(attempt))
        if attempt == 20:
            os.kill(process_of(writer._commits), signal.SIGKILL)
    with pytest.raises(StorageError, match=r"was killed by signal 9.\nResponses committed so far are safe"):
        writer.close()
    check_whole(journal)
    # An intent is reported after the answer before it.
    assert reports.commits - 1 <= journal.totals(sandbox=False).answered < attempt
    assert journal.totals(sandbox=False).open_intents <= 1


def test_a_process_that_dies_while_nothing_is_written_is_noticed_too(journal: Journal) -> None:
    reports = Reports()
    writer = writer_of(journal, reports, ELSEWHERE)
    os.kill(process_of(writer._commits), signal.SIGKILL)
    wait_until(lambda: reports.errors)
    with pytest.raises(StorageError, match="was killed by signal 9"):
        writer.close()


def test_signals_to_all_processes_leave_the_journal_s_alone(journal: Journal) -> None:
    commits = ELSEWHERE(journal, lambda: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process_of(commits), number)
    assert commits.write([intent(1)], None) == frozenset()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process_of(commits), number)
    assert commits.write([answer_to(1)], None) == frozenset()
    commits.close()
    assert not is_running(process_of(commits))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert journal.totals(sandbox=False).answered == 1


def test_what_a_killed_run_has_handed_over_is_written_before_the_lock_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    told, tell = os.pipe()
    run = os.fork()
    if run == 0:
        with locked(folder) as locks:
            journal = create_or_open(folder.journal)
            start_run(journal)
            commits = commits_elsewhere(locks, os.environ)(journal, lambda: None)
            commits.write([intent(1), intent(2)], None)
            assert isinstance(commits, JournalProcess)
            os.kill(process_of(commits), signal.SIGSTOP)
            send(commits._link, msgspec.msgpack.encode(Write([answer_to(1)], [], [], [], [], None)))
            os.write(tell, b"%d" % process_of(commits))
            os.kill(os.getpid(), signal.SIGKILL)
    process = int(os.read(told, 20))
    os.close(told)
    os.close(tell)
    os.waitpid(run, 0)
    assert is_active(folder)
    with monkeypatch.context() as patched:
        patched.setattr(run_lock, "_SECONDS_FOR_THE_DEAD", 0)
        held = rf"held by process {process}: .* killed \(process {run}\).\n.* kill -9 {process},"
        with pytest.raises(LockedError, match=held), locked(folder):
            pass
    os.kill(process, signal.SIGCONT)
    with locked(folder), closing(create_or_open(folder.journal)) as journal:
        assert journal.totals(sandbox=False).answered == 1
        assert journal.totals(sandbox=False).open_intents == 1
        check_whole(journal)
    wait_until(lambda: not is_running(process))


@pytest.mark.anyio
async def test_a_second_signal_ends_a_run_whose_process_is_frozen(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_JOURNAL_SECONDS", 0.1)
    writer = writer_of(journal, Reports(), ELSEWHERE)
    process = process_of(writer._commits)

    async def freeze_and_signal_twice() -> None:
        shutdown = ShutdownRequest()
        async with session._closing(writer, shutdown):
            os.kill(process, signal.SIGSTOP)
            writer.write_intent(intent(1))
            shutdown.request(interrupted(signal.SIGINT))
            shutdown.request(interrupted(signal.SIGINT, immediate=True))

    with pytest.raises(StorageError, match=rf"has not answered, and was killed \(process {process}\)"):
        await freeze_and_signal_twice()
    assert not is_running(process)


def test_a_journal_that_is_replaced_before_the_process_opens_it_is_not_written(journal: Journal) -> None:
    commits = ELSEWHERE(journal, lambda: None)
    content = journal.path.read_bytes()
    journal.path.unlink()
    journal.path.write_bytes(content)
    with pytest.raises(MovedError, match="was deleted, moved or replaced"):
        commits.write([intent(1)], None)
    commits.close()


def test_damage_is_reported_in_the_same_words(journal: Journal) -> None:
    journal.connection.execute("INSERT INTO intent_blocks VALUES (1, '[]', x'00', 5)")
    with pytest.raises(JournalError) as here:
        commits_here(journal, lambda: None)
    commits = ELSEWHERE(journal, lambda: None)
    with pytest.raises(JournalError) as elsewhere:
        commits.write([intent(1)], None)
    commits.close()
    assert type(elsewhere.value) is type(here.value)
    assert str(elsewhere.value) == str(here.value)


def test_a_process_that_breaks_at_its_start_says_why(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(str(tmp_path))
    commits = ELSEWHERE(journal, lambda: None)
    with pytest.raises(StorageError, match="has ended with exit code 1: ImportError: no such library"):
        commits.write([intent(1)], None)
    commits.close()


def test_a_run_that_can_t_start_a_process_writes_by_itself(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    commits = ELSEWHERE(journal, lambda: None)
    assert isinstance(commits, Commits)
    assert commits.write([intent(1)], None) == frozenset()


def test_what_the_process_prints_neither_mixes_with_its_answers_nor_stops_it(
    journal: Journal, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('x' * 200_000, flush=True)")
    commits = commits_elsewhere((), {"PYTHONPATH": str(tmp_path)})(journal, lambda: None)
    assert commits.write([intent(1)], None) == frozenset()
    commits.close()


def test_a_run_ends_though_its_program_has_forked_a_process_that_goes_on(journal: Journal) -> None:
    commits = ELSEWHERE(journal, lambda: None)
    commits.write([intent(1)], None)
    forked = os.fork()
    if forked == 0:
        signal.pause()
    try:
        commits.close()
        assert not is_running(process_of(commits))
        os.kill(forked, 0)
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
