"""What the account's balance tells about requests whose outcome is unknown."""

import sqlite3
from collections.abc import Iterable
from functools import reduce

from batchrun.journal.records import AttemptRow
from batchrun.journal.totals import Sums, SumsByGroup

LATEST_BILL_MS = 600_000
"""A server may finish a request whose client has gone, and bill it then: for as long as that may take."""


def lowest_balance(sums: SumsByGroup, uncertain: Iterable[AttemptRow]) -> int | None:
    """Returns the account's least possible credits, if nobody else uses the key. None: no response said.

    Responses arrive out of order, so the lowest balance in the newest run with one counts, less the credits
    that requests without a known outcome may have used since then.
    """
    stated = [(group.run, part) for group, part in sums.items() if part.least_balance is not None]
    if not stated:
        return None
    newest = max(run for run, _ in stated)
    least = reduce(Sums.plus, (part for run, part in stated if run == newest))
    balance, since = least.least_balance or 0, least.least_balance_at or 0
    return balance - sum(row.credits for row in uncertain if row.finished_at >= since)


def uncertain_credits(connection: sqlite3.Connection, kind: str) -> int | None:
    """Returns the credits that uncertain requests really used, by the account's balance.

    `kind` is a condition on attempts. None where that is unknown: a response stated no balance, uncertain
    requests were sent before the first response or ended after the last, or the clock was set back. Correct
    only if nobody else uses the key and it wasn't topped up.
    """
    began, ended, bound, before_begin = connection.execute(
        "SELECT min(started_at), max(finished_at), sum(credits), sum(finished_at < started_at)"
        f" FROM attempts WHERE outcome = 'uncertain' AND {kind}"
    ).fetchone()
    if began is None or before_begin:
        return None
    first, last, silent, used, most, least, before_begin = connection.execute(
        "SELECT min(finished_at), max(started_at), count(*) - count(remaining_credits), sum(credits),"
        " max(remaining_credits + credits), min(remaining_credits), sum(finished_at < started_at)"
        f" FROM attempts WHERE outcome = 'answered' AND {kind}"
    ).fetchone()
    if first is None or silent or before_begin or not (first < began and ended < last):
        return None
    rest = int(most - least - used)
    return rest if 0 <= rest <= bound else None


def most_billed(connection: sqlite3.Connection, kind: str) -> int | None:
    """Returns how many uncertain requests at most have been billed, by the account's balance.

    A billed request takes at least a credit. None where the balance proves nothing: `uncertain_credits` is
    unknown, a response took no credit, the balance rose in between, as by a top-up or another account, or a
    request may be billed only now.
    Someone else who uses the key only makes the number larger.
    """
    rest = uncertain_credits(connection, kind)
    if rest is None:
        return None
    (ended,) = connection.execute(
        f"SELECT max(finished_at) FROM attempts WHERE outcome = 'uncertain' AND {kind}"
    ).fetchone()
    least, last = connection.execute(
        f"SELECT min(credits), max(started_at) FROM attempts WHERE outcome = 'answered' AND {kind}"
    ).fetchone()
    if least <= 0 or last - ended < LATEST_BILL_MS or _rises(connection, kind):
        return None
    return rest


def _rises(connection: sqlite3.Connection, kind: str) -> bool:
    """Returns whether a response found more in the account than another that had ended before it was sent."""
    answered = f"FROM attempts WHERE outcome = 'answered' AND {kind}"
    ends = connection.execute(f"SELECT finished_at, remaining_credits {answered} ORDER BY finished_at")
    end = ends.fetchone()
    lowest = None
    for started_at, found in connection.execute(
        f"SELECT started_at, remaining_credits + credits {answered} ORDER BY started_at"
    ):
        while end is not None and end[0] < started_at:
            lowest = end[1] if lowest is None else min(lowest, end[1])
            end = ends.fetchone()
        if lowest is not None and found > lowest:
            return True
    return False
