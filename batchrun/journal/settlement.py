"""Books uncertain spend by what is known of it later, in place of its worst case.

What is known is the provider's own bill, or the account's balance. A note in the attempt's error tells the
amount that was booked before, so that the worst case stays known.
"""

import re
from collections.abc import Sequence

from batchrun.amounts import usd_text
from batchrun.errors import UsageError
from batchrun.journal.attempt_rows import rebooked
from batchrun.journal.records import AttemptRow

BY_BILL = "Its cost was settled by the provider's bill."
BY_BALANCE = "It was not billed, by the account's balance."
_WORST_CASE = re.compile(f"(?:{re.escape(BY_BILL)}|{re.escape(BY_BALANCE)}) It was ([0-9]+) nano-USD")


def settlement_of(uncertain: Sequence[AttemptRow], nano_usd: int) -> list[AttemptRow]:
    """Returns the records of uncertain attempts with `nano_usd` booked in total.

    Each has a share in proportion to its worst case, exact to the nano-USD. Credits and tokens stay
    unchanged. Raises UsageError for more than the worst case, unless no request had a price.
    """
    worst = [_worst_case(row) for row in uncertain]
    if 0 < sum(worst) < nano_usd:
        raise UsageError(
            f"--uncertain: {usd_text(nano_usd)} is more than the uncertain requests can have cost:"
            f" their worst case is {usd_text(sum(worst))}.\nSettled requests are no part of this amount."
        )
    amounts = shares(nano_usd, worst)
    return [rebooked(row, amount, BY_BILL) for row, amount in zip(uncertain, amounts, strict=True)]


def unbilled(uncertain: Sequence[AttemptRow], most_billed: int) -> list[AttemptRow]:
    """Returns the uncertain attempts for which nothing has to be booked, as they are now.

    At most `most_billed` have been billed. If that many of the most expensive keep their worst cases, these
    bound the bill, in USD, credits and tokens. What a bill has settled stays as it is.
    """
    open_ones = [row for row in uncertain if BY_BILL not in (row.error or "")]
    kept: set[int] = set()
    for cost in (lambda row: row.nano_usd or 0, lambda row: row.credits, lambda row: row.tokens):
        kept.update(row.attempt for row in sorted(open_ones, key=cost, reverse=True)[:most_billed])
    free = (row for row in open_ones if row.attempt not in kept)
    return [row for row in free if row.nano_usd or row.credits or row.tokens]


def free_of_charge(row: AttemptRow) -> AttemptRow:
    return rebooked(row._replace(credits=0, tokens=0), 0, BY_BALANCE)


def _worst_case(row: AttemptRow) -> int:
    noted = _WORST_CASE.search(row.error or "")
    return (row.nano_usd or 0) if noted is None else int(noted[1])


def shares(total: int, weights: list[int]) -> list[int]:
    """Returns whole shares of `total` in proportion to `weights`; equal ones where all weights are 0."""
    if not any(weights):
        weights = [1] * len(weights)
    taken = given = 0
    whole = sum(weights)
    parts = []
    for weight in weights:
        taken += weight
        part = total * taken // whole - given
        given += part
        parts.append(part)
    return parts
