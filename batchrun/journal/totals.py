"""Sums over the journal."""

import sqlite3
from fractions import Fraction

from batchrun.amounts import Amount
from batchrun.journal.records import Outcome, Overrun, Spend, Totals


def sum_up(connection: sqlite3.Connection, where: str) -> Totals:
    """Over the attempts and intents that the condition `where` holds for.

    By plain scans, since a GROUP BY over a million answers would sort them.
    """
    *answered, credits_of_dearest, tokens_of_dearest, rate = connection.execute(
        # SQLite takes the other columns of a lone max() from the row that has the maximum.
        "SELECT count(*), ifnull(sum(nano_usd), 0), ifnull(sum(credits), 0), ifnull(sum(tokens), 0),"
        " ifnull(sum(input_tokens), 0), ifnull(sum(output_tokens), 0), ifnull(sum(number > 1), 0),"
        " credits, tokens, max(CAST(credits AS REAL) / tokens)"
        f" FROM attempts WHERE outcome = 'answered' AND {where}"
    ).fetchone()
    others = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT outcome, count(*), ifnull(sum(nano_usd), 0), sum(credits), sum(tokens),"
            " sum(number > 1), sum(final)"
            f" FROM attempts WHERE outcome <> 'answered' AND {where} GROUP BY outcome"
        )
    }
    refused, uncertain = (others.get(outcome, (0,) * 6) for outcome in (Outcome.REFUSED, Outcome.UNCERTAIN))
    in_flight = connection.execute(
        "SELECT count(*), ifnull(sum(nano_usd), 0), ifnull(sum(credits), 0), ifnull(sum(tokens), 0),"
        f" ifnull(sum(number > 1), 0) FROM intents WHERE {where}"
    ).fetchone()
    return Totals(
        spend=Spend(Amount(answered[1], answered[2], answered[3], answered[0]), Amount(*uncertain[1:4])),
        open=Amount(*in_flight[1:4]),
        open_intents=in_flight[0],
        requests=answered[0] + refused[0] + uncertain[0] + in_flight[0],
        retried=answered[6] + refused[4] + uncertain[4] + in_flight[4],
        answered=answered[0],
        failed=refused[5] + uncertain[5],
        uncertain=uncertain[0],
        input_tokens=answered[4],
        output_tokens=answered[5],
        remaining_credits=_remaining_credits(connection, where),
        credits_per_token=Fraction(credits_of_dearest, tokens_of_dearest) if rate else None,
        overruns=_overruns(connection, where),
        by_error=_by_error(connection, where),
    )


def _remaining_credits(connection: sqlite3.Connection, where: str) -> int | None:
    newest = connection.execute(
        f"SELECT remaining_credits FROM attempts WHERE {where} AND outcome = 'answered'"
        " ORDER BY attempt DESC LIMIT 1"
    ).fetchone()
    return newest[0] if newest else None


def _overruns(connection: sqlite3.Connection, where: str) -> tuple[Overrun, ...]:
    found = connection.execute(
        "SELECT ifnull(nano_usd, 0), tokens, input_bound, output_bound"
        f" FROM overruns JOIN attempts USING (attempt) WHERE {where} ORDER BY attempt"
    )
    return tuple(map(Overrun._make, found))


def _by_error(connection: sqlite3.Connection, where: str) -> dict[str, int]:
    return dict(
        connection.execute(
            "SELECT error_code, count(*) FROM attempts"
            f" WHERE outcome <> 'answered' AND {where} GROUP BY error_code"
        )
    )
