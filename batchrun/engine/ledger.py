"""The ledger: reserves a request's worst case before it is sent, and settles its cost afterwards.

Invariant, after every call and for every cap: settled + uncertain + reserved <= limit, as long as
no response costs more than its reservation. A response that does is booked in full, and counted.
"""

from dataclasses import dataclass, field
from typing import cast

import msgspec
from msgspec.structs import replace

from batchrun.amounts import NOTHING, Amount
from batchrun.job.budget import Budget
from batchrun.job.caps import KEEP_CREDITS, POOL, Unit
from batchrun.stops import BALANCE_UNKNOWN, Lack, Stop


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit on one unit. `before` is the amount that earlier runs count against it.

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
    """A reservation that doesn't fit. `may_pass`: requests in flight could still make room. `lack` has the
    amounts; None where the cap's unit can't be counted yet. `stop` takes the place of the cap's own."""

    cap: str
    may_pass: bool
    lack: Lack | None = field(default=None, compare=False)
    stop: Stop | None = field(default=None, compare=False)


class Ledger:
    """Spend of one run: `settled`, `uncertain` and `reserved` are the sums over its attempts.

    `keep_credits` is the balance below which the account must not fall; None without such a floor.
    `remaining_credits` is the least that the account has left, None before a response has reported it.
    `credits_cap` names a cap that needs to know the cost of requests in credits; None without one.
    `_on_days_before` is what this run has booked before the present UTC day; None on the run's first.
    `pool_left` is what the pool would still grant by its last word; None without a pool.
    """

    def __init__(
        self,
        caps: tuple[Cap, ...],
        keep_credits: int | None = None,
        remaining_credits: int | None = None,
        pool_left: int | None = None,
    ) -> None:
        self.settled = NOTHING
        self.uncertain = NOTHING
        self.reserved = NOTHING
        self.in_flight = 0
        self.overruns = 0
        self.remaining_credits = remaining_credits
        self.pool_left = pool_left
        self._granted = 0
        self._on_days_before: Amount | None = None
        self.change_caps(caps, keep_credits)

    def change_caps(self, caps: tuple[Cap, ...], keep_credits: int | None) -> None:
        """Replaces the caps and the floor. Reservations stand, even above a lowered cap."""
        self._keep_credits = keep_credits
        self._limits = [self._run_limit(cap) for cap in caps]
        self.credits_cap = next(
            (cap.name for cap in caps if cap.unit == "credits"),
            None if keep_credits is None else KEEP_CREDITS,
        )

    def _run_limit(self, cap: Cap) -> "_RunLimit":
        """Returns what this run may book. On a later day than the run's first, a cap per day has forgotten
        what was booked before. The limit of a pool is what it has granted."""
        limit = cap.limit + (self._granted if cap.name == POOL else 0)
        if cap.per_day and self._on_days_before is not None:
            return _RunLimit(cap, limit + getattr(self._on_days_before, cap.unit))
        return _RunLimit(cap, limit - cap.before)

    def reserve(self, worst_case: Amount) -> Reservation | Shortfall:
        """Reserves the worst case, or returns the cap that it would exceed."""
        for limit in self._limits:
            unit = limit.cap.unit
            needed, left = getattr(worst_case, unit), limit.amount - self._committed(unit)
            if needed > left:
                return Shortfall(limit.cap.name, self.in_flight > 0, Lack(unit, needed, left))
        if shortfall := self._below_floor(worst_case.credits):
            return shortfall
        self.reserved = self.reserved.plus(worst_case)
        self.in_flight += 1
        return Reservation(worst_case)

    def left(self, unit: Unit) -> int | None:
        """Returns the amount that the caps on a unit leave; None without a cap."""
        committed = self._committed(unit)
        return min(
            (self._most(limit) - committed for limit in self._limits if limit.cap.unit == unit), default=None
        )

    def _most(self, limit: "_RunLimit") -> int:
        """Returns what this run may book under a limit if the pool grants all that it has left."""
        return limit.amount + (self.pool_left or 0 if limit.cap.name == POOL else 0)

    def add_grant(self, granted: int, pool_left: int) -> None:
        """Adds nano-USD that the pool has granted to this run; they last until the UTC day ends."""
        self.pool_left = pool_left
        self._granted += granted
        self._limits = [self._run_limit(limit.cap) for limit in self._limits]

    def _committed(self, unit: Unit) -> int:
        committed: int = (
            getattr(self.settled, unit) + getattr(self.uncertain, unit) + getattr(self.reserved, unit)
        )
        return committed

    def settle(self, reservation: Reservation, cost: Amount, remaining_credits: int | None = None) -> None:
        """Books the cost of a response, even above its reservation.

        `remaining_credits` is the balance that it reported. Responses arrive out of order, so the lowest
        report counts; the next run sees a top-up.
        """
        self.release(reservation)
        self.settled = self.settled.plus(cost)
        if remaining_credits is None:
            self._lower_balance(cost.credits)
        elif self.remaining_credits is None or remaining_credits < self.remaining_credits:
            self.remaining_credits = remaining_credits
        reserved = reservation.amount
        dearer_in_credits = self.credits_cap is not None and cost.credits > reserved.credits
        if cost.nano_usd > reserved.nano_usd or cost.tokens > reserved.tokens or dearer_in_credits:
            self.overruns += 1

    def release(self, reservation: Reservation) -> None:
        """Releases the reservation of an attempt that was not billed."""
        self.reserved = self.reserved.minus(reservation.amount)
        self.in_flight -= 1

    def keep_uncertain(self, reservation: Reservation) -> None:
        """Keeps the worst case of an attempt that may have been billed. No row has a response from it."""
        self.release(reservation)
        self.uncertain = self.uncertain.plus(replace(reservation.amount, rows=0))
        # The next report may be older than this charge. A later report that includes it is not lower.
        self._lower_balance(reservation.amount.credits)

    def count_row(self) -> None:
        """Counts a row whose first request failed: a cap on rows is on those that are sent for."""
        self.uncertain = self.uncertain.plus(Amount(rows=1))

    def raise_uncertain_credits(self, least: int) -> None:
        """Corrects reservations from before the first response, which showed the cost of a token."""
        if least > self.uncertain.credits:
            self.uncertain = replace(self.uncertain, credits=least)

    def new_day(self) -> None:
        """Starts a UTC day: amounts booked so far no longer count against its caps."""
        self._on_days_before = self.settled.plus(self.uncertain)
        self._granted = 0  # the pool has counted it for the day before
        self._limits = [self._run_limit(limit.cap) for limit in self._limits]

    def answers_to_cap(self) -> tuple[float, str] | None:
        """Returns how many more responses the tightest cap buys at this run's mean cost, and that cap's name.

        None without a cap, and before the first response.
        """
        answered = self.settled.rows
        if not answered:
            return None
        left = []
        for limit in self._limits:
            if settled := getattr(self.settled, limit.cap.unit):
                most = self._most(limit) - getattr(self.uncertain, limit.cap.unit)
                left.append((most * answered / settled, limit.cap.name))
        if not left:
            return None
        bought, name = min(left)
        return max(0.0, bought - answered), name

    def _below_floor(self, worst_case: int) -> Shortfall | None:
        """Compares the balance after all requests in flight with the floor."""
        if self._keep_credits is None:
            return None
        if self.remaining_credits is not None:
            left = self.remaining_credits - self.reserved.credits - self._keep_credits
            lack = Lack("credits", worst_case, left)
            return None if worst_case <= left else Shortfall(KEEP_CREDITS, self.in_flight > 0, lack)
        # The balance is unknown: one request at a time, until a response has reported it.
        if self.in_flight:
            return Shortfall(KEEP_CREDITS, may_pass=True)
        return Shortfall(BALANCE_UNKNOWN, may_pass=False) if self.settled != NOTHING else None

    def _lower_balance(self, credits_used: int) -> None:
        if self.remaining_credits is not None:
            self.remaining_credits -= credits_used


@dataclass(frozen=True, slots=True)
class _RunLimit:
    """The part of a cap that this run may book."""

    cap: Cap
    amount: int


def caps_of(budget: Budget, spent: Amount, spent_today: Amount) -> tuple[Cap, ...]:
    """Returns the budget's caps, given the journal's settled and uncertain spend."""
    before = {"life": spent, "run": NOTHING, "day": spent_today, "pool": NOTHING}
    return tuple(
        Cap(
            cap.name,
            cast("Unit", cap.unit),
            budget.limit(cap),
            getattr(before[cap.span], cap.unit),
            # The pool's cap per day is on what is claimed during the day.
            per_day=cap.span in ("day", "pool"),
        )
        for cap in budget.given()
        if cap.in_ledger
    )
