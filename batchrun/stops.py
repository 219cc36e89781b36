"""Why a run ended before its last row, as values: stopping is an outcome, not a fault."""

from dataclasses import dataclass, field
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU, Signals

from batchrun.amounts import usd_text
from batchrun.errors import (
    EXIT_BUDGET,
    EXIT_ENDPOINT,
    EXIT_FAULT,
    EXIT_SIGINT,
    BatchrunError,
    MovedError,
    StorageError,
)
from batchrun.job.caps import DAY_CAPS, Unit, cap_named
from batchrun.text import first_line

EXIT_BY_SIGNAL = 128
DRAINING = (SIGHUP, SIGINT, SIGTERM)
"""The first of these drains the run, the second ends it at once."""
ECHO_SECONDS = 0.05
"""The same signal within so long of the first is no second one: `timeout` of GNU coreutils signals its child,
and within a millisecond the process group that the child is in. No person is as quick."""
AT_ONCE = (SIGQUIT, SIGXCPU)
"""Each of these ends the run at once: requests in flight are booked as uncertain."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What kept the next request out: its worst case, and what the cap has left, in `unit`."""

    unit: Unit
    needed: int
    left: int

    def text(self) -> str:
        needed, left = (amount_text(self.unit, amount) for amount in (self.needed, max(0, self.left)))
        return (
            f"the next one needs {needed} at worst, {left} {'is' if self.unit == 'nano_usd' else 'are'} left"
        )


def amount_text(unit: Unit, amount: int) -> str:
    return usd_text(amount) if unit == "nano_usd" else f"{amount:,} {unit}"


@dataclass(frozen=True, slots=True)
class Stop:
    """`reason` is a sentence for a person, `next_step` what to do so that the same command continues.

    `immediate`: the run spends no time on its output either. `self_clearing`: time alone removes the cause.
    `reopens_failures`: the next run sends rows again that failed permanently in this one. `lack` is what a
    cap had too little of, if it is on what requests cost.
    """

    exit_code: int
    reason: str
    next_step: str
    immediate: bool = False
    self_clearing: bool = False
    reopens_failures: bool = False
    lack: Lack | None = field(default=None, compare=False)


CREDITS_UNKNOWN = "credits unknown"
"""Replaces a cap's name if the responses report no use of credits."""
NO_WORST_CASE = "no worst case"
"""Replaces a cap's name if a request could cost more than can be counted."""
BALANCE_UNKNOWN = "balance unknown"
"""Replaces a cap's name if the responses don't report the account's balance."""
DAY_AHEAD = "day ahead"
"""Replaces the name of a cap per day if the journal has a later day than the clock."""

FREE_REQUEST_USED = Stop(
    EXIT_BUDGET,
    "The free tier allows one request.",
    "set a key and request.free_tier = false, then run the same command",
)


_UNKEEPABLE = {
    CREDITS_UNKNOWN: (
        "The responses don't report their use of credits, so the cap on credits can't be kept.",
        "set pricing.credits_per_million_tokens, then run the same command",
    ),
    BALANCE_UNKNOWN: (
        "The responses don't report the credits left, so budget.keep_credits can't be kept.",
        "remove budget.keep_credits, then run the same command",
    ),
    NO_WORST_CASE: (
        "The next request could cost a million USD, or 10^15 credits or tokens, by max_tokens and prices.",
        "lower max_tokens or correct the prices, then run the same command",
    ),
    DAY_AHEAD: (
        (
            f"Stopped at the cap {', '.join(DAY_CAPS)}: the journal holds requests of a later day than this "
            "machine's clock shows, and they count for that day."
        ),
        "correct the clock or raise the cap, then run the same command",
    ),
}


def at_cap_of(cap: str, lack: Lack | None = None, *, none_sent: bool = False) -> Stop:
    """Returns the stop at a cap by the ledger's name for it, or at what replaces that name.

    `none_sent`: the run has sent nothing yet, so that no row fits.
    """
    if cap in _UNKEEPABLE:
        return Stop(EXIT_BUDGET, *_UNKEEPABLE[cap])
    kind = cap_named(cap)
    next_step = kind.next_step or f"raise {cap}, then run the same command"
    reason = f"Stopped at the cap {cap}"
    if lack is not None and lack.unit != "rows":
        reason += f": no row fits, {lack.text()}" if none_sent else ""
    return Stop(EXIT_BUDGET, f"{reason}.", next_step, self_clearing=kind.self_clearing, lack=lack)


def by_endpoint(reason: str) -> Stop:
    return Stop(EXIT_ENDPOINT, reason, "fix the cause, then run the same command")


def by_full_disk(error: StorageError) -> Stop:
    """The disk has no room for new requests; those in flight, and perhaps the output, still fit."""
    return Stop(EXIT_FAULT, first_line(error), "make room, then run the same command")


def by_moved_journal(error: MovedError) -> Stop:
    """Responses in flight go to the open file, which is copied to the journal's former folder."""
    return Stop(EXIT_FAULT, str(error).splitlines()[0], "find out what moved it, then run the same command")


def by_faulty_pool(error: BatchrunError) -> Stop:
    """Nothing more can be claimed; the requests in flight have their money."""
    return Stop(EXIT_FAULT, first_line(error), "put the pool in order, then run the same command")


def interrupted(number: int, *, immediate: bool = False) -> Stop:
    """Returns the stop by the signal `number`; `immediate`: a second signal, or one that leaves no time."""
    name, code = Signals(number).name, EXIT_BY_SIGNAL + number
    next_step = "the same command continues where this run stopped"
    if immediate:
        which = f"a second signal ({name})" if number in DRAINING else name
        return Stop(code, f"Ended at once by {which}.", next_step, immediate=True)
    return Stop(code, f"Interrupted by {name}.", next_step)


def is_echo(first: tuple[int, float] | None, number: int, now: float) -> bool:
    """Returns whether a signal counts as one with the first, given by its number and its time in seconds."""
    return first is not None and first[0] == number and now - first[1] < ECHO_SECONDS


def by_request(author: str) -> Stop:
    """Returns the stop that somebody asked for beside the run, as with `batchrun set JOB stop=true`."""
    return Stop(EXIT_SIGINT, f"Stopped by {author}.", "the same command continues where this run stopped")


def cancelled(*, immediate: bool = False) -> Stop:
    how = "Ended at once" if immediate else "Cancelled"
    next_step = "the same call continues where this run stopped"
    return Stop(EXIT_SIGINT, f"{how} by the program that called it.", next_step, immediate=immediate)
