"""What signals do to a run in this process, at moments that a test of the command can't choose."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.client.endpoint import EndpointSettings
from batchrun.client.retry import RetryPolicy
from batchrun.engine.dispatcher import Rules
from batchrun.engine.ledger import Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.session import Session, run_engine
from batchrun.engine.shutdown import ImmediateShutdown, ShutdownRequest, handling_signals
from batchrun.errors import StorageError
from batchrun.journal import create_or_open
from batchrun.rows.active import Row
from batchrun.rows.selection import in_random_order
from batchrun.stops import interrupted
from tests.money.fanout import TARIFF, request
from tests.money.journals import Reports, intent, start_run, writer_of

NOWHERE = EndpointSettings("http://127.0.0.1:9", None, "bearer", {}, 5.0, 5.0, 1_000, 4, False, False)
CHUNKS = 200
SECONDS_A_CHUNK = 0.05


def slow_input() -> Iterator[list[Row]]:
    """Takes ten seconds."""
    for chunk in range(CHUNKS):
        time.sleep(SECONDS_A_CHUNK)
        yield [Row(chunk, request(chunk))]


def send(*numbers: int) -> None:
    """Sends signals to this process, the first after a moment."""

    def send_all() -> None:
        for number in numbers:
            time.sleep(0.3)
            os.kill(os.getpid(), number)

    threading.Thread(target=send_all).start()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reading_of_a_long_input_in_random_order(tmp_path: Path, number: int) -> None:
    """All of it is read before the first request; a signal doesn't wait for that."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    session = Session(
        start_run(journal), Rules(4, RetryPolicy(3, 1.0)), Ledger(()), TARIFF, Limiter(), NOWHERE, None
    )
    started = time.monotonic()
    with handling_signals() as shutdown:
        send(number)
        stop = run_engine(session, journal, in_random_order(slow_input(), 0, 1_024, tmp_path), shutdown)
    journal.close()
    assert stop is not None
    assert stop.exit_code == 128 + number
    assert time.monotonic() - started < CHUNKS * SECONDS_A_CHUNK / 4


def test_a_signal_before_the_asking_is_heard_by_it(tmp_path: Path) -> None:
    journal = create_or_open(tmp_path / "journal.sqlite")
    session = Session(
        start_run(journal), Rules(4, RetryPolicy(3, 1.0)), Ledger(()), TARIFF, Limiter(), NOWHERE, None
    )
    started = time.monotonic()
    with handling_signals() as shutdown:
        os.kill(os.getpid(), signal.SIGTERM)
        stop = run_engine(session, journal, in_random_order(slow_input(), 0, 1_024, tmp_path), shutdown)
    journal.close()
    assert stop == shutdown.stop
    assert time.monotonic() - started < 1


def test_whoever_listens_inside_is_told_first_and_others_go_on_listening() -> None:
    told: list[str] = []
    shutdown = ShutdownRequest()
    with shutdown.notifying(lambda _: told.append("outer")):
        with shutdown.notifying(lambda _: told.append("inner")):
            shutdown.request(interrupted(signal.SIGINT, immediate=False))
        shutdown.request(interrupted(signal.SIGINT, immediate=True))
    shutdown.request(interrupted(signal.SIGINT, immediate=True))
    assert told == ["inner", "outer", "outer"]


def test_the_second_signal_ends_what_checks_for_it_and_the_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with handling_signals() as shutdown:
        shutdown.check()
        os.kill(os.getpid(), signal.SIGINT)
        shutdown.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(ImmediateShutdown):
            shutdown.check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert shutdown.stop is not None
    assert shutdown.stop.exit_code == 143


@pytest.mark.parametrize(
    ("second", "after", "ends_at_once"),
    [
        (signal.SIGTERM, 0.001, False),
        (signal.SIGTERM, 0.049, False),
        (signal.SIGTERM, 0.051, True),
        (signal.SIGINT, 0.001, True),
    ],
)
def test_the_same_signal_right_after_the_first_counts_once(
    second: signal.Signals, after: float, ends_at_once: bool
) -> None:
    """`timeout` signals its child, then the child's process group."""
    times = iter([100.0, 100.0 + after])
    shutdown = ShutdownRequest(clock=lambda: next(times))
    shutdown.on_signal(signal.SIGTERM, None)
    shutdown.on_signal(second, None)
    assert shutdown.stop is not None
    assert shutdown.stop.immediate is ends_at_once


def test_outside_of_the_main_thread_no_signal_is_heard() -> None:
    heard: list[object] = []

    def block() -> None:
        with handling_signals() as shutdown:
            heard.append(shutdown.stop)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert heard == [None]


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGXCPU])
def test_signals_that_leave_no_time_are_heard_as_second_ones(number: signal.Signals) -> None:
    with handling_signals() as shutdown:
        os.kill(os.getpid(), number)
        with pytest.raises(ImmediateShutdown):
            shutdown.check()
    assert shutdown.stop is not None
    assert shutdown.stop.exit_code == 128 + number
    assert shutdown.stop.reason == f"Ended at once by {number.name}."


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling_signals() as shutdown:
            os.kill(os.getpid(), signal.SIGHUP)
        assert shutdown.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("error", [OSError("no sleep"), SystemExit(3), MemoryError()])
def test_a_journal_thread_that_dies_of_whatever_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def no_sleep(_seconds: float) -> None:
        raise error

    monkeypatch.setattr("batchrun.journal.writer.time.sleep", no_sleep)
    reports = Reports()
    journal = create_or_open(tmp_path / "journal.sqlite")
    writer = writer_of(journal, reports)
    writer.write_intent(intent(1))
    with pytest.raises(StorageError, match="is no longer written"):
        writer.close()
    assert len(reports.errors) == 1
    journal.close()
