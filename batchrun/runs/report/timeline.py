"""A run over time, from the attempts' own times in a bounded number of intervals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from batchrun.amounts import NANO
from batchrun.journal.timeline import Interval

MOST_INTERVALS = 120
_SECOND, _HOUR = 1_000, 3_600_000
_WIDTHS = (
    *(50, 100, 200, 500, _SECOND, 2 * _SECOND, 5 * _SECOND, 10 * _SECOND, 20 * _SECOND, 30 * _SECOND),
    *(60 * _SECOND, 120 * _SECOND, 300 * _SECOND, 600 * _SECOND, 1_200 * _SECOND, 1_800 * _SECOND, _HOUR),
)
"""Milliseconds."""


@dataclass(frozen=True)
class Timeline:
    """Lists have an item for each interval. `ends` are its ends, in seconds from the run's start.

    Amounts are USD over the journal's life up to then. `answered` and `refused` are requests per second,
    `in_flight` requests at the interval's end.
    """

    width: float
    ends: list[float]
    settled: list[float]
    uncertain: list[float]
    answered: list[float]
    refused: list[float]
    in_flight: list[int]


def interval_width(milliseconds: int) -> int:
    """Returns a round width in milliseconds, so that there are at most `MOST_INTERVALS`."""
    least = max(1, milliseconds) / MOST_INTERVALS
    return next((width for width in _WIDTHS if width >= least), -int(-least // _HOUR) * _HOUR)


def timeline(
    ended: Iterable[Interval],
    begun: Mapping[int, int],
    width: int,
    length: int,
    before: tuple[int, int] = (0, 0),
) -> Timeline:
    """Returns the series of a run of `length` milliseconds.

    `before` are the settled and the uncertain nano-USD of earlier runs. What ended after the run, such as a
    request whose outcome nobody knows, counts in the last interval.
    """
    number = max(1, -(-length // width))
    settled, uncertain, answered, refused, ends = ([0] * number for _ in range(5))
    for interval in ended:
        place = min(max(interval.number, 0), number - 1)
        ends[place] += interval.attempts
        if interval.outcome == "answered":
            answered[place] += interval.attempts
            settled[place] += interval.nano_usd
        elif interval.outcome == "uncertain":
            uncertain[place] += interval.nano_usd
        refused[place] += interval.attempts * interval.refused
    begins = [0] * number
    for start, attempts in begun.items():
        begins[min(max(start, 0), number - 1)] += attempts
    seconds = width / 1000
    return Timeline(
        width=seconds,
        ends=[seconds * (place + 1) for place in range(number)],
        settled=[(before[0] + sum_so_far) / NANO for sum_so_far in accumulate(settled)],
        uncertain=[(before[1] + sum_so_far) / NANO for sum_so_far in accumulate(uncertain)],
        answered=[count / seconds for count in answered],
        refused=[count / seconds for count in refused],
        in_flight=list(accumulate(begin - end for begin, end in zip(begins, ends, strict=True))),
    )
