"""Keeps ledger and journal in step: every attempt is booked in both, in the order that keeps the budget."""

import math
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from batchrun.amounts import NOTHING, Amount
from batchrun.client.request import Request
from batchrun.clock import MILLISECONDS_PER_DAY, milliseconds
from batchrun.engine.ledger import Ledger, Reservation, Shortfall
from batchrun.engine.pricing import PriceList
from batchrun.errors import HeldError, JournalError, StorageError
from batchrun.exchange import BillingStatus, Failure, Response
from batchrun.job.caps import DAY_CAPS, POOL, POOL_PER_DAY
from batchrun.journal.records import Attempt, Grant, Intent, Outcome
from batchrun.stops import CREDITS_UNKNOWN, DAY_AHEAD, NO_WORST_CASE, Lack, by_faulty_pool

BEYOND_COUNTING = 10**15
"""A worst case in nano-USD, credits or tokens from which SQLite's sums could overflow."""


HELD = f"{POOL}, which another program holds"
"""Replaces a cap's name while nothing can be claimed from the pool."""
TRY_AGAIN_SECONDS = 0.5
MOST_TRIES = 60
"""So many claims in a row that find the pool held end the run: nothing says that it will ever be free."""
_NONE = Reservation(NOTHING)


class AttemptLog(Protocol):
    """The part of the journal's writer that the accounting needs: records become durable in call order."""

    def write_intent(self, intent: Intent) -> None: ...
    def record(self, attempt: Attempt) -> None: ...
    def cancel_intent(self, attempt: int) -> None: ...


class MoneyPool(Protocol):
    """A budget that this run shares with others."""

    def claim(self, least: int, day: int, attempt: int) -> Grant:
        """Claims `least` nano-USD or more for a UTC day, or nothing. Raises StorageError, JournalError.

        `attempt` is the highest one known to be durable in the journal. Returns soon: raises HeldError while
        another program holds the pool.
        """


class ActiveRequest(msgspec.Struct, gc=False):
    """One row's prepared request, and the part of the budget that is reserved for it.

    `begins`: it is the first request that this run sends for its row; the row counts with it against a cap on
    rows, once, whether it is answered or fails: `counted` says that it failed. `has_siblings`: others of its
    row's requests, as further votes, may be answered though it fails.
    `number` counts its attempts in this run, `used_attempts` the attempts that use up one of the row's.
    `attempt` is the journal's number for the current attempt. `first_failed` is when the first failed attempt
    was sent, in seconds of the monotonic clock; `first_refused` and `refused_at` are when the first and the
    latest attempt with a 429 were sent. `refusals` counts the 429s between which other rows got through.
    """

    request: Request
    begins: bool = True
    has_siblings: bool = False
    counted: bool = False
    number: int = 0
    used_attempts: int = 0
    attempt: int = 0
    first_failed: float | None = None
    first_refused: float | None = None
    refused_at: float | None = None
    refusals: int = 0
    reservation: Reservation = _NONE

    @property
    def output_bound(self) -> int:
        """Returns the most output tokens; 0 if no bound is known: no cap needs one then."""
        return self.request.output_bound or 0

    @property
    def counts_a_row(self) -> bool:
        return self.begins and not self.counted


class Accounting:
    """Books the attempts of one run. An attempt's end goes to the journal before the ledger frees its unused
    reservation, so that no later intent is durable before it.

    No intent is dated before `latest_start`, the start of the journal's newest attempt in milliseconds since
    1970 UTC, or before another of this run: a clock that was set back doesn't grant a day's cap twice.
    `clock` returns the current time in the same unit. `pool` grants what the ledger may book under the
    pool's cap.
    """

    def __init__(
        self,
        run: int,
        first_attempt: int,
        ledger: Ledger,
        price_list: PriceList,
        log: AttemptLog,
        latest_start: int = 0,
        clock: Callable[[], int] = milliseconds,
        pool: MoneyPool | None = None,
    ) -> None:
        self.run = run
        self._pool = pool
        self._claims_held = 0
        self._tried_at = 0
        self._next_attempt = first_attempt
        self._latest_durable = first_attempt - 1
        self._ledger = ledger
        self._price_list = price_list
        self._log = log
        self._clock = clock
        self._latest_start = max(latest_start, clock())
        self._day = self._latest_start // MILLISECONDS_PER_DAY

    def reserve(self, active: ActiveRequest) -> Shortfall | None:
        """Reserves the next attempt's worst case and writes its intent; returns the shortfall, if any."""
        self._turn_of_the_day()
        request = active.request
        worst_case = self._price_list.worst_case(request.input_bound, active.output_bound, request.cached)
        if not active.counts_a_row:
            worst_case = replace(worst_case, rows=0)
        if self._ledger.credits_cap is not None and self._price_list.credits_per_token is None:
            # The cost of a request in credits is unknown: one at a time, until a response has shown it.
            if self._ledger.in_flight:
                return Shortfall(self._ledger.credits_cap, may_pass=True)
            if self._ledger.settled != NOTHING:
                return Shortfall(CREDITS_UNKNOWN, may_pass=False)
            worst_case = replace(worst_case, credits=1)
        if max(worst_case.nano_usd, worst_case.credits, worst_case.tokens) >= BEYOND_COUNTING:
            return Shortfall(NO_WORST_CASE, may_pass=False)
        reserved = self._ledger.reserve(worst_case)
        if isinstance(reserved, Shortfall) and reserved.cap == POOL and self._pool is not None:
            reserved = self._reserve_by_claim(worst_case, reserved, self._pool)
        if isinstance(reserved, Shortfall):
            if reserved.cap in DAY_CAPS and self._clock() // MILLISECONDS_PER_DAY < self._day:
                return Shortfall(DAY_AHEAD, reserved.may_pass)
            return reserved
        self._write_intent(active, reserved)
        return None

    def _reserve_by_claim(
        self, worst_case: Amount, shortfall: Shortfall, pool: MoneyPool
    ) -> Reservation | Shortfall:
        """Claims what is missing: durable in the pool before the journal's writer has the intent."""
        lack, now = shortfall.lack or Lack("nano_usd", worst_case.nano_usd, 0), self._clock()
        if self._claims_held and 0 <= now - self._tried_at < TRY_AGAIN_SECONDS * 1000:
            return Shortfall(HELD, may_pass=True)
        try:
            grant = pool.claim(lack.needed - lack.left, self._day, self._latest_durable)
            self._claims_held = 0
        except HeldError as error:
            self._claims_held, self._tried_at = self._claims_held + 1, now
            if self._claims_held < MOST_TRIES:
                return Shortfall(HELD, may_pass=True)
            return Shortfall(POOL, may_pass=False, stop=by_faulty_pool(error))
        except (JournalError, StorageError) as error:
            return Shortfall(POOL, may_pass=False, stop=by_faulty_pool(error))
        self._ledger.add_grant(grant.granted, grant.left)
        if grant.granted:
            return self._ledger.reserve(worst_case)
        name = POOL_PER_DAY if grant.per_day else POOL
        return Shortfall(name, shortfall.may_pass, Lack(lack.unit, lack.needed, lack.left + grant.left))

    @property
    def seconds_to_try(self) -> float:
        """Returns when to reserve again what had no room, unless a request ends before."""
        return TRY_AGAIN_SECONDS if self._claims_held else math.inf

    def cancel_intent(self, active: ActiveRequest) -> None:
        """Releases the reservation of a request that was not sent."""
        self._log.cancel_intent(active.attempt)
        self._ledger.release(active.reservation)

    def not_needed(self, active: ActiveRequest) -> None:
        """Releases a request whose intent the journal has refused, since it already has the response."""
        self._ledger.release(active.reservation)

    def answered(self, active: ActiveRequest, response: Response) -> int:
        """Books a response; returns the tokens that it used."""
        self._latest_durable = max(self._latest_durable, active.attempt)
        cached = active.request.cached
        cost = self._price_list.cost(response, active.reservation.amount, cached)
        if not active.counts_a_row:
            cost = replace(cost, rows=0)
        priced = response.cost_nano_usd is not None or self._price_list.priced
        bounds = active.request.input_bound, active.output_bound
        raised = self._price_list.raised_by(cost.nano_usd, cost.tokens, *bounds, cached)
        self._log.record(
            Attempt(
                active.attempt,
                Outcome.ANSWERED,
                final=False,
                finished_at=self._clock(),
                nano_usd=cost.nano_usd if priced else None,
                credits=cost.credits,
                tokens=cost.tokens,
                input_tokens=response.input_tokens,
                output_tokens=response.output_tokens,
                remaining_credits=response.remaining_credits,
                latency_ms=response.latency * 1000,
                first_token_ms=_in_milliseconds(response.first_token_latency),
                http_status=200,
                response=response.body,
                passed_bounds=None if raised is self._price_list else bounds,
            )
        )
        self._ledger.settle(active.reservation, cost, response.remaining_credits)
        self._price_list = raised.at_rate_of(response, cost.tokens)
        if uncertain := self._ledger.uncertain.tokens:
            self._ledger.raise_uncertain_credits(self._price_list.credit_bound(uncertain))
        return cost.tokens

    def failed(self, active: ActiveRequest, failure: Failure, final: bool) -> None:
        """Books a failed attempt; `final` says that the row ends with it."""
        self._latest_durable = max(self._latest_durable, active.attempt)
        in_doubt = failure.billing is BillingStatus.UNKNOWN
        booked = active.reservation.amount if in_doubt else NOTHING
        self._log.record(
            Attempt(
                active.attempt,
                Outcome.UNCERTAIN if in_doubt else Outcome.REFUSED,
                final,
                finished_at=self._clock(),
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
            self._ledger.keep_uncertain(active.reservation)
        else:
            self._ledger.release(active.reservation)
        if active.counts_a_row:
            self._ledger.count_row()
            active.counted = True
            active.begins = not active.has_siblings

    def _write_intent(self, active: ActiveRequest, reservation: Reservation) -> None:
        active.reservation = reservation
        active.attempt = self._next_attempt
        active.number += 1
        self._next_attempt += 1
        amount = reservation.amount
        self._log.write_intent(
            Intent(
                active.attempt,
                self.run,
                active.request.digest,
                active.number,
                self._latest_start,
                amount.nano_usd,
                amount.credits,
                amount.tokens,
            )
        )

    def _turn_of_the_day(self) -> None:
        self._latest_start = max(self._latest_start, self._clock())
        day = self._latest_start // MILLISECONDS_PER_DAY
        if day > self._day:
            self._day = day
            self._ledger.new_day()


def _in_milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
