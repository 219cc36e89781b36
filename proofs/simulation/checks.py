"""The promises, checked after every step of a history."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from batchrun.amounts import Amount
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.job.budget import Budget
from batchrun.job.caps import CAPS, CapKind
from batchrun.journal.records import Outcome

if TYPE_CHECKING:
    from proofs.simulation.world import World

_UNITS = ("nano_usd", "credits", "tokens")


class Violation(Exception):  # noqa: N818  # a broken promise, found by a check, is not an error of the check
    """`promise` is a word for which promise is broken."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class Counted(NamedTuple):
    """One attempt's part of a sum that a cap bounds."""

    run: int
    day: int
    amount: Amount


def check_caps(world: "World") -> None:
    """Both what is billed and what the journal holds stay within the caps."""
    billed = [_counted(world, charge.attempt, charge.amount) for charge in world.provider.billed.values()]
    booked = [_counted(world, attempt, amount) for attempt, amount in _booked(world)]
    for what, attempts in (("billed", billed), ("in the journal", booked)):
        for cap in CAPS:
            # A pool is shared with jobs outside of a history: tests/kill has its proof.
            if cap.in_ledger and cap.unit != "rows" and cap.span != "pool":
                _check_cap(world, cap, attempts, what)
        _check_days(world, attempts, what)
    for run, rows in world.rows_sent.items():
        most = world.budgets[run].rows
        if most is not None and len(rows) > most:
            raise Violation("budget", f"run {run} has sent for {len(rows)} rows; budget.rows is {most}")


def _counted(world: "World", attempt: int, amount: Amount) -> Counted:
    intent = world.intents[attempt]
    return Counted(intent.run, intent.started_at // MILLISECONDS_PER_DAY, amount)


def _booked(world: "World") -> Iterator[tuple[int, Amount]]:
    for attempt in (*world.books.open, *world.books.ended):
        if (amount := world.books.at_most(attempt)) is not None:
            yield attempt, amount


def _check_cap(world: "World", cap: CapKind, attempts: list[Counted], what: str) -> None:
    """A cap may be changed from run to run: the highest one so far counts."""
    sums: dict[int, int] = {}
    runs: dict[int, set[int]] = {}
    for run, day, amount in attempts:
        span = {"life": 0, "run": run, "day": day}[cap.span]
        sums[span] = sums.get(span, 0) + getattr(amount, cap.unit)
        runs.setdefault(span, set()).add(run)
    for span, total in sums.items():
        most = _highest([world.budgets[run] for run in runs[span]], cap)
        if most is not None and total > most:
            raise Violation("budget", f"{total} {cap.unit} {what}; {cap.name} is {most}")


def _check_days(world: "World", attempts: list[Counted], what: str) -> None:
    """The caps of all days that the clock has shown together, whatever day the journal has."""
    cap = next(cap for cap in CAPS if cap.span == "day")
    most = _highest([world.budgets[each.run] for each in attempts], cap)
    total = sum(each.amount.nano_usd for each in attempts)
    days = len(world.clock.days)
    if most is not None and total > most * days:
        raise Violation("budget", f"{total} nano-USD {what} on {days} days; {cap.name} is {most}")


def _highest(budgets: list[Budget], cap: CapKind) -> int | None:
    """Returns the highest limit of a cap; None where a run has none."""
    limits = [budget.limit(cap) if getattr(budget, cap.key) is not None else None for budget in budgets]
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def check_balance(world: "World") -> None:
    """No request of a run takes the account below its `keep_credits`, but for those sent before the run knew
    the balance. What a later run spends before a late charge has its own floor, or none.
    """
    for charge in world.provider.billed.values():
        runs = range(world.intents[charge.attempt].run, world.runs + 1)
        budgets = [world.budgets[run] for run in runs if run in world.budgets]
        floors = [budget.keep_credits for budget in budgets if budget.keep_credits is not None]
        balance = world.provider.balance_after.get(charge.attempt)
        if balance is None or len(floors) < len(budgets):
            continue
        if balance < min(floors) - sum(world.blind_credits[run] for run in runs):
            raise Violation("budget", f"{balance} credits are left; budget.keep_credits is {min(floors)}")


def check_bill(world: "World") -> None:
    """The journal's sums are the provider's bill, but for what is uncertain: for each attempt by itself."""
    for charge in world.provider.billed.values():
        booked = world.books.at_most(charge.attempt)
        if booked is None:
            raise Violation("bill", f"attempt {charge.attempt} is billed without an intent in the journal")
        if any(getattr(charge.amount, unit) > getattr(booked, unit) for unit in _UNITS):
            raise Violation(
                "bill", f"attempt {charge.attempt} is billed with {charge.amount}, booked with {booked}"
            )
        ended = world.books.ended.get(charge.attempt)
        answered = ended is not None and ended[1].outcome is Outcome.ANSWERED
        if answered and charge.exact and charge.amount != booked:
            raise Violation("bill", f"attempt {charge.attempt} cost {charge.amount}, settled are {booked}")
    sums = world.sums
    owed = world.provider.owed
    if sums is not None and any(getattr(owed, unit) > getattr(sums.committed, unit) for unit in _UNITS):
        raise Violation("bill", f"{owed} are billed, and the journal's sums are {sums}")
