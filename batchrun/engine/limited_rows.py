"""Rows that get only 429s while others get responses. Times are seconds of one monotonic clock."""

from batchrun.engine.accounting import ActiveRequest
from batchrun.engine.limits.sliding_window import MINUTE

LONGEST_WAIT = 5.0
"""Seconds between two attempts of such a row, unless the endpoint demands a longer wait."""
NOISE_ENDS = 5 * MINUTE
"""Seconds after which noise is ruled out, however few attempts the waits that were demanded have left."""


def refusals_end_the_row(
    active: ActiveRequest,
    sent_at: float,
    *,
    attempts: int,
    others_answered: float,
    left: float,
    by_chance: int,
) -> bool:
    """Counts a 429 of a request sent at `sent_at`; returns whether the row has had its `attempts` of them.

    A 429 counts if others got through since the row's last one (`others_answered`: when the latest of them
    was sent), or if the row is among the few that are `left` at the end of a run in which others were
    answered (infinite if it is not). The row ends only if noise brings fewer 429s (`by_chance`), and once the
    longest window of a limit has passed, a minute for each row that is left.
    """
    before, active.refused_at = active.refused_at, sent_at
    if active.first_refused is None or before is None:
        active.first_refused = sent_at
        return False
    few_are_left = left < float("inf")
    if not few_are_left and others_answered <= before:
        return False
    active.refusals += 1
    waited = sent_at - active.first_refused
    certain = active.refusals > by_chance or waited >= NOISE_ENDS
    return active.refusals >= attempts and certain and waited >= MINUTE * (left if few_are_left else 1)
