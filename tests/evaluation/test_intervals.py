"""Estimates and their intervals: against scipy and textbook formulas, and what must hold for any scores."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchrun.evaluation.statistics.intervals import (
    Estimate,
    Scores,
    estimate_clusters,
    estimate_rows,
    estimate_strata,
    t_quantile,
    wilson,
)

SCORE = st.floats(0, 1, width=32)
CELLS = st.lists(st.one_of(SCORE, st.just(float("nan"))), min_size=1, max_size=60)


def scored(*values: float) -> Scores:
    return np.array(values, np.float64)


def rows(scores: Scores, population: int | None = None, binary: bool = False) -> Estimate:
    estimate = estimate_rows(scores, population, binary)
    assert estimate is not None
    return estimate


def clusters(scores: Scores, codes: list[int], population: int | None = None) -> Estimate:
    estimate = estimate_clusters(scores, np.array(codes, np.int32), population)
    assert estimate is not None
    return estimate


def strata(scores: Scores, codes: list[int], sizes: list[int]) -> Estimate:
    estimate = estimate_strata(scores, np.array(codes, np.int32), np.array(sizes))
    assert estimate is not None
    return estimate


@given(st.integers(1, 3_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    right, n = counts
    known = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((known.low, known.high), abs=1e-9)


@given(st.integers(2, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_finite_population_narrows_wilson_to_nothing(counts: tuple[int, int]) -> None:
    """Within the infinite population's interval; narrower the more is asked; the share itself at the end."""
    right, n = counts
    share = right / n
    widths = []
    for population in (n, n + 1, 2 * n, 10 * n, 10**9):
        low, high = wilson(share, n, population)
        assert 0 <= low <= share <= high <= 1
        widths.append(high - low)
    assert widths[0] == 0
    assert widths == sorted(widths)
    assert wilson(share, n, 10**9) == pytest.approx(wilson(share, n), abs=1e-4)


def test_t_interval_is_scipys() -> None:
    scores = np.random.default_rng(1).beta(2, 1, 50)
    known = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    estimate = rows(scores)
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))
    assert estimate.method == "Student's t"
    corrected = rows(scores, population=200)
    assert corrected.half_width == pytest.approx(estimate.half_width * sqrt(150 / 200))
    assert t_quantile(10) == pytest.approx(2.228, abs=5e-4)


def test_scores_that_are_all_alike_are_not_taken_for_certain() -> None:
    """A t-interval of twenty full scores would have no width."""
    for estimate in (rows(np.ones(20)), clusters(np.ones(20), list(range(20)))):
        assert (estimate.value, estimate.high) == (1, 1)
        assert estimate.low == pytest.approx(stats.binomtest(20, 20).proportion_ci(0.95, "wilson").low)
    assert strata(np.ones(20), [0, 1] * 10, [50, 50]).low < 0.9


def test_clusters_of_one_size_give_the_usual_formula() -> None:
    """C / (C - 1) times the squares over clusters, C - 1 degrees of freedom: the t-interval of the means."""
    scores = np.random.default_rng(2).random(120)
    codes = np.repeat(np.arange(24), 5)
    known = stats.ttest_1samp(scores.reshape(24, 5).mean(axis=1), 0).confidence_interval(0.95)
    estimate = clusters(scores, codes.tolist())
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))
    assert estimate.warnings == ()


def test_clusters_of_unequal_sizes_are_jackknifed() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 12, 200)
    scores = rng.random(200)
    left_out = [scores[codes != code].mean() for code in range(12)]
    variance = 11 / 12 * sum((value - scores.mean()) ** 2 for value in left_out)
    squared = np.bincount(codes) ** 2
    effective = squared.sum() ** 2 / (squared**2).sum()
    estimate = clusters(scores, codes.tolist())
    assert estimate.half_width == pytest.approx(t_quantile(effective - 1) * sqrt(variance))
    assert estimate.warnings == ("only 12 clusters: under 20, the interval is a rough one",)


def test_rows_without_a_cluster_stand_alone() -> None:
    scores = np.random.default_rng(4).random(30)
    alone = clusters(scores, [-1] * 30)
    assert (alone.low, alone.high) == pytest.approx((rows(scores).low, rows(scores).high))


def test_one_cluster_says_nothing() -> None:
    estimate = clusters(scored(1, 0, 1), [0, 0, 0])
    assert (estimate.low, estimate.high) == (0, 1)
    assert estimate.warnings == ("only 1 cluster: under 20, the interval is a rough one",)


def test_strata_are_weighted_by_their_sizes() -> None:
    """Cochran's formulas, by hand: means 0.5 and 1 / 3, sizes 100 and 300."""
    estimate = strata(scored(0, 1, 0, 1, 1, 0, 0), [0, 0, 0, 0, 1, 1, 1], [100, 300])
    assert estimate.value == pytest.approx(0.25 * 0.5 + 0.75 / 3)
    parts = [100 * 96 / 4 / 3, 300 * 297 / 3 / 3]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * sqrt(sum(parts)) / 400
    assert (estimate.low, estimate.high) == pytest.approx(
        (max(estimate.value - half, 0), min(estimate.value + half, 1))
    )


def test_thin_strata_are_taken_together() -> None:
    """One row or none tells nothing about the spread within a stratum."""
    few = strata(scored(0, 1, 0, 1, 1, 0), [0, 0, 0, 0, 1, 2], [100, 10, 30, 5])
    assert few.value == pytest.approx((100 * 0.5 + 45 * 0.5) / 145)
    assert few.warnings == ("3 strata with fewer than two scored rows: taken together with others",)
    joined = strata(scored(0, 1, 0, 1, 1), [0, 0, 0, 0, 1], [100, 10])
    assert joined.value == pytest.approx(0.6)


@given(CELLS, st.integers(0, 100))
def test_missing_rows_are_counted_and_bounded(cells: list[float], more: int) -> None:
    """The bounds are the estimates with every missing row at 0 and at 1, whatever the design."""
    scores = scored(*cells)
    codes = [position % 3 for position in range(len(cells))]
    sizes = [codes.count(stratum) + more for stratum in range(3)]
    population = sum(sizes)
    for estimate, worst, best in (
        (
            estimate_rows(scores, population, False),
            rows(np.nan_to_num(scores, nan=0.0), population),
            rows(np.nan_to_num(scores, nan=1.0), population),
        ),
        (
            estimate_clusters(scores, np.array(codes, np.int32), population),
            clusters(np.nan_to_num(scores, nan=0.0), codes, population),
            clusters(np.nan_to_num(scores, nan=1.0), codes, population),
        ),
        (
            estimate_strata(scores, np.array(codes, np.int32), np.array(sizes)),
            strata(np.nan_to_num(scores, nan=0.0), codes, sizes),
            strata(np.nan_to_num(scores, nan=1.0), codes, sizes),
        ),
    ):
        if np.isnan(scores).all():
            assert estimate is None
            continue
        assert estimate is not None
        assert estimate.n + estimate.missing == len(cells)
        assert estimate.missing == np.isnan(scores).sum()
        assert 0 <= estimate.low <= estimate.value + 1e-9
        assert estimate.value <= estimate.high + 1e-9 <= 1 + 2e-9
        if estimate.missing:
            assert estimate.bounds == pytest.approx((worst.value, best.value))


@given(st.lists(SCORE, min_size=2, max_size=50))
def test_when_every_row_is_asked_nothing_is_left_open(cells: list[float]) -> None:
    scores = scored(*cells)
    for estimate in (rows(scores, len(cells)), clusters(scores, list(range(len(cells))), len(cells))):
        assert estimate.low == pytest.approx(estimate.value)
        assert estimate.high == pytest.approx(estimate.value)
