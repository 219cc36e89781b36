"""SIGINT and SIGTERM in the middle of a run, sent to the real process."""

import signal
import time

import pytest

from tests.acceptance.command import Done, Place, as_options, ended, until

ROWS = 40
TEXTS = [f"text {n}" for n in range(ROWS)]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


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
    assert "the same command continues" in done.last_line
    outcomes = dict(slow_place.journal("SELECT outcome, count(*) FROM attempts GROUP BY 1"))
    assert sum(outcomes.values()) >= slow_place.requests
    assert outcomes["answered"] >= 2
    ((settled, uncertain),) = slow_place.journal(
        "SELECT sum(nano_usd) FILTER (WHERE outcome = 'answered'),"
        " sum(nano_usd) FILTER (WHERE outcome = 'uncertain') FROM attempts"
    )
    assert settled <= slow_place.bill()["nano_usd"] <= settled + uncertain
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
