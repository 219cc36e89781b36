"""SIGINT and SIGTERM in the middle of a run, sent to the real process."""

import signal
import sys
import time
from collections.abc import Callable
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal

import pytest

from batchrun import __main__, cli
from tests.acceptance.command import Done, Place, as_options, ended, until

ROWS = 40
TEXTS = [f"text {n}" for n in range(ROWS)]
SIGNALS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def interrupted(place: Place, *numbers: signal.Signals, settings: tuple[str, ...] = ()) -> Done:
    """A run that gets the signals, a tenth of a second apart, once it has its first answers."""
    place.texts(*TEXTS)
    command = ("run", "job.toml", *as_options(("limits.concurrency=4", *settings)))
    with place.start(*command) as process:
        until(lambda: place.requests >= 6)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        return ended(process)


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_in_flight_is_drained_and_the_next_run_goes_on(slow_place: Place, name: str) -> None:
    done = interrupted(slow_place, signal.Signals[name])
    assert done.code == SIGNALS[name], done.err
    assert f"Interrupted by {name}." in done.last_line
    assert "the same command continues" in done.last_line
    sent = slow_place.requests
    assert sent < ROWS
    column = slow_place.column("status")
    assert (column.count("ok"), column.count("pending")) == (sent, ROWS - sent)
    assert slow_place.journal("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("answered", sent)]
    assert slow_place.journal("SELECT count(*) FROM intents") == [(0,)]
    assert slow_place.summary()["exit_code"] == SIGNALS[name]
    assert slow_place.run("limits.concurrency=40").code == 0
    assert slow_place.requests == ROWS


@pytest.mark.parametrize("name", SIGNALS)
def test_a_second_signal_ends_at_once_and_loses_no_answer_that_had_come(slow_place: Place, name: str) -> None:
    number = signal.Signals[name]
    done = interrupted(slow_place, number, number)
    assert done.code == SIGNALS[name], done.err
    assert "Traceback" not in done.err
    assert f"Ended at once by a second signal ({name})." in done.last_line
    assert "the same command continues" in done.last_line
    outcomes = dict(slow_place.journal("SELECT outcome, count(*) FROM attempts GROUP BY 1"))
    assert sum(outcomes.values()) >= slow_place.requests
    assert outcomes["answered"] >= 2
    ((settled, uncertain),) = slow_place.journal(
        "SELECT sum(nano_usd) FILTER (WHERE outcome = 'answered'),"
        " sum(nano_usd) FILTER (WHERE outcome = 'uncertain') FROM attempts"
    )
    assert settled <= slow_place.bill()["nano_usd"] <= settled + uncertain
    assert not slow_place.output.exists()
    summary = slow_place.summary()
    assert (summary["exit_code"], summary["output_written"]) == (SIGNALS[name], False)
    assert summary["rows"]["ok"] == outcomes["answered"]
    assert summary["rows"]["pending"] == ROWS - outcomes["answered"]
    assert "batchrun export writes the output" in done.last_line
    assert slow_place.command("export", "job.toml").code == 0
    assert slow_place.column("status").count("ok") == outcomes["answered"]
    assert slow_place.run("limits.concurrency=40").code == 0
    assert slow_place.column("status") == ["ok"] * ROWS


def test_a_signal_ends_a_run_that_waits_for_its_next_attempt(place: Place) -> None:
    place.texts("one")
    place.sandbox.set("faults", {"429": 1})
    with place.start("run", "job.toml") as process:
        until(lambda: place.requests >= 1)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        done = ended(process)
    assert done.code == 130
    assert time.monotonic() - started < 10
    assert place.column("status") == ["pending"]


WRITTEN = 100_000
"""Rows whose output takes some seconds to write."""


def interrupted_writing(place: Place, *numbers: signal.Signals) -> Done:
    """A run with all its answers, one for all rows, that gets the signals while it writes its output."""
    place.texts(*["the same"] * WRITTEN)
    before = place.requests
    with place.start("run", "job.toml") as process:
        # A temporary file is also tried at the start of a run.
        until(lambda: place.requests > before and any(place.folder.glob(".out.parquet.*.tmp")))
        for number in numbers:
            time.sleep(0.1)
            assert process.poll() is None
            process.send_signal(number)
        return ended(process)


def test_the_first_signal_lets_the_output_be_written(place: Place) -> None:
    done = interrupted_writing(place, signal.SIGINT)
    assert done.code == 0, done.err
    assert place.column("status") == ["ok"] * WRITTEN


@pytest.mark.parametrize("name", SIGNALS)
def test_the_second_signal_ends_the_writing_of_the_output_and_leaves_the_old_one(
    place: Place, name: str
) -> None:
    place.texts("one")
    assert place.run().code == 0
    before = place.output.read_bytes()
    done = interrupted_writing(place, signal.SIGINT, signal.Signals[name])
    assert done.code == SIGNALS[name], done.err
    assert "batchrun export writes the output" in done.last_line
    assert place.output.read_bytes() == before
    assert list(place.folder.glob(".out*")) == []
    assert place.summary()["exit_code"] == SIGNALS[name]
    assert place.summary()["rows"]["total"] == WRITTEN
    assert place.command("export", "job.toml").code == 0
    assert place.column("status") == ["ok"] * WRITTEN
    assert place.requests == 2, "all of it is in the journal"


def test_outside_a_run_nothing_is_said_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press_ctrl_c(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli.batchrun_group, "main", press_ctrl_c)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert "Interrupted by SIGINT. Nothing is lost: run the same command" in capsys.readouterr().err


def test_ctrl_c_while_the_command_is_imported_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []

    class Command:
        @property
        def main(self) -> Callable[[], None]:
            handlers.append(getsignal(SIGINT))
            return lambda: handlers.append(getsignal(SIGINT))

    signal.signal(SIGINT, default_int_handler)
    monkeypatch.setitem(sys.modules, "batchrun.cli", Command())
    __main__.main()
    assert handlers == [SIG_DFL, default_int_handler]
