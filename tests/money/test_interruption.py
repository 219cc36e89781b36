"""What signals do to a run in this process, at moments that a test of the command can't choose."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.asking import Asking, ask
from batchrun.engine import Rules
from batchrun.interruption import EndedAtOnce, heeding_signals
from batchrun.journal import create_or_open
from batchrun.ledger import Ledger
from batchrun.limits.limiter import Limiter
from batchrun.open_rows import Row
from batchrun.pending import in_random_order
from batchrun.progress import Progress
from batchrun.wire.endpoint import EndpointSettings
from batchrun.wire.retry import RetryPolicy
from tests.money.fanout import TARIFF, request
from tests.money.journals import start_run

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reading_of_a_long_input_in_random_order(tmp_path: Path, number: int) -> None:
    """All of it is read before the first request; a signal doesn't wait for that."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    asking = Asking(
        start_run(journal), Rules(4, RetryPolicy(3, 1.0)), Ledger(()), TARIFF, Limiter(), NOWHERE, None
    )
    started = time.monotonic()
    with heeding_signals() as interruption:
        send(number)
        stop = ask(asking, journal, in_random_order(slow_input(), 0), Progress(), interruption)
    journal.close()
    assert stop is not None
    assert stop.exit_code == 128 + number
    assert time.monotonic() - started < CHUNKS * SECONDS_A_CHUNK / 4


def test_a_signal_before_the_asking_is_heard_by_it(tmp_path: Path) -> None:
    journal = create_or_open(tmp_path / "journal.sqlite")
    asking = Asking(
        start_run(journal), Rules(4, RetryPolicy(3, 1.0)), Ledger(()), TARIFF, Limiter(), NOWHERE, None
    )
    started = time.monotonic()
    with heeding_signals() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        stop = ask(asking, journal, in_random_order(slow_input(), 0), Progress(), interruption)
    journal.close()
    assert stop == interruption.stop
    assert time.monotonic() - started < 1


def test_the_second_signal_ends_what_checks_for_it_and_the_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with heeding_signals() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(EndedAtOnce):
            interruption.check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert interruption.stop is not None
    assert interruption.stop.exit_code == 143


def test_outside_of_the_main_thread_no_signal_is_heard() -> None:
    heard: list[object] = []

    def block() -> None:
        with heeding_signals() as interruption:
            heard.append(interruption.stop)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert heard == [None]
