"""The ledger: no interleaving of its calls lets a cap be passed by answers that keep to their reservation."""

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import astuple, replace

from batchrun.amounts import NOTHING, Amount
from batchrun.engine.ledger import Cap, Ledger, Reservation, Shortfall
from batchrun.stops import BALANCE_UNKNOWN

AMOUNTS = st.builds(
    Amount,
    nano_usd=st.integers(0, 100),
    credits=st.integers(0, 20),
    tokens=st.integers(0, 50),
    rows=st.just(1),
)
CAPS = st.lists(
    st.builds(
        Cap,
        name=st.just("budget.any"),
        unit=st.sampled_from(Amount.__struct_fields__),
        limit=st.integers(0, 400),
        before=st.integers(0, 450),
        per_day=st.booleans(),
    ),
    max_size=4,
)


class LedgerMachine(RuleBasedStateMachine):
    """`forgotten` is this run's spend that no longer counts, by cap: that of past days for caps per day.

    `past_days` is that spend once a day has turned. `counted_before` is what a new cap found when it was set.
    """

    @initialize(caps=CAPS, floor=st.none() | st.integers(0, 60), balance=st.integers(0, 300))
    def starting_ledger(self, caps: list[Cap], floor: int | None, balance: int) -> None:
        self.caps = caps
        self.forgotten = [NOTHING for _ in caps]
        self.before = [cap.before for cap in caps]
        self.counted_before = [0 for _ in caps]
        self.past_days: Amount | None = None
        self.ledger = Ledger(tuple(caps), floor)
        self.floor = floor
        self.balance = balance  # as the account has it
        self.open: list[Reservation] = []
        self.settled = self.uncertain = NOTHING

    def counted(self) -> Amount:
        return self.ledger.settled.plus(self.ledger.uncertain).plus(self.ledger.reserved)

    @rule(worst_case=AMOUNTS)
    def reserve(self, worst_case: Amount) -> None:
        before = self.counted()
        reserved = self.ledger.reserve(worst_case)
        if isinstance(reserved, Shortfall):
            assert reserved.may_pass == bool(self.open)
            assert self.counted() == before
        else:
            self.open.append(reserved)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), reports=st.booleans())
    def settle(self, data: st.DataObject, reports: bool) -> None:
        reservation = self.take(data)
        worst = reservation.amount
        nano_usd, credits_used, tokens = (data.draw(st.integers(0, most)) for most in astuple(worst)[:3])
        cost = Amount(nano_usd, credits_used, tokens, 1)
        self.balance -= cost.credits
        self.ledger.settle(reservation, cost, self.balance if reports else None)
        self.settled = self.settled.plus(cost)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.ledger.release(self.take(data))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def keep_uncertain(self, data: st.DataObject) -> None:
        """It may have been charged, up to the whole of it."""
        reservation = self.take(data)
        self.balance -= data.draw(st.integers(0, reservation.amount.credits))
        self.ledger.keep_uncertain(reservation)
        self.uncertain = self.uncertain.plus(replace(reservation.amount, rows=0))

    @rule()
    def new_day(self) -> None:
        self.ledger.new_day()
        spent = self.past_days = self.settled.plus(self.uncertain)
        for index, cap in enumerate(self.caps):
            if cap.per_day:
                self.forgotten[index] = spent
                self.before[index] = 0

    @rule(caps=CAPS)
    def change_caps(self, caps: list[Cap]) -> None:
        self.ledger.change_caps(tuple(caps), self.floor)
        self.caps = caps
        on_a_later_day = [cap.per_day and self.past_days is not None for cap in caps]
        self.forgotten = [self.past_days or NOTHING if later else NOTHING for later in on_a_later_day]
        self.before = [0 if later else cap.before for cap, later in zip(caps, on_a_later_day, strict=True)]
        self.counted_before = [self.against(index) for index in range(len(caps))]

    def against(self, index: int) -> int:
        """What counts against a cap of what this run has booked and reserved."""
        unit = self.caps[index].unit
        counted: int = getattr(self.counted(), unit) - getattr(self.forgotten[index], unit)
        return counted

    def take(self, data: st.DataObject) -> Reservation:
        return self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))

    @invariant()
    def no_cap_is_passed(self) -> None:
        """A cap that was set below what it found lets nothing be added."""
        for index, (cap, before) in enumerate(zip(self.caps, self.before, strict=True)):
            counted = self.against(index)
            assert before + counted <= cap.limit or counted <= self.counted_before[index]

    @invariant()
    def the_sums_are_right(self) -> None:
        ledger = self.ledger
        assert (ledger.settled, ledger.uncertain) == (self.settled, self.uncertain)
        assert ledger.in_flight == len(self.open)
        reserved = NOTHING
        for reservation in self.open:
            reserved = reserved.plus(reservation.amount)
        assert ledger.reserved == reserved
        assert ledger.overruns == 0

    @invariant()
    def the_floor_under_the_balance_holds(self) -> None:
        """Once the balance is known. What it knows is never more than what the account has."""
        known = self.ledger.remaining_credits
        if known is not None:
            assert known <= self.balance


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=int(os.environ.get("BATCHRUN_EXAMPLES", "100")), stateful_step_count=30, deadline=None
)


def reserved(ledger: Ledger, amount: Amount) -> Reservation:
    reservation = ledger.reserve(amount)
    assert isinstance(reservation, Reservation)
    return reservation


def test_an_answer_above_its_reservation_is_booked_in_full() -> None:
    """And counted, and what follows has to do with the rest."""
    ledger = Ledger((Cap("budget.usd", "nano_usd", 100),))
    ledger.settle(reserved(ledger, Amount(40, 0, 10, 1)), Amount(90, 0, 10, 1))
    assert ledger.settled.nano_usd == 90
    assert ledger.overruns == 1
    assert ledger.reserve(Amount(11, 0, 1, 1)) == Shortfall("budget.usd", may_pass=False)
    assert isinstance(ledger.reserve(Amount(10, 0, 1, 1)), Reservation)


def test_the_unused_rest_of_a_reservation_is_given_out_again() -> None:
    ledger = Ledger((Cap("budget.usd", "nano_usd", 100),))
    first = reserved(ledger, Amount(100, 0, 1, 1))
    assert ledger.reserve(Amount(1)) == Shortfall("budget.usd", may_pass=True)
    ledger.settle(first, Amount(30, 0, 1, 1))
    assert isinstance(ledger.reserve(Amount(70)), Reservation)


def test_a_new_day_gives_its_whole_cap_again() -> None:
    """What is in flight at midnight counts against the new day."""
    ledger = Ledger((Cap("budget.usd_per_day", "nano_usd", 100, before=30, per_day=True),))
    first, second = reserved(ledger, Amount(50)), reserved(ledger, Amount(20))
    ledger.settle(first, Amount(50))
    ledger.new_day()
    assert ledger.reserve(Amount(81)) == Shortfall("budget.usd_per_day", may_pass=True)
    ledger.settle(second, Amount(20))
    assert isinstance(ledger.reserve(Amount(80)), Reservation)


def test_the_lowest_balance_counts_whatever_the_order_of_the_answers() -> None:
    ledger = Ledger((), keep_credits=50)
    ledger.settle(reserved(ledger, Amount(0, 5, 1, 1)), Amount(0, 5, 1, 1), 100)
    early, late = reserved(ledger, Amount(0, 20, 1, 1)), reserved(ledger, Amount(0, 20, 1, 1))
    ledger.settle(late, Amount(0, 20, 1, 1), 60)
    ledger.settle(early, Amount(0, 20, 1, 1), 80)
    assert ledger.remaining_credits == 60
    assert ledger.reserve(Amount(0, 11, 1, 1)) == Shortfall("budget.keep_credits", may_pass=False)


def test_an_answer_that_may_have_been_charged_lowers_the_balance() -> None:
    """Until a later report, which knows of it."""
    ledger = Ledger((), keep_credits=50)
    ledger.settle(reserved(ledger, Amount(0, 5, 1, 1)), Amount(0, 5, 1, 1), 65)
    ledger.keep_uncertain(reserved(ledger, Amount(0, 10, 1, 1)))
    assert isinstance(ledger.reserve(Amount(0, 10, 1, 1)), Shortfall)
    assert isinstance(ledger.reserve(Amount(0, 5, 1, 1)), Reservation)


def test_answers_that_follow_up_a_row_show_as_well_that_no_balance_is_reported() -> None:
    """A run that has nothing but repairs and votes to ask for counts no row."""
    ledger = Ledger((), keep_credits=50)
    reserved = ledger.reserve(Amount(0, 10, 5, 0))
    assert isinstance(reserved, Reservation)
    ledger.settle(reserved, Amount(0, 10, 5, 0), None)
    assert ledger.reserve(Amount(0, 10, 5, 0)) == Shortfall(BALANCE_UNKNOWN, may_pass=False)
