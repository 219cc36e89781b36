"""The single list of a budget's caps.

A new cap on the cost of requests is a line in CAPS and a field of `Budget` in `budget`: the rules of the job
file, the ledger, the stops and the docs use this list. A cap that is not `in_ledger` also needs code that
enforces it.
"""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["nano_usd", "credits", "tokens", "rows"]
"""The units that the ledger counts: the fields of `amounts.Amount`."""


@dataclass(frozen=True, slots=True)
class CapKind:
    """A key of [budget].

    `span` says what counts against the cap: the journal's life, this run, one UTC day, all jobs of a pool;
    for a floor, the account's balance. `next_step` says how to continue a run that was stopped by it.
    """

    key: str
    unit: Unit | Literal["seconds"]
    span: Literal["life", "run", "day", "account", "pool"]
    next_step: str = ""

    @property
    def name(self) -> str:
        """Its name in errors and summaries."""
        return f"budget.{self.key}"

    @property
    def needs_worst_case(self) -> bool:
        """Whether the cap can hold only if every request has a cost bound."""
        return self.unit in ("nano_usd", "credits", "tokens")

    @property
    def self_clearing(self) -> bool:
        """Whether the same command continues without a change, in a later run or on a later day."""
        return self.span in ("run", "day")

    @property
    def in_ledger(self) -> bool:
        """Whether it limits a unit that the ledger counts, and so is enforced by the ledger's one rule."""
        return self.unit != "seconds" and self.span != "account"


CAPS = (
    CapKind("usd", "nano_usd", "life"),
    CapKind("usd_per_run", "nano_usd", "run", "the same command continues with a new run's budget"),
    CapKind("usd_per_day", "nano_usd", "day", "the same command continues after midnight UTC"),
    CapKind("credits", "credits", "life"),
    CapKind(
        "keep_credits",
        "credits",
        "account",
        "top the account up, then run the same command with --topped-up",
    ),
    CapKind("tokens", "tokens", "life"),
    CapKind("rows", "rows", "run", "the same command sends the next rows"),
    CapKind("seconds", "seconds", "run", "the same command continues"),
    # Last: money is claimed from the pool only for what all other caps let through.
    CapKind(
        "pool",
        "nano_usd",
        "pool",
        "raise its cap with `batchrun pool FILE --usd N`, then run the same command",
    ),
)

KEEP_CREDITS = "budget.keep_credits"
SECONDS = "budget.seconds"
POOL = "budget.pool"
"""The pool's cap over its life. Both of its caps are in its file, not in the job."""
POOL_PER_DAY = "budget.pool per day"

_BY_NAME = {cap.name: cap for cap in CAPS} | {
    POOL_PER_DAY: CapKind("pool per day", "nano_usd", "day", "the same command continues after midnight UTC")
}

DAY_CAPS = tuple(name for name, cap in _BY_NAME.items() if cap.span == "day")


def cap_named(name: str) -> CapKind:
    """Returns the cap by its key, such as `budget.usd`. Raises KeyError."""
    return _BY_NAME[name]
