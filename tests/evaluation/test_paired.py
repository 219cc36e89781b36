"""Two jobs compared: the difference, its interval and the p-value, against scipy and by simulation."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchrun.evaluation.statistics.intervals import Scores
from batchrun.evaluation.statistics.paired import Comparison, agresti_min, compare, mcnemar, mean_difference
from tests.evaluation.population import Floats, population

NAN = float("nan")
SCORES = st.lists(
    st.tuples(*[st.one_of(st.floats(0, 1, width=32), st.just(NAN))] * 2), min_size=1, max_size=40
)


def compared(
    a: Scores,
    b: Scores,
    population: int | None = None,
    binary: bool = False,
    clusters: list[int] | None = None,
) -> Comparison:
    codes = None if clusters is None else np.array(clusters, np.int32)
    comparison = compare(a, b, population, binary, codes)
    assert comparison is not None
    return comparison


def scores(*values: float) -> Floats:
    return np.array(values, np.float64)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(higher: int, lower: int) -> None:
    known = stats.binomtest(higher, higher + lower).pvalue if higher + lower else 1.0
    assert mcnemar(higher, lower) == pytest.approx(known)


def test_paired_t_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(80), rng.random(80)
    known = stats.ttest_rel(a, b)
    comparison = compared(a, b)
    assert comparison.p_value == pytest.approx(known.pvalue)
    interval = known.confidence_interval(0.95)
    difference = comparison.difference
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    corrected = compared(a, b, population=100)
    assert corrected.difference.half_width == pytest.approx(difference.half_width * sqrt(0.2))
    assert corrected.p_value == comparison.p_value


def test_agresti_min_by_hand() -> None:
    """30 and 10 of 200 rows differ; the table has 1/2 added to each of its four cells."""
    up, down, rows = 30.5 / 202, 10.5 / 202, 202
    half = stats.norm.ppf(0.975) * sqrt((up + down - (up - down) ** 2) / rows)
    assert agresti_min(30, 10, 200) == pytest.approx((up - down - half, up - down + half))
    assert agresti_min(30, 10, 200, 200) == (0.1, 0.1)
    assert agresti_min(30, 10, 200, 201) == pytest.approx((0.1, 0.1), abs=0.01)


def test_clusters_of_one_size_are_compared_by_their_means() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(120), rng.random(120)
    known = stats.ttest_1samp((a - b).reshape(24, 5).mean(axis=1), 0)
    comparison = compared(a, b, clusters=np.repeat(np.arange(24), 5).tolist())
    assert comparison.p_value == pytest.approx(known.pvalue)
    assert comparison.test == "t test over clusters"


def test_jobs_that_never_differ_are_not_proved_alike() -> None:
    same = np.ones(50)
    for comparison in (
        compared(same, same),
        compared(same, same, binary=True),
        compared(same, same, clusters=list(range(50))),
    ):
        assert comparison.p_value == 1
        assert comparison.difference.value == 0
        assert comparison.difference.low < -0.02
        assert comparison.difference.high > 0.02


def test_differences_that_are_all_alike_are_judged_by_their_sign() -> None:
    comparison = compared(np.full(10, 0.5), np.full(10, 0.25))
    assert comparison.test == "sign test"
    assert comparison.p_value == pytest.approx(2 / 2**10)
    assert (comparison.higher, comparison.lower) == (10, 0)


def test_one_cluster_decides_nothing() -> None:
    comparison = compared(scores(1, 1, 0), scores(0, 0, 1), clusters=[0, 0, 0])
    assert (comparison.p_value, comparison.difference.low, comparison.difference.high) == (1, -1, 1)


def test_rows_that_lack_a_score_are_missing_and_bounded() -> None:
    """The known one of two scores narrows the bounds."""
    comparison = compared(scores(1, 1, NAN, NAN), scores(0, NAN, 1, NAN), binary=True)
    assert (comparison.difference.n, comparison.difference.missing) == (1, 3)
    assert comparison.difference.value == 1
    assert comparison.difference.bounds == ((1 + 0 - 1 - 1) / 4, (1 + 1 + 0 + 1) / 4)
    assert compare(scores(NAN, 1), scores(1, NAN), None, True) is None


@given(SCORES)
def test_the_other_way_round_is_the_opposite(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    clusters = np.arange(a.size, dtype=np.int32) // 2
    for codes in (None, clusters):
        there, back = compare(a, b, 100, False, codes), compare(b, a, 100, False, codes)
        if there is None or back is None:
            assert there is back is None
            continue
        assert there.difference.value == -back.difference.value
        assert there.difference.low == pytest.approx(-back.difference.high)
        assert there.p_value == pytest.approx(back.p_value)
        assert 0 <= there.p_value <= 1
        assert there.difference.bounds == pytest.approx(
            (-back.difference.bounds[1], -back.difference.bounds[0])
        )
        assert there.difference.low - 1e-9 <= there.difference.value <= there.difference.high + 1e-9


@pytest.mark.parametrize("binary", [True, False])
def test_a_difference_that_is_not_there_is_found_in_one_comparison_of_twenty(binary: bool) -> None:
    """2,000 comparisons of two equally good jobs over 2,000 rows like those of the population."""
    rows = population()
    chance = rows.share
    found = outside = 0
    for seed in range(2_000):
        rng = np.random.default_rng(seed)
        hardness = rng.choice(chance, 2_000)
        a, b = (
            (rng.random(2_000) < hardness).astype(np.float64)
            if binary
            else np.clip(hardness + rng.normal(0, 0.2, 2_000), 0, 1)
            for _ in range(2)
        )
        comparison = compared(a, b, binary=binary)
        found += comparison.p_value <= 0.05
        outside += not comparison.difference.low <= 0 <= comparison.difference.high
    print(f"2,000 times: p <= 0.05 in {found / 2_000:.4f}, 0 outside the interval in {outside / 2_000:.4f}")
    assert 0.04 <= found / 2_000 <= 0.06
    assert 0.04 <= outside / 2_000 <= 0.06


def test_the_interval_of_a_difference_covers_that_of_the_data_set() -> None:
    """2,000 samples of 500 of 5,000 rows, on which the second job is worse where rows are long."""
    rows = population()
    rng = np.random.default_rng(7)
    second = np.where(rng.random(rows.right.size) < 0.1 * rows.cost / rows.cost.mean(), 0, rows.right)
    second = np.where(rng.random(rows.right.size) < 0.05, 1 - second, second)
    true = rows.right.mean() - second.mean()
    covered = 0
    for _ in range(2_000):
        asked = rng.choice(rows.right.size, 500, replace=False)
        difference = compared(rows.right[asked], second[asked], rows.right.size, binary=True).difference
        covered += difference.low <= true <= difference.high
    print(f"2,000 times: coverage {covered / 2_000:.4f}")
    assert 0.94 <= covered / 2_000 <= 0.96


def test_a_difference_of_costs_is_the_paired_t_interval() -> None:
    a, b = scores(1.0, 2.5, 3.0, 4.5, NAN), scores(0.5, 2.0, 3.5, 2.0, 1.0)
    found = mean_difference(a, b, None)
    assert found is not None
    known = stats.ttest_rel(a[:4], b[:4]).confidence_interval(0.95)
    assert found.value == pytest.approx(0.75)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    of_all = mean_difference(a, b, 4)
    assert of_all is not None
    assert of_all.low == of_all.high == pytest.approx(0.75)
    assert mean_difference(a[:1], b[:1], None) is None


def test_costs_of_few_clusters_tell_less_than_their_rows() -> None:
    a, b = scores(*[1.0] * 10, *[3.0] * 10), scores(*[0.0] * 20)
    rows, clusters = (mean_difference(a, b, None, codes) for codes in (None, np.repeat([0, 1], 10)))
    assert rows is not None
    assert clusters is not None
    assert clusters.high - clusters.low > 5 * (rows.high - rows.low)
    assert mean_difference(a, b, None, np.zeros(20, np.int32)) is None
