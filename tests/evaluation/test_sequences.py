"""Confidence sequences: their definition, what is certain, and how often peeking decides wrongly."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from batchrun.evaluation.statistics.confidence_sequences import (
    ConfidenceSequence,
    InOrder,
    cluster_sequence,
    row_sequence,
)
from batchrun.evaluation.statistics.intervals import t_quantile
from tests.evaluation.population import Floats, population

BITS = st.lists(st.integers(0, 1), min_size=1, max_size=40)
LONG = [pytest.mark.slow, pytest.mark.timeout(600)]
SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)


def wrong_decisions(
    sequence_of: Callable[[], ConfidenceSequence], drawn: list[float | None], mean: float
) -> bool:
    """Whether looking after every row ever decides that the mean is above or below itself."""
    sequence = sequence_of()
    for score in drawn:
        sequence.add(score)
        if sequence.decided_above(mean) or sequence.decided_below(mean):
            return True
    return False


@given(BITS, st.randoms(use_true_random=False))
def test_ratio_is_that_of_the_definition(bits: list[int], draw: random.Random) -> None:
    """Every number of ones whose prior is under 20 times its posterior, by scipy's beta-binomial."""
    units = len(bits) + draw.randint(0, 60)
    sequence = row_sequence(units, binary=True)
    numbers = np.arange(units + 1)
    kept = np.ones(units + 1, bool)
    for seen, bit in enumerate(bits, 1):
        sequence.add(bit)
        ones = sum(bits[:seen])
        posterior = stats.betabinom(units - seen, 1 + ones, 1 + seen - ones).logpmf(numbers - ones)
        ratio = -np.log(units + 1) - posterior
        assume(np.abs(ratio - np.log(20)).min() > 1e-9)  # a tie is decided by rounding
        kept &= ratio < np.log(20)
        if kept.any():
            assert (sequence.low, sequence.high) == (numbers[kept][0] / units, numbers[kept][-1] / units)


@given(SHARES, st.booleans(), st.integers(0, 100))
def test_ends_only_close_in_and_stay_in_order(scores: list[float], whole: bool, more: int) -> None:
    drawn = [round(score) for score in scores] if whole else scores
    sequence = row_sequence(len(scores) + more, binary=whole)
    low, high = 0.0, 1.0
    for score in drawn:
        sequence.add(score)
        assert 0 <= sequence.low <= sequence.high <= 1
        assert sequence.low >= low - 1e-12
        assert sequence.high <= high + 1e-12
        low, high = sequence.low, sequence.high
    if not more:
        assert low == pytest.approx(np.mean(drawn))
        assert high == pytest.approx(np.mean(drawn))


def test_betting_rules_out_what_the_formula_says() -> None:
    """The capitals of two candidates, step by step, in plain Python."""
    scores = np.random.default_rng(0).beta(6, 2, 150).tolist()
    sequence = row_sequence(400, binary=False, thresholds=[0.6, 0.66])
    decided = {0.6: 0, 0.66: 0}
    for seen, score in enumerate(scores, 1):
        sequence.add(score)
        for candidate, first in decided.items():
            if not first and sequence.decided_above(candidate):
                decided[candidate] = seen
    for candidate, first in decided.items():
        capital, squares = 1.0, 0.25
        for seen, score in enumerate(scores, 1):
            rest = (400 * candidate - sum(scores[: seen - 1])) / (400 - seen + 1)
            bet = min(np.sqrt(2 * np.log(40) / (squares * np.log(seen + 1))), 0.75 / rest)
            capital *= 1 + bet * (score - rest)
            squares += (score - (0.5 + sum(scores[:seen])) / (seen + 1)) ** 2
            if capital >= 40:
                break
        assert seen == first > 0


def test_thresholds_are_decided_exactly_at_the_end() -> None:
    """7 of 10 is neither above nor below 0.7, though it is both above 0.6 and below 0.8."""
    for binary in (True, False):
        sequence = row_sequence(10, binary, thresholds=[0.6, 0.7, 0.8])
        for score in (1, 1, 1, 0, 1, 0, 1, 0, 1, 1):
            sequence.add(score)
        assert not sequence.decided_above(0.7)
        assert not sequence.decided_below(0.7)
        assert sequence.low == pytest.approx(0.7)


@given(SHARES, st.booleans(), st.floats(0.01, 0.99))
def test_once_every_row_is_known_so_is_the_decision(
    scores: list[float], whole: bool, threshold: float
) -> None:
    """Whatever was decided on the way: one run in twenty may have been wrong until then."""
    drawn = [float(round(score)) for score in scores] if whole else scores
    sequence = row_sequence(len(drawn), whole, [threshold])
    for score in drawn:
        sequence.add(score)
    mean = float(np.mean(drawn))
    assume(abs(mean - threshold) > 1e-6)
    assert sequence.decided_above(threshold) == (mean > threshold)
    assert sequence.decided_below(threshold) == (mean < threshold)


def test_a_sequence_that_has_erred_is_put_right_in_the_end() -> None:
    """An order as it is hardly ever drawn: all ones first."""
    for binary in (True, False):
        sequence = row_sequence(100, binary, [0.5])
        for seen in range(100):
            sequence.add(float(seen < 40))
            if seen == 39:
                assert sequence.decided_above(0.5)
        assert sequence.low == pytest.approx(0.4)
        assert sequence.high == pytest.approx(0.4)
        assert sequence.decided_below(0.5)
        assert not sequence.decided_above(0.5)


def test_missing_scores_count_for_the_other_side() -> None:
    """Half of the rows missing: neither side may be decided by them."""
    for binary in (True, False):
        sequence = row_sequence(200, binary)
        for position in range(200):
            sequence.add(None if position % 2 else 1)
        assert (sequence.n, sequence.missing) == (100, 100)
        assert sequence.low <= 0.5 < sequence.high == 1
        assert not sequence.decided_above(0.5)
        estimate = sequence.estimate()
        assert estimate is not None
        assert (estimate.value, estimate.bounds) == (1, (0.5, 1))


def test_nothing_is_known_before_the_first_row() -> None:
    for sequence in (row_sequence(9, True), row_sequence(9, False), cluster_sequence(9, 3, 4)):
        assert (sequence.low, sequence.high, sequence.estimate()) == (0, 1, None)
        assert not sequence.decided_above(0.001)
        assert not sequence.decided_below(0.999)


@given(st.lists(SHARES, min_size=1, max_size=12), st.floats(0.1, 0.9))
def test_whole_clusters_end_at_the_mean_of_the_rows(groups: list[list[float]], reference: float) -> None:
    rows = [score for group in groups for score in group]
    largest = max(map(len, groups))
    sequence = cluster_sequence(len(rows), len(groups), largest, reference=reference)
    for group in groups:
        sequence.add(*group)
        assert 0 <= sequence.low <= sequence.high <= 1
    assert sequence.n == len(rows)
    assert sequence.low == pytest.approx(np.mean(rows), abs=1e-6)
    assert sequence.high == pytest.approx(np.mean(rows), abs=1e-6)


@given(st.permutations(range(12)))
def test_answers_out_of_order_are_handed_on_in_order(arrivals: list[int]) -> None:
    handed: list[float | None] = []
    in_order = InOrder(handed.append)
    for count, position in enumerate(arrivals, 1):
        in_order.arrived(position, position / 12)
        complete = next(first for first in range(13) if first not in arrivals[:count])
        assert handed == [known / 12 for known in range(complete)]


def test_a_look_is_cheap_in_a_large_population() -> None:
    """Ten million rows: no work in proportion to them. Sums over them would take minutes."""
    sequence = row_sequence(10**7, binary=True)
    draw = random.Random(1)
    for _ in range(5_000):
        sequence.add(float(draw.random() < 0.8))
    assert sequence.low < 0.8 < sequence.high
    assert sequence.half_width < 0.03


@pytest.mark.parametrize("runs", [300, pytest.param(2_000, marks=LONG)])
def test_peeking_at_the_sequence_decides_wrongly_in_at_most_one_run_of_twenty(runs: int) -> None:
    """A look after each of 500 rows of 5,000. A t-interval is wrong in more than every fourth run."""
    rows = population()
    mean = float(rows.right.mean())
    t_points = np.array([np.inf, *(t_quantile(seen - 1) for seen in range(2, 501))])
    wrong = wrong_by_t = 0
    for seed in range(runs):
        drawn = np.random.default_rng(seed).permutation(rows.right)[:500]
        wrong += wrong_decisions(lambda: row_sequence(rows.right.size, True), drawn.tolist(), mean)
        wrong_by_t += peeking_at_t_is_wrong(drawn, mean, t_points)
    print(f"{runs} runs: wrong in {wrong / runs:.4f}, by a t-interval in {wrong_by_t / runs:.4f}")
    assert wrong / runs <= 0.05
    assert wrong_by_t / runs >= 0.25


def peeking_at_t_is_wrong(drawn: Floats, mean: float, t_points: Floats) -> bool:
    """From 20 rows on, so that it isn't the small samples."""
    seen = np.arange(1, drawn.size + 1)
    means = np.cumsum(drawn) / seen
    variances = np.maximum(means * (1 - means), 1e-12) / np.maximum(seen - 1, 1)
    return bool((np.abs(means - mean) > t_points * np.sqrt(variances))[20:].any())


@pytest.mark.parametrize("runs", [60, pytest.param(2_000, marks=LONG)])
def test_peeking_at_the_betting_sequence_decides_wrongly_in_at_most_one_run_of_twenty(runs: int) -> None:
    rows = population()
    mean = float(rows.share.mean())
    wrong = 0
    for seed in range(runs):
        drawn = np.random.default_rng(seed).permutation(rows.share)[:500]
        wrong += wrong_decisions(lambda: row_sequence(rows.share.size, False, [mean]), drawn.tolist(), mean)
    print(f"{runs} runs: wrong in {wrong / runs:.4f}")
    assert wrong / runs <= 0.05


@pytest.mark.parametrize("runs", [60, pytest.param(2_000, marks=LONG)])
def test_peeking_with_missing_rows_decides_wrongly_in_at_most_one_run_of_twenty(runs: int) -> None:
    """One row in twenty is missing, and more often where the answer would have been wrong."""
    rows = population()
    right = rows.right[:1_000]
    mean = float(right.mean())
    wrong = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        order = rng.permutation(right.size)
        lost = rng.random(right.size) < np.where(right[order] == 1, 0.02, 0.12)
        drawn = [None if gone else score for score, gone in zip(right[order].tolist(), lost, strict=True)]
        wrong += wrong_decisions(lambda: row_sequence(right.size, True), drawn, mean)
    print(f"{runs} runs: wrong in {wrong / runs:.4f}")
    assert wrong / runs <= 0.05


@pytest.mark.parametrize("runs", [200, pytest.param(2_000, marks=LONG)])
def test_peeking_after_each_cluster_decides_wrongly_in_at_most_one_run_of_twenty(runs: int) -> None:
    rows = population()
    mean = float(rows.right.mean())
    groups = [rows.right[rows.group == group].tolist() for group in range(50)]
    wrong = decided = 0
    for seed in range(runs):
        sequence = cluster_sequence(rows.right.size, 50, max(map(len, groups)), [mean, mean - 0.1])
        for group in np.random.default_rng(seed).permutation(50).tolist():
            sequence.add(*groups[group])
            if sequence.decided_above(mean) or sequence.decided_below(mean):
                wrong += 1
                break
        decided += sequence.decided_above(mean - 0.1)
    print(f"{runs} runs: wrong in {wrong / runs:.4f}")
    assert wrong / runs <= 0.05
    assert decided > 0.95 * runs
