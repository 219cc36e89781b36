"""What -q keeps quiet about and what not, what -v says, what --log-file writes."""

import json
from typing import Any

import pytest

from tests.acceptance.answering import answering, error
from tests.acceptance.command import Done, Place

TEN = [f"text {n}" for n in range(10)]
REFUSED = "[sandbox:flag self-harm] one"


def quiet(place: Place, *settings: str) -> Done:
    return place.run(*settings, options=("-q",))


def test_quiet_says_nothing_where_every_row_has_an_answer(place: Place) -> None:
    place.texts("one", "two")
    assert quiet(place) == Done(0, "", "")


def test_quiet_speaks_of_failed_rows(place: Place) -> None:
    place.texts("one", REFUSED)
    done = quiet(place)
    assert done.code == 3
    assert "1 row of 2 failed" in done.last_line


@pytest.mark.parametrize("cap", ["budget.rows=1", "budget.usd_per_day=0.0009", "budget.usd_per_run=0.0009"])
def test_quiet_is_silent_at_a_cap_that_renews_itself(place: Place, cap: str) -> None:
    place.texts(*TEN)
    assert quiet(place, cap, "limits.concurrency=1") == Done(4, "", "")
    assert place.summary()["needs_person"] is False


@pytest.mark.parametrize("cap", ["usd=0.0009", "tokens=130", "credits=0"])
def test_quiet_speaks_of_a_cap_that_a_person_has_to_raise(place: Place, cap: str) -> None:
    place.texts(*TEN)
    done = quiet(place, f"budget.{cap}", "limits.concurrency=1")
    assert done.code == 4
    assert f"raise budget.{cap.partition('=')[0]}" in done.last_line or "credits" in done.last_line


@pytest.mark.parametrize("cap", ["usd_per_day", "usd_per_run"])
def test_quiet_speaks_of_a_cap_that_lets_nothing_through(place: Place, cap: str) -> None:
    """It would renew itself every night, and never let a row through."""
    place.texts("one")
    done = quiet(place, f"budget.{cap}=0.0000001")
    assert done.code == 4
    assert f"Stopped at the cap budget.{cap}" in done.last_line


def test_quiet_speaks_of_a_refusing_endpoint(place: Place) -> None:
    place.texts("one")
    with answering(lambda _: error(401, "no such key")) as base_url:
        done = quiet(place, f"endpoint.base_url={base_url}")
    assert done.code == 5
    assert "no such key" in done.last_line


def test_verbose_says_what_becomes_of_each_failed_attempt(place: Place) -> None:
    place.texts(REFUSED)
    done = place.run(options=("-v",))
    (line,) = [line for line in done.err.splitlines() if line.startswith("attempt ")]
    assert line.startswith("attempt 1: ")
    assert "HTTP 4" in line
    assert line.endswith("its row has failed")
    assert "run 1 started" in done.err


def test_verbose_says_that_a_row_is_asked_again_and_how_long_to_wait(place: Place) -> None:
    place.texts("one")
    replies = iter([error(429, "slow down", retry_after="1")])

    def reply(_: Any) -> Any:
        return next(replies, error(401, "that is all"))

    with answering(reply) as base_url:
        done = place.run(f"endpoint.base_url={base_url}", options=("-v",))
    assert "HTTP 429: slow down; wait 1 s; its row is sent again" in done.err


def test_quiet_and_verbose_don_t_go_together(place: Place) -> None:
    done = place.run(options=("-q", "-v"))
    assert done.code == 2
    assert "not both" in done.err


def test_the_log_file_has_a_json_line_for_each_event_and_grows(place: Place) -> None:
    place.texts("one", REFUSED)
    for _ in range(2):
        place.run(options=("-q", "--log-file", "run.log"))
    path = place.folder / "run.log"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["event"] for event in events] == [
        *("run started", "attempt failed", "run ended"),
        *("run started", "run ended"),
    ]
    assert events[2]["exit_code"] == 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert "one" not in {word for event in events for word in str(event).split()}


def test_the_log_file_is_rotated(place: Place) -> None:
    place.texts("one")
    path = place.folder / "run.log"
    path.write_text("x" * (10 * 2**20) + "\n")
    assert place.run(options=("-q", "--log-file", "run.log")).code == 0
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "run ended"
    assert (place.folder / "run.log.1").stat().st_size > 10 * 2**20


def test_a_log_file_that_can_t_be_written_is_an_error_before_anything_is_sent(place: Place) -> None:
    place.texts("one")
    done = place.run(options=("--log-file", "no/such/folder/x.log"))
    assert (done.code, place.requests) == (2, 0)
    assert "no/such/folder/x.log can't be written: No such file or directory" in done.err
