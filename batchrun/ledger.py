"""The ledger: spending is reserved at its worst case before a request goes out, and settled afterwards.

Invariant, after every call and for every cap: settled + uncertain + reserved <= limit, as long as
no answer costs more than its reservation. One that does is booked in full, and counted.
"""

from dataclasses import dataclass
from typing import Literal, cast

import msgspec
from msgspec.structs import replace

from batchrun.amounts import NOTHING, Amount
from batchrun.job import Budget
from batchrun.stops import BALANCE_UNKNOWN

Unit = Literal["nano_usd", "credits", "tokens", "rows"]


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit on one unit. `before` is what counts against it from before this run.

    `name` is the job file's key, `per_day` says that `before` is forgotten when the UTC day ends.
    """

    name: str
    unit: Unit
    limit: int
    before: int = 0
    per_day: bool = False


class Reservation(msgspec.Struct, frozen=True, gc=False):
    amount: Amount


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A reservation that doesn't fit. `may_pass` says that something in flight could still make room."""

    cap: str
    may_pass: bool


class Ledger:
    """Spend of one run: `settled`, `uncertain` and `reserved` are the sums over its attempts.

    `keep_credits` is the balance below which the account must not fall; None without such a floor.
    `remaining_credits` is what the account has left at least, None before an answer has reported it.
    """

    def __init__(
        self, caps: tuple[Cap, ...], keep_credits: int | None = None, remaining_credits: int | None = None
    ) -> None:
        self.settled = NOTHING
        self.uncertain = NOTHING
        self.reserved = NOTHING
        self.in_flight = 0
        self.overruns = 0
        self.remaining_credits = remaining_credits
        self._keep_credits = keep_credits
        self._limits = [_RunLimit(cap, cap.limit - cap.before) for cap in caps]
        self.caps_credits = keep_credits is not None or any(cap.unit == "credits" for cap in caps)

    def reserve(self, worst_case: Amount) -> Reservation | Shortfall:
        """Sets the worst case aside, or says which cap it would pass."""
        for limit in self._limits:
            unit = limit.cap.unit
            if self._committed(unit) + getattr(worst_case, unit) > limit.amount:
                return Shortfall(limit.cap.name, self.in_flight > 0)
        if shortfall := self._below_floor(worst_case.credits):
            return shortfall
        self.reserved = self.reserved.plus(worst_case)
        self.in_flight += 1
        return Reservation(worst_case)

    def left(self, unit: Unit) -> int | None:
        """What the caps on a unit leave; None where there is none."""
        committed = self._committed(unit)
        return min(
            (limit.amount - committed for limit in self._limits if limit.cap.unit == unit), default=None
        )

    def _committed(self, unit: Unit) -> int:
        committed: int = (
            getattr(self.settled, unit) + getattr(self.uncertain, unit) + getattr(self.reserved, unit)
        )
        return committed

    def settle(self, reservation: Reservation, cost: Amount, remaining_credits: int | None = None) -> None:
        """Books what an answer cost, above its reservation too.

        `remaining_credits` is the balance that it reported. Answers come out of order, so the lowest
        report counts; a top-up is seen by the next run.
        """
        self.release(reservation)
        self.settled = self.settled.plus(cost)
        if remaining_credits is None:
            self._lower_balance(cost.credits)
        elif self.remaining_credits is None or remaining_credits < self.remaining_credits:
            self.remaining_credits = remaining_credits
        reserved = reservation.amount
        dearer_in_credits = self.caps_credits and cost.credits > reserved.credits
        if cost.nano_usd > reserved.nano_usd or cost.tokens > reserved.tokens or dearer_in_credits:
            self.overruns += 1

    def release(self, reservation: Reservation) -> None:
        """Gives back what an attempt didn't use, since it was never billed."""
        self.reserved = self.reserved.minus(reservation.amount)
        self.in_flight -= 1

    def keep_uncertain(self, reservation: Reservation) -> None:
        """Keeps the worst case of an attempt that may have been billed. It has answered no row."""
        self.release(reservation)
        self.uncertain = self.uncertain.plus(replace(reservation.amount, rows=0))
        # The next report may be older than this charge. A later one that knows of it is no lower.
        self._lower_balance(reservation.amount.credits)

    def raise_uncertain_credits(self, least: int) -> None:
        """Puts right what was reserved before the first answer had shown what a token costs."""
        if least > self.uncertain.credits:
            self.uncertain = replace(self.uncertain, credits=least)

    def new_day(self) -> None:
        """Starts a UTC day: what is booked so far no longer counts against its caps."""
        spent = self.settled.plus(self.uncertain)
        self._limits = [
            _RunLimit(limit.cap, limit.cap.limit + getattr(spent, limit.cap.unit))
            if limit.cap.per_day
            else limit
            for limit in self._limits
        ]

    def answers_to_cap(self) -> tuple[float, str] | None:
        """How many more answers the tightest cap buys at the mean cost of this run's, and which cap that is.

        None without a cap, and before the first answer.
        """
        answered = self.settled.rows
        if not answered:
            return None
        left = []
        for limit in self._limits:
            if settled := getattr(self.settled, limit.cap.unit):
                most = limit.amount - getattr(self.uncertain, limit.cap.unit)
                left.append((most * answered / settled, limit.cap.name))
        if not left:
            return None
        bought, name = min(left)
        return max(0.0, bought - answered), name

    def _below_floor(self, worst_case: int) -> Shortfall | None:
        """The balance after everything in flight, compared with the floor."""
        if self._keep_credits is None:
            return None
        if self.remaining_credits is not None:
            enough = self.remaining_credits - self.reserved.credits - worst_case >= self._keep_credits
            return None if enough else Shortfall("budget.keep_credits", self.in_flight > 0)
        # Nobody knows the balance: one request at a time, until an answer has reported it.
        if self.in_flight:
            return Shortfall("budget.keep_credits", may_pass=True)
        return Shortfall(BALANCE_UNKNOWN, may_pass=False) if self.settled != NOTHING else None

    def _lower_balance(self, credits_used: int) -> None:
        if self.remaining_credits is not None:
            self.remaining_credits -= credits_used


@dataclass(frozen=True, slots=True)
class _RunLimit:
    """A cap in terms of what this run alone may book."""

    cap: Cap
    amount: int


def caps_of(budget: Budget, spent: Amount, spent_today: Amount) -> tuple[Cap, ...]:
    """The budget's caps, given what the journal counts as spent: settled and uncertain."""
    given = (
        ("budget.usd", "nano_usd", budget.nano_usd, spent.nano_usd, False),
        ("budget.usd_per_run", "nano_usd", budget.nano_usd_per_run, 0, False),
        ("budget.usd_per_day", "nano_usd", budget.nano_usd_per_day, spent_today.nano_usd, True),
        ("budget.credits", "credits", budget.credits, spent.credits, False),
        ("budget.tokens", "tokens", budget.tokens, spent.tokens, False),
        ("budget.rows", "rows", budget.rows, 0, False),
    )
    return tuple(
        Cap(name, cast("Unit", unit), limit, before, per_day)
        for name, unit, limit, before, per_day in given
        if limit is not None
    )
