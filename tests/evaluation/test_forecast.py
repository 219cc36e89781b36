"""What a pilot promises: rows that the budget buys, and how wide the interval comes out."""

import numpy as np
import pytest
from scipy import stats

from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.statistics.forecast import Forecast, forecast, forecast_text, total_of
from batchrun.evaluation.statistics.intervals import estimate_clusters, estimate_rows, estimate_strata
from batchrun.evaluation.statistics.sampling_order import (
    cluster_order,
    groups_of,
    random_order,
    stratified_order,
)
from batchrun.runs.plan.forecast import at_the_widest
from tests.evaluation.population import Floats, capped_run, population

PILOT = 50


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "runs", [150, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_half_width_comes_out_within_a_fifth_in_nine_runs_of_ten(runs: int, binary: bool) -> None:
    """A pilot of 50 rows, then the capped run through the ledger."""
    rows = population()
    scores = rows.right if binary else rows.share
    cap = int(rows.cost.sum()) // 10
    near = near_rows = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        order = rng.permutation(scores.size)
        pilot = order[:PILOT]
        costs = rows.cost[pilot].astype(np.float64)
        worst_case = float(rows.worst_case[pilot].mean())
        promised = forecast(scores[pilot], costs, cap - costs.sum(), scores.size, binary, worst_case)
        started = capped_run(order, rows, cap, rng).started
        actual = estimate_rows(scores[started], scores.size, binary)
        assert actual is not None
        assert promised.half_width is not None
        near += abs(promised.half_width / actual.half_width - 1) <= 0.2
        near_rows += abs(promised.rows / len(started) - 1) <= 0.2
    print(f"{runs} runs: half-width within a fifth in {near / runs:.4f}, rows in {near_rows / runs:.4f}")
    assert near / runs >= (0.9 if runs == 2_000 else 0.85)
    assert near_rows / runs >= 0.9


def test_clusters_widen_the_forecast_as_they_widen_the_interval() -> None:
    """Twenty clusters as the pilot, a hundred in the end; rows taken for independent would promise half."""
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(500, dtype=np.int32), 10)
    scores = (rng.random(5_000) < np.repeat(rng.beta(3, 1, 500), 10)).astype(np.float64)
    pilot, whole = slice(0, 200), slice(0, 1_000)
    promised = forecast(scores[pilot], np.ones(200), 800, 5_000, True, clusters=clusters[pilot])
    plain = forecast(scores[pilot], np.ones(200), 800, 5_000, True)
    actual = estimate_clusters(scores[whole], clusters[whole], 5_000)
    assert actual is not None
    assert promised.half_width is not None
    assert plain.half_width is not None
    assert promised.rows == 1_000
    assert promised.half_width == pytest.approx(actual.half_width, rel=0.25)
    assert plain.half_width < 0.75 * actual.half_width


def test_the_widest_interval_of_a_plan_is_about_what_comes_out_for_rows_strata_and_clusters() -> None:
    """100 of 303 rows, half of which score 1. Strata don't tell the scores, clusters do."""
    rng = np.random.default_rng(2)
    rows, bought = 303, 100
    names = [f"group {number}" for number in range(101)]
    groups = groups_of([names[row // 3] for row in range(rows)])
    by_row = (rng.random(rows) < 0.5).astype(np.float64)
    by_cluster = (rng.random(101) < 0.5).astype(np.float64)[groups.codes]
    sizes = np.bincount(groups.codes)
    widths: dict[str, list[float]] = {"rows": [], "strata": [], "clusters": []}
    for seed in range(100):
        plain = random_order(range(rows), seed)[:bought]
        strata = stratified_order(range(rows), groups, seed)[:bought]
        whole = cluster_order(range(rows), groups, seed)[:bought]
        for name, estimate in (
            ("rows", estimate_rows(by_row[plain], rows, True)),
            ("strata", estimate_strata(by_row[strata], groups.codes[strata], sizes)),
            ("clusters", estimate_clusters(by_cluster[whole], groups.codes[whole], rows)),
        ):
            assert estimate is not None
            widths[name].append(estimate.half_width)
    frame = SamplingFrame(np.arange(rows), np.ones(rows, np.bool_), groups)
    plain_promise = at_the_widest(0, frame, bought, 1.0, clustered=False)
    cluster_promise = at_the_widest(0, frame, bought, 1.0, clustered=True)
    assert plain_promise.rows == cluster_promise.rows == bought
    for name, promised in (("rows", plain_promise), ("strata", plain_promise), ("clusters", cluster_promise)):
        assert promised.half_width is not None
        came_out = float(np.mean(widths[name]))
        print(f"{name}: {promised.half_width:.4f} promised, {came_out:.4f} on average")
        assert promised.half_width == pytest.approx(came_out, rel=0.15)


def scores_of(*values: float) -> Floats:
    return np.array(values, np.float64)


def test_rows_are_what_the_rest_of_the_budget_buys() -> None:
    costs = scores_of(1, 3)
    assert forecast(scores_of(1, 0), costs, 20, 1_000, True).rows == 12
    assert forecast(scores_of(1, 0), costs, 20, 1_000, True, worst_case=10).rows == 8
    assert forecast(scores_of(1, 0), costs, 0, 1_000, True).rows == 2
    assert forecast(scores_of(1, 0), costs, 10**6, 1_000, True) == Forecast(1_000, 1_000, 0)
    assert forecast(scores_of(1, 0), scores_of(0, 0), 0, 1_000, True).rows == 1_000


def test_a_pilot_that_tells_nothing_promises_nothing() -> None:
    nan = float("nan")
    assert forecast(scores_of(nan, nan), scores_of(1, 1), 50, 100, True).half_width is None
    one_cluster = np.zeros(2, np.int32)
    assert forecast(scores_of(1, 0), scores_of(1, 1), 50, 100, True, clusters=one_cluster).half_width is None
    with pytest.raises(ValueError, match="cost of one row"):
        forecast(scores_of(), scores_of(), 50, 100, True)


def test_missing_rows_of_the_pilot_will_be_missing_later_too() -> None:
    some = forecast(scores_of(1, 0, 1, float("nan")), np.ones(4), 396, 10_000, True)
    full = forecast(scores_of(1, 0, 1), np.ones(3), 297, 10_000, True)
    assert some.half_width == pytest.approx(full.half_width)


@pytest.mark.parametrize(
    ("promised", "text"),
    [
        (Forecast(1_912, 10_000, 0.0161), "2.00 USD buys about 1,900 of 10,000 rows: accuracy +- 1.6 points"),
        (Forecast(87, 10_000, 0.1), "2.00 USD buys about 87 of 10,000 rows: accuracy +- 10.0 points"),
        (Forecast(123_456, 10**6, None), "2.00 USD buys about 120,000 of 1,000,000 rows"),
        (Forecast(500, 500, 0.0), "2.00 USD buys all 500 rows"),
    ],
)
def test_text(promised: Forecast, text: str) -> None:
    assert forecast_text(promised, "2.00 USD", "accuracy") == text


def test_total_is_scipys_interval_of_the_mean_times_the_rows() -> None:
    values = np.random.default_rng(1).lognormal(0, 0.5, 40)
    total = total_of(values, 10**12)
    known = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert total is not None
    assert (total.value, total.low, total.high) == pytest.approx(
        (10**12 * values.mean(), 10**12 * known.low, 10**12 * known.high)
    )


def test_total_of_all_is_exact_and_of_one_unknown() -> None:
    values = scores_of(1, 5, 3)
    everything = total_of(values, 3)
    assert everything is not None
    assert (everything.value, everything.low, everything.high) == (9, 9, 9)
    assert total_of(scores_of(7), 10) is None
    wild = total_of(scores_of(0, 100), 1_000)
    assert wild is not None
    assert wild.low == 100


def test_interval_of_a_total_covers_it() -> None:
    """2,000 samples of 200 of the population's skewed costs."""
    cost = population().cost.astype(np.float64)
    covered = 0
    for seed in range(2_000):
        total = total_of(np.random.default_rng(seed).choice(cost, 200, replace=False), cost.size)
        assert total is not None
        covered += total.low <= cost.sum() <= total.high
    assert 0.935 <= covered / 2_000 <= 0.965
