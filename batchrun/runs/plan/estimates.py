"""Estimates the cost of the rows to send: by a random sample, by earlier answers, or by a guess."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrun.engine.pricing import MILLION, PriceList
from batchrun.job.spec import Limits
from batchrun.journal import Totals
from batchrun.runs.plan.counts import BYTES_PER_TOKEN, Counts
from batchrun.runs.plan.ended_rows import EndedRows
from batchrun.runs.plan.sample import SampledRow

if TYPE_CHECKING:
    from batchrun.evaluation.statistics.forecast import Total

SHARE_OF_MAX_TOKENS = 0.5
"""The guess before any answer: answers use half of max_tokens."""

LEAST_ENDED = 2
"""Rows that have ended which are preferred to a guess: fewer tell nothing of the spread."""

LEAST_SAMPLE = 20
"""Rows of a random sample that are preferred to all other answers, unless a sample was requested."""


@dataclass(frozen=True, slots=True)
class ByLength:
    """The lengths of a sample's requests in bytes, and the sum of those of the rows to send."""

    sizes: Sequence[int] = ()
    size_to_send: int = 0


NO_PRICES = PriceList()
NO_LENGTHS = ByLength()


@dataclass(frozen=True, slots=True)
class Figure:
    """An amount, with its 95 % interval if it comes from a sample."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected use of the rows to send. `basis` names its source in a few words.

    `nano_usd` is None without prices, `seconds` where nothing is known of the time. `sample` is the number
    of rows in the random sample behind it, 0 where there is none.
    """

    input_tokens: Figure
    output_tokens: Figure
    nano_usd: Figure | None
    requests: Figure
    seconds: Figure | None
    basis: str
    sample: int = 0


def expected_of(
    counts: Counts,
    before: Totals,
    price_list: PriceList,
    limits: Limits,
    sample: Sequence[SampledRow],
    wanted: int,
    clustered: bool,
) -> Expected:
    """Estimates from the best source. `wanted` is the size of the requested sample, 0 without one."""
    if len(sample) >= (2 if wanted else LEAST_SAMPLE):
        by_sample = expected_by_sample(
            sample, counts.to_send, limits, wanted, clustered, counts.size_to_send, price_list
        )
        if by_sample is not None:
            return by_sample
    if counts.ended.rows >= LEAST_ENDED and counts.to_send:
        return _by_ended_rows(counts, price_list)
    saved = 0
    if before.answered and counts.to_send and not counts.in_progress:
        share = counts.requests / before.answered
        basis = f"the {before.answered:,} answers in the journal"
        tokens = (round(before.input_tokens * share), round(before.output_tokens * share))
        saved = round((counts.cached.saved(price_list) or 0) * share)
    else:
        basis = f"a guess: {BYTES_PER_TOKEN} bytes a token, answers of half of max_tokens"
        tokens = (counts.input_guess, int(counts.output_bound * SHARE_OF_MAX_TOKENS))
    return Expected(
        Figure(tokens[0]),
        Figure(tokens[1]),
        Figure(price_list.worst_case(*tokens).nano_usd - saved) if price_list.priced else None,
        Figure(counts.requests),
        None,
        basis,
    )


def expected_by_sample(
    sample: Sequence[SampledRow],
    to_send: int,
    limits: Limits,
    wanted: int,
    clustered: bool,
    size_to_send: int = 0,
    price_list: PriceList = NO_PRICES,
) -> Expected | None:
    """Estimates from a random sample of the rows: Student's t, with finite-population correction.

    Input tokens go by the lengths of the requests, in bytes, so do costs as far as they are for input. The
    population is all rows that were to be sent before the sample was drawn: the rows still to send, and
    the sample itself. Returns None if it is too small to estimate the spread.
    """
    spends = [row.spend for row in sample if row.spend is not None]
    clusters = [row.cluster for row in sample] if clustered else None
    by_length = ByLength([row.size for row in sample if row.spend is not None], size_to_send)
    known = EndedRows()
    for size, spend in zip(by_length.sizes, spends, strict=True):
        known.add(size, spend)
    per_byte = known.tokens_per_byte
    rest = [
        remaining_of([float(value) for value in values], to_send, clusters, by_length, slope)
        for values, slope in (
            ([spend.input_tokens for spend in spends], per_byte),
            ([spend.output_tokens for spend in spends], 0.0),
            ([spend.requests for spend in spends], 0.0),
            ([spend.milliseconds / 1000 for spend in spends], 0.0),
        )
    ]
    figures = [figure for figure in rest if figure is not None]
    if len(figures) < len(rest):
        return None
    costs = [float(spend.nano_usd) for spend in spends if spend.nano_usd is not None]
    short = f", of {wanted:,} that were asked for" if len(sample) < wanted else ""
    return Expected(
        figures[0],
        figures[1],
        remaining_of(costs, to_send, clusters, by_length, per_byte * _input_price(price_list))
        if len(costs) == len(spends)
        else None,
        figures[2],
        _seconds(figures[3], figures[2], (figures[0], figures[1]), limits),
        f"a random sample of {len(sample):,} rows{short}",
        len(sample),
    )


def remaining_of(
    values: Sequence[float],
    to_send: int,
    clusters: Sequence[int] | None,
    by_length: ByLength = NO_LENGTHS,
    per_byte: float = 0.0,
) -> Figure | None:
    """Returns the sum of a quantity over the `to_send` rows outside a random sample with these values.

    A row is expected to take `per_byte` for each byte, and besides what the sample took so on average: an
    estimate without bias whatever `per_byte` is (the difference estimator: Cochran 1977, Sampling Techniques,
    7.6), and the closer the better that is. `clusters`: their codes, where clusters were drawn. None for
    fewer than two rows or clusters.
    """
    import numpy as np

    from batchrun.evaluation.statistics.forecast import total_of

    codes = None if clusters is None else np.array(clusters, np.int32)
    beyond = np.array(values, np.float64)
    if per_byte:
        beyond -= per_byte * np.array(by_length.sizes, np.float64)
    total: Total | None = total_of(beyond, len(values) + to_send, codes)
    if total is None:
        return None
    value = per_byte * by_length.size_to_send + total.value - float(beyond.sum())
    return _figure(value, total.high - total.value)


def _figure(value: float, half: float) -> Figure:
    return Figure(max(value, 0.0), (max(value - half, 0.0), max(value + half, 0.0)))


def _input_price(price_list: PriceList) -> float:
    """Returns the price of an input token in nano-USD; 0 if it is unknown."""
    return (price_list.input_price or 0) / MILLION


def least_seconds(limits: Limits, requests: float, tokens: float) -> float | None:
    """Returns the least time under the given limits; None without limits."""
    given = ((requests, limits.requests_per_minute), (tokens, limits.tokens_per_minute))
    minutes = [amount / limit for amount, limit in given if limit is not None]
    return max(minutes) * 60 if minutes else None


def _seconds(busy: Figure, requests: Figure, tokens: tuple[Figure, Figure], limits: Limits) -> Figure:
    """Returns the responses' times at the job's concurrency, or the limits' time if longer."""

    def seconds(place: int | None) -> float:
        def at(figure: Figure) -> float:
            return figure.value if place is None or figure.interval is None else figure.interval[place]

        at_once = min(limits.concurrency, max(at(requests), 1))
        return max(at(busy) / at_once, least_seconds(limits, at(requests), sum(map(at, tokens))) or 0.0)

    return Figure(seconds(None), (seconds(0), seconds(1)))


def _by_ended_rows(counts: Counts, price_list: PriceList) -> Expected:
    """Estimates from the rows that have ended, with votes and repairs as they were needed.

    The intervals hold if they are like the others, but for their lengths.
    """
    from batchrun.evaluation.statistics.intervals import t_quantile

    ended, quantile = counts.ended, t_quantile(counts.ended.rows - 1)
    per_byte = ended.tokens_per_byte

    def rest(name: str, slope: float = 0.0) -> Figure:
        value, error = ended.rest(name, slope, counts.to_send, counts.size_to_send)
        return _figure(value, quantile * error)

    return Expected(
        rest("input_tokens", per_byte),
        rest("output_tokens"),
        rest("nano_usd", per_byte * _input_price(price_list)) if ended.is_priced else None,
        rest("requests"),
        None,
        f"the {ended.rows:,} rows in the journal that have ended, by length",
    )
