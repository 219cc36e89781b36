"""The cap of a UTC day, while days pass and while the clock is set back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchrun.books import MILLISECONDS_PER_DAY, Books, Lease
from batchrun.journal import Intent
from batchrun.journal.records import Attempt
from batchrun.ledger import Cap, Ledger
from batchrun.sandbox import Sandbox, Settings, background
from batchrun.stops import DAY_AHEAD, at_cap_of
from tests.money.fanout import NANO_USD_PER_TOKEN, TARIFF, answer, request
from tests.money.test_next_run import run

WORST = 120 * NANO_USD_PER_TOKEN
NOON = 20_000 * MILLISECONDS_PER_DAY + MILLISECONDS_PER_DAY // 2
HOURS = 3_600_000


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOON
        for module in ("books", "pipeline"):
            monkeypatch.setattr(f"batchrun.{module}.milliseconds", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@dataclass
class Log:
    intents: list[Intent] = field(default_factory=list)

    def intend(self, intent: Intent) -> None:
        self.intents.append(intent)

    def record(self, attempt: Attempt) -> None: ...
    def withdraw(self, attempt: int) -> None: ...


def books_for(rows_a_day: int, before: int = 0, latest_start: int = 0) -> tuple[Books, Log]:
    cap = Cap("budget.usd_per_day", "nano_usd", rows_a_day * WORST, before, per_day=True)
    log = Log()
    return Books(1, 1, Ledger((cap,)), TARIFF, log, latest_start), log


def spent(books: Books, number: int) -> bool:
    """Whether a request that uses its whole reservation found room."""
    lease = Lease(request(number))
    if books.reserve(lease) is not None:
        return False
    books.answered(lease, answer(100, 20))
    return True


def test_a_run_that_goes_on_past_midnight_has_the_new_day_s_cap(clock: Clock) -> None:
    books, _ = books_for(2)
    assert [spent(books, n) for n in range(3)] == [True, True, False]
    clock.now += 12 * HOURS - 1
    assert not spent(books, 3), "one millisecond is left of the day"
    clock.now += 1
    assert [spent(books, n) for n in range(4, 7)] == [True, True, False]


def test_what_is_in_flight_at_midnight_counts_for_the_new_day(clock: Clock) -> None:
    books, _ = books_for(2)
    leases = [Lease(request(number)) for number in range(2)]
    assert [books.reserve(lease) for lease in leases] == [None, None]
    clock.now += 24 * HOURS
    assert not spent(books, 2)
    for lease in leases:
        books.answered(lease, answer(100, 20))
    assert not spent(books, 2)


def test_a_clock_set_back_in_a_run_gives_no_day_twice(clock: Clock) -> None:
    books, log = books_for(2)
    clock.now += 12 * HOURS
    assert [spent(books, n) for n in range(3)] == [True, True, False]
    clock.now -= 12 * HOURS
    assert not spent(books, 3), "yesterday's cap is not given out again"
    clock.now += 12 * HOURS
    assert not spent(books, 4), "nor today's"
    clock.now += 24 * HOURS
    assert spent(books, 5)
    assert [intent.started_at for intent in log.intents] == sorted(i.started_at for i in log.intents)


def test_a_run_after_the_clock_was_set_back_goes_by_the_journal(clock: Clock) -> None:
    """What it spends is dated like the journal's newest: it counts for that day when that comes."""
    books, log = books_for(2, latest_start=NOON + 24 * HOURS)
    assert spent(books, 0)
    assert log.intents[0].started_at == NOON + 24 * HOURS
    clock.now += 12 * HOURS
    assert [spent(books, n) for n in (1, 2)] == [True, False], "the day of the journal is the same"
    lease = Lease(request(3))
    clock.now = NOON
    shortfall = books.reserve(lease)
    assert shortfall is not None
    assert shortfall.cap == DAY_AHEAD
    stop = at_cap_of(shortfall.cap)
    assert "budget.usd_per_day" in stop.reason
    assert "clock" in stop.go_on


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with background(Settings()) as server:
        yield server


def test_runs_across_midnight_and_back_stay_within_the_cap_of_each_day(
    tmp_path: Path, sandbox: Sandbox, clock: Clock
) -> None:
    """Day 1, day 2, the clock back to day 1, day 2 again: two days' caps are given out, not four."""
    rows = [{"text": f"row {row}"} for row in range(60)]
    budget = {"usd_per_day": 0.002}
    bills = []
    for now in (NOON, NOON + 24 * HOURS, NOON + HOURS, NOON + 25 * HOURS):
        clock.now = now
        assert run(tmp_path, sandbox, rows, budget=budget)["exit_code"] == 4
        bills.append(sandbox.bill()["total"]["nano_usd"])
    first, second, third, fourth = bills
    assert 0 < first <= 2_000_000
    assert 0 < second - first <= 2_000_000
    assert (third, fourth) == (second, second)
