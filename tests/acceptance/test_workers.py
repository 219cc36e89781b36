"""Runs whose requests other processes send: the bill and the journal agree, whoever dies."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchrun.workers.access import new_token
from tests.acceptance.command import Done, Place, as_options, ended, until
from tests.kill.audit import broken_at
from tests.kill.campaign import Observation
from tests.kill.evidence import snapshot
from tests.kill.workers import children_of

if TYPE_CHECKING:
    import subprocess

TEXTS = [f"text {n}" for n in range(40)]
NANO_USD = 10**9
AMPLE = 100 * NANO_USD


def workers_of(place: Place) -> list[int]:
    """The processes of the workers that have joined, as the log has them."""
    log = place.folder / "out.run" / "log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [int(each["worker"].rpartition("/")[2]) for each in events if each["event"] == "worker joined"]


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def journal_process(run: "subprocess.Popen[str]") -> int:
    (process,) = (child for child, what in children_of(run.pid).items() if what == "journal")
    return process


def check_books(place: Place, done: Done, cap: int = AMPLE) -> None:
    """The bill is within what the journal has as settled and as uncertain, and each answer is bought once."""
    journal = snapshot(place.folder / "out.run" / "journal.sqlite")
    assert broken_at(Observation(cap, place.bill()["nano_usd"], journal, done.code, None)) == []


def check_rows(place: Place) -> None:
    assert place.column("text") == TEXTS
    assert set(place.column("status")) == {"ok"}


@contextmanager
def running(place: Place, *settings: str, workers: str = "local:2") -> Iterator["subprocess.Popen[str]"]:
    place.texts(*TEXTS)
    command = ("run", "job.toml", "--workers", workers, *as_options(settings))
    with place.start(*command) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def worker_by_hand(place: Place, address: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    token = str(place.folder / "out.run" / "workers.token")
    arguments = ("worker", "--connect", address, "--token-file", token, *options)
    with place.start(*arguments, environment={"ABLIT_KEY": ""}) as process:
        try:
            yield process
        finally:
            process.kill()


def address_of(run: "subprocess.Popen[str]") -> str:
    """Where a run listens, from the line that it prints."""
    assert run.stderr is not None
    line = run.stderr.readline()
    assert "--connect" in line, line
    return line.split("--connect ")[1].split()[0]


LISTENING = 'workers={kind="listen", address="127.0.0.1:0"}'


def test_two_workers_send_what_one_process_would(place: Place) -> None:
    place.texts(*TEXTS)
    assert place.run(options=["--workers", "local:2"]).code == 0
    assert place.requests == len(TEXTS)
    check_rows(place)
    assert workers_of(place)  # the second may come when nothing is left
    assert not any(map(is_running, workers_of(place)))
    assert not (place.folder / "out.run" / "workers.token").exists()
    assert place.run().code == 0
    assert place.requests == len(TEXTS)


def test_a_killed_worker_costs_what_it_was_sending_and_no_row(slow_place: Place) -> None:
    with running(slow_place) as run:
        until(lambda: slow_place.requests >= 16)
        os.kill(workers_of(slow_place)[0], signal.SIGKILL)
        done = ended(run)
    assert done.code == 0, done.err
    check_books(slow_place, done)
    check_rows(slow_place)
    lost = slow_place.journal(
        "SELECT outcome, count(*) FROM attempts WHERE error_code = 'worker_lost' GROUP BY 1"
    )
    assert lost
    assert lost[0][0] == "uncertain"


@pytest.mark.slow
def test_a_frozen_worker_is_noticed_by_its_silence(slow_place: Place) -> None:
    with running(slow_place) as run:
        until(lambda: slow_place.requests >= 16)
        frozen = workers_of(slow_place)[0]
        os.kill(frozen, signal.SIGSTOP)
        done = ended(run)
    assert done.code == 0, done.err
    assert "has been silent" in (slow_place.folder / "out.run" / "log.jsonl").read_text()
    check_books(slow_place, done)
    check_rows(slow_place)
    assert not is_running(frozen)


def test_workers_end_with_a_killed_run_and_the_next_run_finishes(slow_place: Place) -> None:
    with running(slow_place) as run:
        until(lambda: slow_place.requests >= 16)
        processes = [*workers_of(slow_place), journal_process(run)]
        run.kill()
        run.wait()
        until(lambda: not any(map(is_running, processes)), 5)
    sent = slow_place.requests
    check_books(slow_place, Done(-signal.SIGKILL, "", ""))
    done = slow_place.run(options=["--workers", "local:2"])
    assert done.code == 0
    assert sent < slow_place.requests
    check_books(slow_place, done)
    check_rows(slow_place)


def test_workers_that_are_starting_end_with_a_killed_run(place: Place) -> None:
    with running(place) as run:
        until(lambda: "worker" in children_of(run.pid).values())
        processes = children_of(run.pid)
        run.kill()
    until(lambda: not any(map(is_running, processes)), 5)


def test_a_run_ends_with_its_journal_s_process_and_the_next_one_finishes(slow_place: Place) -> None:
    with running(slow_place) as run:
        until(lambda: slow_place.requests >= 16)
        workers = workers_of(slow_place)
        os.kill(journal_process(run), signal.SIGKILL)
        done = ended(run)
        sent = slow_place.requests
    assert done.code == 1
    journal = slow_place.folder / "out.run" / "journal.sqlite"
    assert f"The process that writes the journal {journal} was killed by signal 9" in done.err
    assert not any(map(is_running, workers))
    check_books(slow_place, done)
    done = slow_place.run(options=["--workers", "local:2"])
    assert done.code == 0, done.err
    assert sent < slow_place.requests
    check_books(slow_place, done)
    check_rows(slow_place)


def test_a_cap_holds_over_all_workers(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.run("budget.usd=0.004", options=["--workers", "local:3"])
    assert done.code == 4, done.err
    assert 0 < place.requests < len(TEXTS)
    assert place.column("text") == TEXTS
    check_books(place, done, cap=4 * NANO_USD // 1_000)


def test_a_signal_drains_what_workers_are_sending(slow_place: Place) -> None:
    with running(slow_place) as run:
        until(lambda: slow_place.requests >= 16)
        process = journal_process(run)
        for each in (process, run.pid):  # as a service manager does
            os.kill(each, signal.SIGTERM)
        done = ended(run)
    assert done.code == 143, done.err
    assert not is_running(process)
    outcomes = slow_place.journal("SELECT outcome, count(*) FROM attempts GROUP BY 1")
    assert outcomes == [("answered", slow_place.requests)]
    check_books(slow_place, done)


def test_a_worker_started_by_hand_gets_the_key_and_ends_with_the_run(place: Place) -> None:
    with running(place, LISTENING, workers="listen") as run, worker_by_hand(place, address_of(run)) as worker:
        done = ended(run)
        assert ended(worker).code == 0
    assert done.code == 0, done.err
    check_rows(place)
    assert place.requests == len(TEXTS)


def test_a_worker_by_hand_sends_over_tls(place: Place) -> None:
    pytest.importorskip("cryptography")
    tls = 'workers={kind="listen", address="127.0.0.1:0", tls=true}'
    with running(place, tls, workers="listen") as run, worker_by_hand(place, address_of(run)) as worker:
        assert ended(run).code == 0
        assert ended(worker).code == 0
    check_rows(place)


def test_a_worker_that_is_told_to_end_loses_nothing(slow_place: Place) -> None:
    with running(slow_place, LISTENING, workers="listen") as run:
        address = address_of(run)
        with worker_by_hand(slow_place, address) as first, worker_by_hand(slow_place, address):
            until(lambda: len(workers_of(slow_place)) == 2 and slow_place.requests >= 12)
            first.send_signal(signal.SIGTERM)
            assert ended(first).code == 143
            done = ended(run)
    assert done.code == 0, done.err
    assert slow_place.requests == len(TEXTS)
    check_rows(slow_place)


def test_without_a_worker_the_run_ends_after_its_patience_and_can_go_on(slow_place: Place) -> None:
    with running(slow_place, LISTENING, "retry.outage_seconds=3", workers="listen") as run:
        with worker_by_hand(slow_place, address_of(run)) as worker:
            until(lambda: slow_place.requests >= 8)
            worker.kill()
        done = ended(run)
    assert done.code == 5, done.err
    assert "no worker is connected" in done.last_line
    check_books(slow_place, done)
    assert slow_place.run().code == 0
    check_rows(slow_place)


def test_a_run_that_no_worker_comes_to_sends_nothing(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.run(LISTENING, "retry.outage_seconds=0.3")
    assert done.code == 5
    assert "No worker has come within 0.3 s (retry.outage_seconds)." in done.last_line
    assert place.journal("SELECT count(*) FROM attempts") == [(0,)]


def test_a_job_that_has_all_its_answers_waits_for_no_worker(place: Place) -> None:
    place.texts(*TEXTS)
    assert place.run().code == 0
    place.output.unlink()
    with running(place, LISTENING, workers="listen") as run:
        done = ended(run)
    assert done.code == 0, done.err
    check_rows(place)
    assert place.requests == len(TEXTS)


def test_a_check_of_a_job_with_workers_waits_for_none(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.command("check", "job.toml", "--set", LISTENING)
    assert done.code == 0, done.err
    assert place.requests == 1


def test_a_wrong_token_and_a_missing_run_are_named(place: Place) -> None:
    with running(place, LISTENING, workers="listen") as run:
        address = address_of(run)
        other = place.folder / "other.token"
        other.write_text(f"{new_token().text()}\n")
        done = place.command("worker", "--connect", address, "--token-file", str(other))
        assert (done.code, "the token is not that of its run" in done.err) == (2, True)
        run.send_signal(signal.SIGTERM)
        ended(run)
    done = place.command("worker", "--connect", address, "--token-file", str(other), "--wait", "0.1")
    assert (done.code, f"No coordinator answers at {address}" in done.err) == (1, True)


def test_no_key_is_in_a_command_line_an_environment_or_files_of_a_run_s_processes(slow_place: Place) -> None:
    place = slow_place
    with running(place) as run:
        until(lambda: place.requests >= 12)
        for process in [*workers_of(place), journal_process(run)]:
            for name in ("cmdline", "environ"):
                assert place.key.encode() not in Path(f"/proc/{process}/{name}").read_bytes()
        token = place.folder / "out.run" / "workers.token"
        assert token.stat().st_mode & 0o777 == 0o600
        secret = token.read_bytes().strip()
        done = ended(run)
    assert done.code == 0
    assert place.key not in done.err
    for path in place.folder.rglob("*"):
        if path.is_file():
            assert place.key.encode() not in path.read_bytes()
            assert secret not in path.read_bytes()
            assert path.parent.name != "out.run" or path.stat().st_mode & 0o777 == 0o600, path


def test_what_no_worker_here_could_connect_with_is_named_as_without_workers(place: Place) -> None:
    place.texts(*TEXTS)
    command = ("run", "job.toml", "--workers", "local:2", "--base-url", "https://model.invalid")
    with place.start(*command, environment={"HTTPS_PROXY": "ftp://nonsense"}) as run:
        done = ended(run)
    assert done.code == 2
    assert "batchrun: the environment variable HTTPS_PROXY holds no proxy's address" in done.err
    assert place.journal("SELECT count(*) FROM attempts") == [(0,)]


def test_workers_here_may_start_slower_than_an_outage_may_last(place: Place) -> None:
    place.texts("one")
    done = place.run("retry.outage_seconds=0", options=["--workers", "local:1"])
    assert done.code == 0, done.err


def test_plain_tcp_is_refused_where_the_internet_reaches(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.run('workers={kind="listen", address="0.0.0.0:0"}')
    assert done.code == 2
    assert "can be reached from the internet" in done.err
    assert "--workers-tls" in done.err
