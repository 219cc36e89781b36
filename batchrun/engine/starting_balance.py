"""A run's prices at its start, and the budget that earlier runs have left."""

from msgspec.structs import replace

from batchrun.amounts import NOTHING, Amount
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.ledger import Ledger, caps_of
from batchrun.engine.pricing import PriceList, credits_rate
from batchrun.job.prices import cache_prices, prices
from batchrun.job.spec import Job
from batchrun.journal import Journal, Totals


def starting_price_list(job: Job, sandbox: bool, before: Totals) -> PriceList:
    """Returns the job's prices, and its credit rate or else the highest that the journal has seen.

    They are raised by responses of earlier runs that cost more than these prices allow.
    """
    known = prices(job, sandbox)
    given = credits_rate(job.pricing.credits_per_million_tokens)
    price_list = PriceList(
        None if known is None else known.input_nano_usd_per_million,
        None if known is None else known.output_nano_usd_per_million,
        before.credits_per_token if given is None else given,
        free=job.request.free_tier,
        cache=cache_prices(job, sandbox),
    )
    for overrun in before.overruns:
        price_list = price_list.raised_by(*overrun)
    return price_list


def committed_spend(before: Totals, price_list: PriceList) -> Amount:
    """Returns the spend that counts against a cap over the journal's life: settled and uncertain.

    Reservations from before a credit rate was known are valued at the current rate.
    """
    spend = before.spend.committed
    unpriced = price_list.credit_bound(before.spend.uncertain.tokens) - before.spend.uncertain.credits
    return replace(spend, credits=spend.credits + max(0, unpriced))


def spent_on_the_day(journal: Journal, sandbox: bool, at: int) -> Amount:
    """Returns the spend since the midnight before `at` (milliseconds since 1970 UTC). Raises JournalError."""
    midnight = at // MILLISECONDS_PER_DAY * MILLISECONDS_PER_DAY
    return journal.totals(sandbox, since=midnight).at_the_end.spend.committed


def starting_ledger(
    job: Job,
    sandbox: bool,
    journal: Journal | None,
    before: Totals,
    started_at: int,
    *,
    topped_up: bool,
    pool_left: int | None = None,
) -> Ledger:
    """Returns the ledger of a run that starts at `started_at` (milliseconds since 1970 UTC), `before` spent.

    `journal` is None if there is none yet. `pool_left` is what the pool's caps leave. Raises JournalError.
    """
    budget = job.budget
    spent_today = NOTHING
    if journal is not None and any(cap.span == "day" for cap in budget.given()):
        spent_today = spent_on_the_day(journal, sandbox, started_at)
    known = None if topped_up else before.remaining_credits
    if known is not None and budget.keep_credits is not None and journal is not None:
        known = journal.lowest_balance(sandbox)
    spent = committed_spend(before, starting_price_list(job, sandbox, before))
    return Ledger(caps_of(budget, spent, spent_today), budget.keep_credits, known, pool_left)
