"""The journal's records as values."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

import msgspec

from batchrun.amounts import NOTHING, Amount
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.exchange import NO_CACHE, CacheUsage


class Outcome(StrEnum):
    """How an attempt ended."""

    ANSWERED = "answered"  # billed, with a response
    REFUSED = "refused"  # not billed: never sent, or refused by the endpoint
    UNCERTAIN = "uncertain"  # unknown; its worst case counts as spent


class Grant(NamedTuple):
    """The end of a claim on a pool, in nano-USD: what was `granted`, and what its caps leave after it.

    `per_day` says that the cap per day leaves least.
    """

    granted: int
    left: int
    per_day: bool


class Intent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request about to be sent. `digest` (16 bytes) identifies the request by its content.

    `number` counts the attempts of this request in this run, from 1. `started_at` is milliseconds
    since 1970 UTC. The amounts are reserved in the ledger.
    """

    attempt: int
    run: int
    digest: bytes
    number: int
    started_at: int
    nano_usd: int
    credits: int
    tokens: int

    @property
    def day(self) -> int:
        """The UTC day of sending, counted from 1970-01-01."""
        return self.started_at // MILLISECONDS_PER_DAY


class Attempt(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How an intent ended. The amounts are the booked ones: 0 where nothing was billed, the whole
    reservation where that is unknown, and `nano_usd` None where a response's cost can't be computed.

    `final`: this failure ended its row. Latencies are in milliseconds. `passed_bounds` are the upper bounds
    of the input and output tokens, where the response cost more than they allow.
    """

    attempt: int
    outcome: Outcome
    final: bool
    finished_at: int
    nano_usd: int | None = 0
    credits: int = 0
    tokens: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    remaining_credits: int | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    http_status: int | None = None
    error_code: str | None = None
    error: str | None = None
    response: bytes | None = None
    passed_bounds: tuple[int, int] | None = None


class AttemptRow(NamedTuple):
    """A record of the table `attempts`: an intent and its end, with their checksums."""

    attempt: int
    run: int
    digest: bytes
    number: int
    started_at: int
    finished_at: int
    outcome: str
    final: int
    nano_usd: int | None
    credits: int
    tokens: int
    input_tokens: int | None
    output_tokens: int | None
    remaining_credits: int | None
    latency_ms: float | None
    first_token_ms: float | None
    http_status: int | None
    error_code: str | None
    error: str | None
    control: int
    response_crc32: int
    response: bytes | None


class Overrun(NamedTuple):
    """A response's cost, and the upper bounds of its input and output tokens that it exceeded."""

    nano_usd: int
    tokens: int
    input_bound: int
    output_bound: int


class RequestHistory(msgspec.Struct, gc=False):
    """All attempts of one request, summed up for its output row. `run` is the last attempt's, `first` is the
    number of the first one.

    `answer` is the newest response's body, `earlier_answers` are the bodies before it. `cache` sums up the
    cache counts of all bodies; the code that reads the bodies sets it.
    """

    run: int = 0
    first: int = 0
    answer: bytes | None = None
    earlier_answers: tuple[bytes, ...] = ()
    cache: CacheUsage = NO_CACHE
    failed: bool = False
    attempts: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    credits: int | None = None
    nano_usd: int | None = None
    uncertain_nano_usd: int = 0
    remaining_credits: int | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    answered_at: int | None = None
    error_code: str | None = None
    error: str | None = None

    def add(self, row: AttemptRow) -> None:
        """Adds the request's next attempt."""
        self.first = self.first or row.attempt
        self.attempts += 1
        self.run = row.run
        if row.outcome == Outcome.ANSWERED:
            self._add_answer(row)
        else:
            self.failed = bool(row.final)
            self.error_code, self.error = row.error_code, row.error
            if row.outcome == Outcome.UNCERTAIN:
                self.uncertain_nano_usd += row.nano_usd or 0

    def _add_answer(self, row: AttemptRow) -> None:
        self.remaining_credits, self.latency_ms = row.remaining_credits, row.latency_ms
        self.first_token_ms, self.answered_at = row.first_token_ms, row.finished_at
        if self.answer is not None:
            self.earlier_answers += (self.answer,)
        self.answer = row.response
        if row.input_tokens is not None:
            self.input_tokens = (self.input_tokens or 0) + row.input_tokens
        if row.output_tokens is not None:
            self.output_tokens = (self.output_tokens or 0) + row.output_tokens
        self.credits = (self.credits or 0) + row.credits
        if row.nano_usd is not None:
            self.nano_usd = (self.nano_usd or 0) + row.nano_usd


@dataclass(frozen=True, slots=True)
class Spend:
    settled: Amount = NOTHING
    uncertain: Amount = NOTHING

    @property
    def committed(self) -> Amount:
        return self.settled.plus(self.uncertain)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the journal's life, or over a part of it.

    `open` sums the reservations of intents without an outcome: in flight while a run is going on.
    `credits_per_token` is the highest rate of any response, None before the first; `overruns` are the
    responses that raised the worst case, in sending order.
    """

    spend: Spend = Spend()
    open: Amount = NOTHING
    open_intents: int = 0
    requests: int = 0
    retried: int = 0
    answered: int = 0
    failed: int = 0
    uncertain: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    remaining_credits: int | None = None
    credits_per_token: Fraction | None = None
    overruns: tuple[Overrun, ...] = ()
    by_error: dict[str, int] = field(default_factory=dict)

    @property
    def at_the_end(self) -> "Totals":
        """Returns the sums with open intents as uncertain, for when nothing is in flight any more."""
        uncertain = self.spend.uncertain.plus(self.open)
        return replace(self, spend=replace(self.spend, uncertain=uncertain), open=NOTHING)
