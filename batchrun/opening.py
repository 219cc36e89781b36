"""What a run begins with: its prices, and what earlier runs have spent."""

from batchrun.amounts import Amount
from batchrun.job import Job, prices
from batchrun.journal import Totals
from batchrun.pricing import Tariff, credits_rate


def opening_tariff(job: Job, sandbox: bool, before: Totals) -> Tariff:
    """The job's prices, and its rate of credits or else the highest that the journal has seen."""
    known = prices(job, sandbox)
    given = credits_rate(job.pricing.credits_per_million_tokens)
    return Tariff(
        None if known is None else known.input_nano_usd_per_million,
        None if known is None else known.output_nano_usd_per_million,
        before.credits_per_token if given is None else given,
    )


def committed_spend(before: Totals, tariff: Tariff) -> Amount:
    """What counts against a cap over the journal's life: settled and uncertain.

    What was reserved while no rate of credits was known is worth what the rate now says.
    """
    spend = before.spend.committed
    unpriced = tariff.credit_bound(before.spend.uncertain.tokens) - before.spend.uncertain.credits
    return spend._replace(credits=spend.credits + max(0, unpriced))
