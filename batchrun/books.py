"""Ledger and journal in step: every attempt is booked in both, and in the order that keeps the budget."""

import time
from typing import Protocol

import msgspec
from msgspec.structs import replace

from batchrun.amounts import NOTHING
from batchrun.exchange import Answer, Billed, Failure
from batchrun.journal.records import Attempt, Intent, Outcome
from batchrun.ledger import Ledger, Reservation, Shortfall
from batchrun.pricing import Tariff
from batchrun.prompts import Request
from batchrun.stops import CREDITS_UNKNOWN, DAY_AHEAD, NO_WORST_CASE

MILLISECONDS_PER_DAY = 86_400_000
BEYOND_COUNTING = 10**15
"""A worst case in nano-USD, credits or tokens from which SQLite's sums could overflow."""


_NONE = Reservation(NOTHING)


class AttemptLog(Protocol):
    """What the books need of the journal's writer: records are durable in the order they come."""

    def intend(self, intent: Intent) -> None: ...
    def record(self, attempt: Attempt) -> None: ...
    def withdraw(self, attempt: int) -> None: ...


class Lease(msgspec.Struct, gc=False):
    """One row's request on its way, and the part of the budget that is set aside for it.

    `number` counts its attempts in this run; `used_attempts` those of them that use up the row's
    attempts. `attempt` is the journal's number of the present one. `first_failed`: when the first of
    those that failed was let go, in seconds of the monotonic clock.
    """

    request: Request
    number: int = 0
    used_attempts: int = 0
    attempt: int = 0
    first_failed: float | None = None
    reservation: Reservation = _NONE

    @property
    def output_bound(self) -> int:
        """0 where no bound is known: then no cap needs one."""
        return self.request.output_bound or 0


class Books:
    """Books attempts of one run. An end goes to the journal before the ledger frees what it didn't use,
    so that no later intent is durable before it.

    No intent is dated before `latest_start`, the start of the journal's newest in milliseconds since 1970
    UTC, or before another of this run: a clock that was set back doesn't give a day's cap out twice.
    """

    def __init__(
        self,
        run: int,
        first_attempt: int,
        ledger: Ledger,
        tariff: Tariff,
        log: AttemptLog,
        latest_start: int = 0,
    ) -> None:
        self.run = run
        self._next_attempt = first_attempt
        self._ledger = ledger
        self._tariff = tariff
        self._log = log
        self._latest_start = max(latest_start, milliseconds())
        self._day = self._latest_start // MILLISECONDS_PER_DAY

    def reserve(self, lease: Lease) -> Shortfall | None:
        """Sets the worst case of the next attempt aside and writes its intent down; or says why not."""
        self._turn_of_the_day()
        worst_case = self._tariff.worst_case(lease.request.input_bound, lease.output_bound)
        if lease.request.follows is not None:
            worst_case = replace(worst_case, rows=0)  # its row counts once, with its first request
        if self._ledger.caps_credits and self._tariff.credits_per_token is None:
            # Nobody knows what a request costs in credits: one at a time, until an answer has shown it.
            if self._ledger.in_flight:
                return Shortfall("budget.credits", may_pass=True)
            if self._ledger.settled != NOTHING:
                return Shortfall(CREDITS_UNKNOWN, may_pass=False)
            worst_case = replace(worst_case, credits=1)
        if max(worst_case.nano_usd, worst_case.credits, worst_case.tokens) >= BEYOND_COUNTING:
            return Shortfall(NO_WORST_CASE, may_pass=False)
        reserved = self._ledger.reserve(worst_case)
        if isinstance(reserved, Shortfall):
            if reserved.cap == "budget.usd_per_day" and milliseconds() // MILLISECONDS_PER_DAY < self._day:
                return Shortfall(DAY_AHEAD, reserved.may_pass)
            return reserved
        self._intend(lease, reserved)
        return None

    def withdraw(self, lease: Lease) -> None:
        """Takes back what was reserved for a request that was not sent."""
        self._log.withdraw(lease.attempt)
        self._ledger.release(lease.reservation)

    def not_needed(self, lease: Lease) -> None:
        """The journal has refused the intent, since it has the answer already."""
        self._ledger.release(lease.reservation)

    def answered(self, lease: Lease, answer: Answer) -> int:
        """Books an answer; returns the tokens that it used."""
        cost = self._tariff.cost(answer, lease.reservation.amount)
        if lease.request.follows is not None:
            cost = replace(cost, rows=0)
        priced = answer.cost_nano_usd is not None or self._tariff.priced
        bounds = lease.request.input_bound, lease.output_bound
        raised = self._tariff.raised_by(cost.nano_usd, cost.tokens, *bounds)
        self._log.record(
            Attempt(
                lease.attempt,
                Outcome.ANSWERED,
                final=False,
                finished_at=milliseconds(),
                nano_usd=cost.nano_usd if priced else None,
                credits=cost.credits,
                tokens=cost.tokens,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                remaining_credits=answer.remaining_credits,
                latency_ms=answer.latency * 1000,
                first_token_ms=_in_milliseconds(answer.first_token_latency),
                http_status=200,
                response=answer.body,
                passed_bounds=None if raised is self._tariff else bounds,
            )
        )
        self._ledger.settle(lease.reservation, cost, answer.remaining_credits)
        self._tariff = raised.at_rate_of(answer, cost.tokens)
        if uncertain := self._ledger.uncertain.tokens:
            self._ledger.raise_uncertain_credits(self._tariff.credit_bound(uncertain))
        return cost.tokens

    def failed(self, lease: Lease, failure: Failure, final: bool) -> None:
        """Books a failed attempt; `final` says that the row ends with it."""
        in_doubt = failure.billed is Billed.UNKNOWN
        booked = lease.reservation.amount if in_doubt else NOTHING
        self._log.record(
            Attempt(
                lease.attempt,
                Outcome.UNCERTAIN if in_doubt else Outcome.REFUSED,
                final,
                finished_at=milliseconds(),
                nano_usd=booked.nano_usd,
                credits=booked.credits,
                tokens=booked.tokens,
                latency_ms=failure.latency * 1000,
                http_status=failure.status,
                error_code=failure.code,
                error=failure.message,
            )
        )
        if in_doubt:
            self._ledger.keep_uncertain(lease.reservation)
        else:
            self._ledger.release(lease.reservation)

    def _intend(self, lease: Lease, reservation: Reservation) -> None:
        lease.reservation = reservation
        lease.attempt = self._next_attempt
        lease.number += 1
        self._next_attempt += 1
        amount = reservation.amount
        self._log.intend(
            Intent(
                lease.attempt,
                self.run,
                lease.request.digest,
                lease.number,
                self._latest_start,
                amount.nano_usd,
                amount.credits,
                amount.tokens,
            )
        )

    def _turn_of_the_day(self) -> None:
        self._latest_start = max(self._latest_start, milliseconds())
        day = self._latest_start // MILLISECONDS_PER_DAY
        if day > self._day:
            self._day = day
            self._ledger.new_day()


def milliseconds() -> int:
    """Now, in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def _in_milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
