"""New caps and limits for a run that is going on: keys, the ledger, the dispatcher, the limiter."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchrun.amounts import NOTHING, Amount
from batchrun.engine.dispatcher import END
from batchrun.engine.ledger import Cap, Ledger, Reservation, Shortfall, caps_of
from batchrun.engine.limits.limiter import Limiter
from batchrun.errors import JobError
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits
from batchrun.job.adjusting import ADJUSTABLE, adjusted, read_adjustments, value_text
from batchrun.job.budget import Budget
from batchrun.job.caps import CAPS
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from tests.money.dispatching import Desk
from tests.money.fanout import answer

USD = Cap("budget.usd", "nano_usd", 100)


def job(**tables: Any) -> Job:
    given: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 16},
        "output": {"path": "out.parquet"},
        "budget": {"usd": 2.5},
    }
    return make_job(given | tables, Path("/tmp"), sandbox=True)


def test_every_cap_and_every_limit_can_be_set() -> None:
    assert set(ADJUSTABLE) == {cap.name for cap in CAPS if cap.span != "pool"} | {
        "limits.requests_per_minute",
        "limits.tokens_per_minute",
        "limits.concurrency",
    }
    budget = {cap.key: 5 for cap in CAPS if cap.span != "pool"}
    values = read_adjustments([f"{key}=7" for key in ADJUSTABLE])
    new = adjusted(job(budget=budget), values, sandbox=True)
    assert {key: value_text(new, key) for key in ADJUSTABLE} == dict.fromkeys(ADJUSTABLE, "7")


def test_a_new_value_is_read_as_in_a_job_file() -> None:
    new = adjusted(
        job(), read_adjustments(["budget.usd = 2.75", "budget.seconds=1.5", "budget.rows=9"]), sandbox=True
    )
    assert (new.budget.usd, new.budget.seconds, new.budget.rows) == (Decimal("2.75"), 1.5, 9)
    assert new.prompt == job().prompt


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("request.model=other", "decides what is sent. Only caps and limits can"),
        ("endpoint.base_url=https://a.test", "its connections are open"),
        ("budget.usdd=1", "did you mean budget.usd?"),
        ("budget.usd=-1", "expected an amount from 0"),
        ("budget.usd=null", "can't be removed while a run is going on"),
        ("limits.concurrency=0", "expected a whole number >= 1"),
        ("budget.usd", "expected KEY=VALUE"),
        ("budget.usd=\udcff", "expected KEY=VALUE"),
        ("budget.usd=nan", "expected an amount from 0"),
        ("budget=1", "expected a table"),
        ("stop=yes", "stop: write stop=true; a stop can't be taken back"),
        ("stop=false", "stop: write stop=true; a stop can't be taken back"),
    ],
)
def test_what_can_not_be_set_is_named_with_the_reason(assignment: str, words: str) -> None:
    with pytest.raises(JobError) as raised:
        read_adjustments([assignment])
    assert words in str(raised.value)


def test_a_cap_on_a_cost_that_is_not_reserved_can_not_be_added() -> None:
    rows_alone = job(budget={"rows": 5})
    for key in ("budget.usd=1", "budget.tokens=10", "budget.credits=3"):
        with pytest.raises(JobError, match="has reserved nothing"):
            adjusted(rows_alone, read_adjustments([key]), sandbox=True)
    with pytest.raises(JobError, match="has reserved nothing"):
        adjusted(job(), read_adjustments(["budget.keep_credits=3"]), sandbox=True)
    added = adjusted(job(), read_adjustments(["budget.tokens=10", "budget.seconds=9"]), sandbox=True)
    assert added.budget.given() == [cap for cap in CAPS if cap.key in ("usd", "tokens", "seconds")]


def test_a_ledger_keeps_its_bookings_under_new_caps() -> None:
    ledger = Ledger((USD,))
    held = ledger.reserve(Amount(nano_usd=60))
    assert isinstance(held, Reservation)
    assert isinstance(ledger.reserve(Amount(nano_usd=60)), Shortfall)
    ledger.change_caps((Cap("budget.usd", "nano_usd", 130, before=10),), None)
    assert isinstance(ledger.reserve(Amount(nano_usd=60)), Reservation)
    ledger.settle(held, Amount(nano_usd=40))
    assert (ledger.settled.nano_usd, ledger.reserved.nano_usd, ledger.left("nano_usd")) == (40, 60, 20)


def test_a_new_cap_of_a_later_day_forgets_what_was_spent_before_that_day() -> None:
    ledger = Ledger(caps_of(Budget(usd_per_day=Decimal("1e-7")), NOTHING, Amount(nano_usd=30)))
    held = ledger.reserve(Amount(nano_usd=70))
    assert isinstance(held, Reservation)
    ledger.settle(held, Amount(nano_usd=70))
    ledger.new_day()
    ledger.change_caps(caps_of(Budget(usd_per_day=Decimal("4e-8")), NOTHING, Amount(nano_usd=30)), None)
    assert ledger.left("nano_usd") == 40


def test_a_raised_cap_lets_rows_go_that_waited_at_the_cap(one_row: int) -> None:
    desk = Desk(3, caps=(Cap("budget.usd", "nano_usd", one_row),))
    desk.advance()
    assert desk.commit() == [1]
    desk.advance()
    assert desk.progress.blocked_by == "budget.usd"
    desk.ledger.change_caps((Cap("budget.usd", "nano_usd", 3 * one_row),), None)
    desk.advance()
    assert desk.commit() == [2, 3]
    assert desk.progress.stopping_for is None


def test_a_cap_below_what_is_spent_stops_the_run_once_its_requests_have_ended(one_row: int) -> None:
    desk = Desk(9, caps=(Cap("budget.usd", "nano_usd", 9 * one_row),), concurrency=2)
    desk.advance()
    desk.commit()
    desk.ledger.change_caps((Cap("budget.usd", "nano_usd", 1),), None)
    in_flight = len(desk.sent)
    while desk.sent:
        desk.end(answer())
        desk.advance()
    assert desk.advance() == END
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert "budget.usd" in stop.reason
    assert desk.log.count("answered") == in_flight


@pytest.fixture
def one_row() -> int:
    """The worst case of one row of a desk, in nano-USD."""
    desk = Desk(1)
    desk.advance()
    return desk.ledger.reserved.nano_usd


def test_a_higher_concurrency_sends_more_and_a_lower_one_less_from_the_next_end_on() -> None:
    desk = Desk(20, concurrency=2)
    desk.advance()
    desk.commit()
    assert len(desk.sent) == 2
    desk.dispatcher.change_concurrency(4)
    for _ in range(4):
        desk.advance()
        desk.commit()
        desk.send(desk.dispatcher.release(0.0))
    assert len(desk.sent) == 4
    desk.dispatcher.change_concurrency(1)
    for left in (3, 2, 1):
        desk.end(answer())
        assert len(desk.sent) == left


def sent_in(limiter: Limiter, start: float, seconds: float) -> int:
    """The requests that a limiter lets go in a time, each answered at once."""
    now, sent = start, 0
    while now < start + seconds:
        wait = limiter.delay(now, 10)
        if wait > 0:
            now += wait + 1e-9
            continue
        limiter.answered(limiter.admit(now, 10), now, 10, None)
        sent += 1
    return sent


def test_a_new_limit_of_requests_is_kept_from_now_on() -> None:
    limiter = Limiter(requests_per_minute=60)
    assert sent_in(limiter, 0.0, 120.0) == pytest.approx(120, abs=2)
    limiter.change_given(600, None, 120.0)
    assert limiter.pace.requests_per_minute == 600
    assert sent_in(limiter, 180.0, 60.0) == pytest.approx(600, abs=5)
    limiter.change_given(30, None, 240.0)
    assert sent_in(limiter, 300.0, 120.0) <= 61


def test_a_limit_of_the_server_stays_the_lower_one() -> None:
    limiter = Limiter(requests_per_minute=60)
    limiter.answered(limiter.admit(0.0, 10), 0.0, 10, RateLimits(limit_requests=30))
    limiter.change_given(600, None, 1.0)
    assert (limiter.pace.requests_per_minute, limiter.pace.source) == (30, "headers")


def test_a_higher_limit_ends_the_search_below_the_old_one() -> None:
    limiter = Limiter(requests_per_minute=6_000)
    sent_in(limiter, 0.0, 5.0)
    refused = Failure("rate_limit", "slow down", FailureAction.SLOW_DOWN, BillingStatus.NO, status=429)
    limiter.failed(limiter.admit(6.0, 10), 6.0, refused)
    assert limiter.pace.source == "search"
    limiter.change_given(12_000, None, 7.0)
    assert (limiter.pace.requests_per_minute, limiter.pace.source) == (12_000, "given")
