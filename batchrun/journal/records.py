"""The journal's records, as values."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

import msgspec

from batchrun.amounts import NOTHING, Amount


class Outcome(StrEnum):
    """How an attempt ended."""

    ANSWERED = "answered"  # billed, and the answer is here
    REFUSED = "refused"  # not billed: never sent, or the endpoint said that it failed
    UNCERTAIN = "uncertain"  # nobody knows; its worst case counts as spent


class Intent(msgspec.Struct, frozen=True, gc=False):
    """A request about to be sent. `digest` (16 bytes) identifies the request by its content.

    `number` counts the attempts of this request in this run, from 1. `started_at` is milliseconds
    since 1970 UTC. The amounts are what the ledger has reserved.
    """

    attempt: int
    run: int
    digest: bytes
    number: int
    started_at: int
    nano_usd: int
    credits: int
    tokens: int


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """How an intent ended. The amounts are what is booked: 0 where nothing was billed, the whole
    reservation where that is unknown, and `nano_usd` None where an answer's cost can't be computed.

    `final` says that this failure ended its row. Latencies are in milliseconds. `passed_bounds` are the upper
    bounds of the input's and the output's tokens, where the answer cost more than they allowed for.
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


class Overrun(NamedTuple):
    """What an answer cost, and the upper bounds of its input's and output's tokens that this has passed."""

    nano_usd: int
    tokens: int
    input_bound: int
    output_bound: int


class RequestHistory(msgspec.Struct, gc=False):
    """All attempts of one request, summed up for its row of the output. `run` is that of the last one."""

    run: int = 0
    answer: bytes | None = None
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

    `open` is what intents without an outcome have reserved: in flight while a run goes on.
    `credits_per_token` is the highest rate that an answer has shown, None before the first; `overruns` are
    the answers that have raised the worst case, in the order of asking.
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
        """As it is when nothing is in flight any more: an intent that is open then is in doubt."""
        uncertain = self.spend.uncertain.plus(self.open)
        return replace(self, spend=replace(self.spend, uncertain=uncertain), open=NOTHING)
