"""The list of caps is the only one: what stands in it is a key of the job, is held, and stops a run."""

from decimal import Decimal
from typing import Any

import pytest

from batchrun.amounts import NOTHING, Amount
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Ledger, Shortfall, caps_of
from batchrun.engine.pricing import PriceList
from batchrun.errors import EXIT_BUDGET
from batchrun.job.budget import Budget
from batchrun.job.caps import CAPS, CapKind
from batchrun.journal import Attempt, Intent
from batchrun.stops import at_cap_of
from tests.money.fanout import request

BEFORE = {"life": 10, "day": 4, "run": 0}


def test_each_key_of_the_budget_is_in_the_list() -> None:
    assert [cap.key for cap in CAPS] == list(Budget.__struct_fields__)


@pytest.mark.parametrize("cap", CAPS, ids=lambda cap: cap.key)
def test_a_stop_at_a_cap_says_which_one_and_how_to_go_on(cap: CapKind) -> None:
    stop = at_cap_of(f"budget.{cap.key}")
    assert stop.exit_code == EXIT_BUDGET
    assert f"budget.{cap.key}" in stop.reason
    assert stop.next_step
    assert stop.self_clearing == (cap.key in ("usd_per_run", "usd_per_day", "rows", "seconds"))


@pytest.mark.parametrize(
    "cap", [cap for cap in CAPS if cap.in_ledger and cap.span != "pool"], ids=lambda cap: cap.key
)
def test_the_ledger_lets_no_more_through_than_the_cap_leaves(cap: CapKind) -> None:
    """What was spent before counts for the life of the journal, or for its day, or not at all."""
    given: dict[str, Any] = {cap.key: Decimal("12e-9") if cap.unit == "nano_usd" else 12}
    one = Amount(1, 1, 1, 1)
    spent, today = (Amount(before, before, before, before) for before in (BEFORE["life"], BEFORE["day"]))
    ledger = Ledger(caps_of(Budget(**given), spent, today))
    for _ in range(12 - BEFORE[cap.span]):
        assert not isinstance(ledger.reserve(one), Shortfall)
    assert ledger.reserve(one) == Shortfall(f"budget.{cap.key}", may_pass=True)


class Intents(list[Intent]):
    """A log that keeps the intents."""

    def write_intent(self, intent: Intent) -> None:
        self.append(intent)

    def record(self, attempt: Attempt) -> None: ...
    def cancel_intent(self, attempt: int) -> None: ...


@pytest.mark.parametrize("cap", ["credits", "keep_credits"])
def test_a_run_that_has_yet_to_learn_its_rate_of_credits_waits_for_the_cap_that_it_has(cap: str) -> None:
    given: dict[str, Any] = {cap: 1000}
    budget = Budget(**given)
    ledger = Ledger(caps_of(budget, NOTHING, NOTHING), budget.keep_credits)
    intents = Intents()
    accounting = Accounting(1, 1, ledger, PriceList(), intents)
    assert accounting.reserve(ActiveRequest(request(1))) is None
    assert accounting.reserve(ActiveRequest(request(2))) == Shortfall(f"budget.{cap}", may_pass=True)
    assert len(intents) == 1
