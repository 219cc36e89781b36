"""The cap of a UTC day, while days pass and while the clock is set back."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Cap, Ledger
from batchrun.exchange import BillingStatus
from batchrun.journal import Intent, open_for_reading
from batchrun.journal.records import Attempt
from batchrun.sandbox import Sandbox, Settings, background
from batchrun.stops import DAY_AHEAD, at_cap_of
from tests.money.fanout import NANO_USD_PER_TOKEN, TARIFF, answer, failure, request
from tests.money.test_next_run import run

WORST = 120 * NANO_USD_PER_TOKEN
NOON = 20_000 * MILLISECONDS_PER_DAY + MILLISECONDS_PER_DAY // 2
HOURS = 3_600_000


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOON
        for module in ("engine.session", "runs.run"):
            monkeypatch.setattr(f"batchrun.{module}.milliseconds", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@dataclass
class Log:
    intents: list[Intent] = field(default_factory=list)

    def write_intent(self, intent: Intent) -> None:
        self.intents.append(intent)

    def record(self, attempt: Attempt) -> None: ...
    def cancel_intent(self, attempt: int) -> None: ...


def books_for(
    clock: Clock, rows_a_day: int, before: int = 0, latest_start: int = 0
) -> tuple[Accounting, Log]:
    cap = Cap("budget.usd_per_day", "nano_usd", rows_a_day * WORST, before, per_day=True)
    log = Log()
    return Accounting(1, 1, Ledger((cap,)), TARIFF, log, latest_start, lambda: clock.now), log


def spent(accounting: Accounting, number: int) -> bool:
    """Whether a request that uses its whole reservation found room."""
    active = ActiveRequest(request(number))
    if accounting.reserve(active) is not None:
        return False
    accounting.answered(active, answer(100, 20))
    return True


def test_a_run_that_goes_on_past_midnight_has_the_new_day_s_cap(clock: Clock) -> None:
    accounting, _ = books_for(clock, 2)
    assert [spent(accounting, n) for n in range(3)] == [True, True, False]
    clock.now += 12 * HOURS - 1
    assert not spent(accounting, 3), "one millisecond is left of the day"
    clock.now += 1
    assert [spent(accounting, n) for n in range(4, 7)] == [True, True, False]


def test_what_is_in_flight_at_midnight_counts_for_the_new_day(clock: Clock) -> None:
    accounting, _ = books_for(clock, 2)
    leases = [ActiveRequest(request(number)) for number in range(2)]
    assert [accounting.reserve(active) for active in leases] == [None, None]
    clock.now += 24 * HOURS
    assert not spent(accounting, 2)
    for active in leases:
        accounting.answered(active, answer(100, 20))
    assert not spent(accounting, 2)


def test_a_clock_set_back_in_a_run_gives_no_day_twice(clock: Clock) -> None:
    accounting, log = books_for(clock, 2)
    clock.now += 12 * HOURS
    assert [spent(accounting, n) for n in range(3)] == [True, True, False]
    clock.now -= 12 * HOURS
    assert not spent(accounting, 3), "yesterday's cap is not given out again"
    clock.now += 12 * HOURS
    assert not spent(accounting, 4), "nor today's"
    clock.now += 24 * HOURS
    assert spent(accounting, 5)
    assert [intent.started_at for intent in log.intents] == sorted(i.started_at for i in log.intents)


def test_a_run_after_the_clock_was_set_back_goes_by_the_journal(clock: Clock) -> None:
    """What it spends is dated like the journal's newest: it counts for that day when that comes."""
    accounting, log = books_for(clock, 2, latest_start=NOON + 24 * HOURS)
    assert spent(accounting, 0)
    assert log.intents[0].started_at == NOON + 24 * HOURS
    clock.now += 12 * HOURS
    assert [spent(accounting, n) for n in (1, 2)] == [True, False], "the day of the journal is the same"
    active = ActiveRequest(request(3))
    clock.now = NOON
    shortfall = accounting.reserve(active)
    assert shortfall is not None
    assert shortfall.cap == DAY_AHEAD
    stop = at_cap_of(shortfall.cap)
    assert "budget.usd_per_day" in stop.reason
    assert "clock" in stop.next_step


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


def test_every_day_of_a_run_that_goes_on_for_days_keeps_to_its_cap(
    tmp_path: Path, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is half an hour later than the one before."""

    def later() -> int:
        clock.now += HOURS // 2
        return clock.now

    monkeypatch.setattr("batchrun.engine.session.milliseconds", later)
    rows = [{"text": f"row {row}"} for row in range(120)]
    cap = 0.004
    run(tmp_path, sandbox, rows, budget={"usd_per_day": cap})
    journal = open_for_reading(tmp_path / "out.run" / "journal.sqlite")
    days = journal.connection.execute(
        f"SELECT started_at / {MILLISECONDS_PER_DAY}, sum(nano_usd) FROM attempts GROUP BY 1"
    ).fetchall()
    journal.close()
    assert len(days) > 3
    assert all(spent <= cap * 10**9 for _, spent in days)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(1, 120)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(-30, 30)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=int(os.environ.get("BATCHRUN_EXAMPLES", "100")), deadline=None)
@given(steps=STEPS, rows_a_day=st.integers(1, 4))
def test_whatever_the_clock_does_no_day_of_the_journal_has_more_than_its_cap(
    steps: list[tuple[str, int]], rows_a_day: int
) -> None:
    """Spending, lost answers, waits forward and back by hours, and new starts that count as run_job does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        by_start: list[tuple[int, int]] = []
        accounting, log = books_for(clock, rows_a_day)
        for number, (step, amount) in enumerate(steps):
            if step == "wait":
                clock.now += amount * HOURS
            elif step == "restart":
                midnight = clock.now // MILLISECONDS_PER_DAY * MILLISECONDS_PER_DAY
                before = sum(spent for start, spent in by_start if start >= midnight)
                accounting, log = books_for(clock, rows_a_day, before, by_start[-1][0] if by_start else 0)
            else:
                active = ActiveRequest(request(number))
                if accounting.reserve(active) is not None:
                    continue
                if step == "lose":
                    accounting.failed(active, failure(billing=BillingStatus.UNKNOWN), final=False)
                else:
                    accounting.answered(active, answer(amount - 1, 1))
                booked = WORST if step == "lose" else amount * NANO_USD_PER_TOKEN
                by_start.append((log.intents[-1].started_at, booked))
            days: Counter[int] = Counter()
            for start, spent in by_start:
                days[start // MILLISECONDS_PER_DAY] += spent
            assert max(days.values(), default=0) <= rows_a_day * WORST
