"""What the display says of a whole run before a simulated server, in virtual time."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrun.journal import Journal, create_or_open
from benchmarks.limit_servers import Bucket, Outage, Random, Server, Shared, Slots, Window
from tests.limits.shown import Look, ShownRun

STARTED = 10.0
"""Seconds after which a run knows its rate: it has met its limit, and has had its first responses."""
JUMP = 2.0
"""Within half a second: the limit that falls to 40 % in mid-run stays below it, too."""
SLACK = 5.0
"""Seconds that are no jump, however little time is left."""
GIVEN = {"limits": {"requests_per_minute": 600}}

Make = Callable[[], Server]
CASES: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "no limit": (Server, 6_000, {}),
    "a given limit": (lambda: Window(10.0), 1_500, GIVEN),
    "a limit in headers": (lambda: Window(10.0, headers=True), 1_500, {}),
    "a fixed window": (lambda: Window(10.0, fixed=True), 2_500, {}),
    "a sliding window": (lambda: Window(10.0), 2_500, {}),
    "a bucket": (lambda: Bucket(10.0, 10), 1_500, {}),
    "a window of a second": (lambda: Window(10.0, 1.0), 1_500, {}),
    "a bound on concurrency": (lambda: Slots(8), 2_000, {}),
    "refusals at random": (lambda: Random(0.05, None, Server(), 1), 5_000, {}),
    "refusals that name a long wait": (lambda: Random(0.01, 30.0, Server(), 1), 6_000, {}),
    "refusals beside a limit": (lambda: Random(0.2, 1.0, Bucket(10.0, 10), 1), 1_500, {}),
    "refusals beside a given limit": (lambda: Random(0.05, 1.0, Server(), 1), 1_200, GIVEN),
    "a shared key": (lambda: Shared(Window(10.0), 10.0), 2_500, {}),
    "a limit that falls": (lambda: Window([(0.0, 20.0), (90.0, 8.0), (180.0, 20.0)]), 3_000, {}),
    "a limit that grows": (lambda: Window([(0.0, 20.0), (100.0, 120.0)]), 4_000, {}),
    "an outage": (lambda: Outage(Bucket(30.0, 1), 30.0, 60.0), 2_500, {}),
    "an outage below a given limit": (lambda: Outage(Window(10.0), 60.0, 60.0), 1_200, GIVEN),
    "slow answers": (Server, 300, {"latency": 30.0, "concurrency": 8}),
}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create_or_open(tmp_path / "journal.sqlite")


@pytest.mark.parametrize("name", CASES)
def test_time_to_go_neither_vanishes_nor_jumps_and_is_about_right(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, rows, more = CASES[name]
    run = ShownRun(journal, make(), rows, **more)
    looks = [look for look in run.looked_at(monkeypatch) if look.at > STARTED]
    before = next(place for place, look in enumerate(looks) if look.to_go is not None)
    looks = looks[before:]
    assert looks[0].at < max(2 * STARTED, 2 * more.get("latency", 0.0))
    latest: float | None = None
    for look in looks[:-20]:
        assert look.to_go is not None, look
        known = look.to_go + SLACK + more.get("latency", 0.0)
        assert latest is None or 1 / JUMP < known / latest < JUMP, look
        latest = known
    if name == "a limit that grows":
        return  # nobody knows that it will
    # Nobody knows when an outage ends, or what a limit will be once it is found.
    unknown = ("a limit that falls", "a bound on concurrency", "a shared key", "an outage")
    changes = name in (*unknown, "an outage below a given limit")
    least, most = (0.4, 2.5) if changes else (0.6, 1.5)
    for look in looks:
        if 0.4 < look.at / run.seconds < 0.9:
            assert look.to_go is not None
            assert least < look.to_go / (run.seconds - look.at) < most, look


def test_a_full_window_is_waited_for_by_the_second(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 rows in the first seconds, then nothing for the rest of the minute."""
    looks = ShownRun(journal, Window(10.0), 700).looked_at(monkeypatch)
    pause = [look for look in looks if 10 < look.at < 50]
    assert all("held back by a 429, next request in " in look.lines[1] for look in pause)
    for look in pause:
        assert look.next_request is not None
        assert look.next_request == pytest.approx(60 - look.at, abs=3)


def in_an_outage(looks: list[Look]) -> list[Look]:
    return [look for look in looks if "the endpoint fails" in look.lines[1]]


def test_in_an_outage_the_last_error_is_shown_and_when_the_run_gives_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ShownRun(journal, Outage(Server(), 5.0, 10_000.0), 5_000, outage_seconds=120.0)
    looks = in_an_outage(run.looked_at(monkeypatch))
    assert 5 + 120 <= run.seconds < 5 + 120 + 6
    assert len(looks) > 200
    for look in looks[3:]:
        assert look.lines[3:] == ["last error: The server is overloaded."]
        found = re.search(r"gives up in (?:(\d+) s|(\d+):(\d\d))", look.lines[1])
        assert found is not None, look
        left = float(found[1]) if found[1] else 60 * int(found[2]) + int(found[3])
        assert left == pytest.approx(max(0.0, 125 - look.at), abs=1.5)
    assert any("next request in 3 s" in look.lines[1] for look in looks)


def test_rows_that_all_wait_for_a_retry_are_said_to(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal in five says to wait for 9 s; the last rows have no others to fill the time with."""
    looks = ShownRun(journal, Random(0.2, 9.0, Server(), 1), 500).looked_at(monkeypatch)
    waiting = [look for look in looks if "all rows left wait for a retry, next request in " in look.lines[1]]
    assert waiting
    assert waiting[0].lines[-1] == "last error: Slow down."
    for look in waiting:
        assert look.to_go is not None
        assert look.next_request is not None
        assert look.to_go >= look.next_request - 1


def test_the_requests_of_a_minute_are_never_said_to_exceed_the_limit_beside_them(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search lowers its rate below what it has sent lately."""
    for server in (Random(0.2, 1.0, Server(), 1), Window(4.0, headers=True), Bucket(5.0, 1)):
        said = []
        for look in ShownRun(journal, server, 400).looked_at(monkeypatch):
            found = re.search(r"([\d,]+) of ([\d,]+) requests/min", look.lines[1])
            said += [] if found is None else [tuple(int(part.replace(",", "")) for part in found.groups())]
        assert len(said) > 5
        assert all(sent <= limit for sent, limit in said)


def test_a_given_limit_is_the_limit_of_the_job(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = ShownRun(journal, Server(), 300, limits={"requests_per_minute": 600}).looked_at(monkeypatch)
    assert "held back by the limit of the job, " in looks[10].lines[1]
    assert re.search(r"\d+ of 600 requests/min \(limit of the job\)", looks[10].lines[1])
    stated = ShownRun(journal, Window(5.0, headers=True), 300, limits={"requests_per_minute": 600})
    line = stated.looked_at(monkeypatch)[30].lines[1]
    assert "requests/min (limit of the server; the job's is 600)" in line
