"""What a run begins with: its prices, and what earlier runs have left of the budget."""

from msgspec.structs import replace

from batchrun.amounts import NOTHING, Amount
from batchrun.books import MILLISECONDS_PER_DAY
from batchrun.job import Job, prices
from batchrun.journal import Journal, Totals
from batchrun.ledger import Ledger, caps_of
from batchrun.pricing import Tariff, credits_rate


def opening_tariff(job: Job, sandbox: bool, before: Totals) -> Tariff:
    """The job's prices, and its rate of credits or else the highest that the journal has seen.

    Raised by the answers of earlier runs that cost more than these allow for.
    """
    known = prices(job, sandbox)
    given = credits_rate(job.pricing.credits_per_million_tokens)
    tariff = Tariff(
        None if known is None else known.input_nano_usd_per_million,
        None if known is None else known.output_nano_usd_per_million,
        before.credits_per_token if given is None else given,
    )
    for overrun in before.overruns:
        tariff = tariff.raised_by(*overrun)
    return tariff


def committed_spend(before: Totals, tariff: Tariff) -> Amount:
    """What counts against a cap over the journal's life: settled and uncertain.

    What was reserved while no rate of credits was known is worth what the rate now says.
    """
    spend = before.spend.committed
    unpriced = tariff.credit_bound(before.spend.uncertain.tokens) - before.spend.uncertain.credits
    return replace(spend, credits=spend.credits + max(0, unpriced))


def open_ledger(
    job: Job, sandbox: bool, journal: Journal | None, before: Totals, started_at: int, *, topped_up: bool
) -> Ledger:
    """The ledger of a run that starts at `started_at` (milliseconds since 1970 UTC) with `before` spent.

    `journal` is None where there is none yet. Raises JournalError.
    """
    budget = job.budget
    spent_today = NOTHING
    if budget.usd_per_day is not None and journal is not None:
        midnight = started_at // MILLISECONDS_PER_DAY * MILLISECONDS_PER_DAY
        spent_today = journal.totals(sandbox, since=midnight).spend.committed
    known = None if topped_up else before.remaining_credits
    if known is not None and budget.keep_credits is not None and journal is not None:
        known = journal.lowest_balance(sandbox)
    spent = committed_spend(before, opening_tariff(job, sandbox, before))
    return Ledger(caps_of(budget, spent, spent_today), budget.keep_credits, known)
