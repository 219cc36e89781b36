"""Why a run ended before its last row: values, since stopping is an outcome and not a fault."""

from dataclasses import dataclass

from batchrun.errors import EXIT_BUDGET, EXIT_ENDPOINT, EXIT_FAULT, EXIT_SIGINT, EXIT_SIGTERM, StorageError


@dataclass(frozen=True, slots=True)
class Stop:
    """`reason` is a sentence for a person, `go_on` what to do so that the same command continues.

    `at_once`: the run is not to spend time on its output either. `renews`: time alone lifts what stopped it.
    """

    exit_code: int
    reason: str
    go_on: str
    at_once: bool = False
    renews: bool = False


CREDITS_UNKNOWN = "credits unknown"
"""Takes a cap's place where the answers show no use of credits."""
NO_WORST_CASE = "no worst case"
"""Takes a cap's place where a request could cost more than can be counted."""
BALANCE_UNKNOWN = "balance unknown"
"""Takes a cap's place where the answers don't report the account's balance."""
DAY_AHEAD = "day ahead"
"""Takes the place of budget.usd_per_day where the journal knows a later day than the clock."""

_RENEWED_CAPS = ("budget.usd_per_day", "budget.usd_per_run", "budget.rows", "budget.seconds")

FREE_REQUEST_USED = Stop(
    EXIT_BUDGET,
    "The free tier allows one request.",
    "set a key and request.free_tier = false, then run the same command",
)


def at_cap_of(cap: str) -> Stop:
    """`cap` is the job file's key of the cap, as the ledger names it."""
    if cap == CREDITS_UNKNOWN:
        reason = "The answers don't say what they use in credits, so that the cap on credits can't be kept."
        return Stop(EXIT_BUDGET, reason, "set pricing.credits_per_million_tokens, then run the same command")
    if cap == BALANCE_UNKNOWN:
        reason = "The answers don't say what credits are left, so that budget.keep_credits can't be kept."
        return Stop(EXIT_BUDGET, reason, "leave budget.keep_credits out, then run the same command")
    if cap == NO_WORST_CASE:
        reason = (
            "The next request could cost a million USD, or 10^15 credits or tokens, by max_tokens and prices."
        )
        return Stop(EXIT_BUDGET, reason, "lower max_tokens or correct the prices, then run the same command")
    if cap == DAY_AHEAD:
        reason = (
            "Stopped at the cap budget.usd_per_day: the journal holds requests of a later day than this "
            "machine's clock shows, and they count for that day."
        )
        return Stop(EXIT_BUDGET, reason, "see to the clock or raise the cap, then run the same command")
    go_on = {
        "budget.usd_per_day": "the same command continues after midnight UTC",
        "budget.usd_per_run": "the same command continues with a new run's budget",
        "budget.rows": "the same command asks for the next rows",
        "budget.seconds": "the same command continues",
        "budget.keep_credits": "top the account up, then run the same command with --topped-up",
    }
    return Stop(
        EXIT_BUDGET,
        f"Stopped at the cap {cap}.",
        go_on.get(cap, f"raise {cap}, then run the same command"),
        renews=cap in _RENEWED_CAPS,
    )


def by_endpoint(reason: str) -> Stop:
    return Stop(EXIT_ENDPOINT, reason, "mend the cause, then run the same command")


def by_full_disk(error: StorageError) -> Stop:
    """The run's last room is used up; what was in flight, and the output perhaps, still fit."""
    return Stop(EXIT_FAULT, str(error).splitlines()[0], "make room, then run the same command")


def interrupted(by_sigterm: bool, *, at_once: bool = False) -> Stop:
    name = "SIGTERM" if by_sigterm else "SIGINT"
    code = EXIT_SIGTERM if by_sigterm else EXIT_SIGINT
    go_on = "the same command continues where this run stopped"
    if at_once:
        return Stop(code, f"Ended at once by a second signal ({name}).", go_on, at_once=True)
    return Stop(code, f"Interrupted by {name}.", go_on)


def cancelled(*, at_once: bool = False) -> Stop:
    how = "Ended at once" if at_once else "Cancelled"
    go_on = "the same call continues where this run stopped"
    return Stop(EXIT_SIGINT, f"{how} by the program that called it.", go_on, at_once=at_once)
