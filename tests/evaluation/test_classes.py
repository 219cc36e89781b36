"""Confusion matrix and rates by class: by hand, and covered as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchrun.evaluation.statistics.classification import class_rates, confusion

LABELS = ("a", "b", "c")
PAIRS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=60
)


def test_matrix_by_hand() -> None:
    pairs = [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", None), ("a", "z")]
    matrix = confusion(pairs)
    assert matrix.labels == ("a", "b", "z")
    assert matrix.counts == ((2, 1, 1), (0, 1, 0), (0, 0, 0))
    assert matrix.invalid == (0, 1, 0)
    assert matrix.rows == 6


@given(PAIRS)
def test_rates_are_what_their_names_say(pairs: list[tuple[str, str | None]]) -> None:
    """Precision and recall by counting, F1 as their harmonic mean; every interval holds its rate."""
    for rates in class_rates(confusion(pairs), None):
        label = rates.label
        right = sum(pair == (label, label) for pair in pairs)
        said = sum(pair[1] == label for pair in pairs)
        expected = sum(pair[0] == label for pair in pairs)
        assert (rates.right, rates.said, rates.expected) == (right, said, expected)
        for rate, of in ((rates.precision, said), (rates.recall, expected)):
            assert (rate is None) == (of == 0)
            if rate is not None:
                known = stats.binomtest(right, of).proportion_ci(0.95, "wilson")
                assert (rate.value, rate.of) == (right / of, of)
                assert (rate.low, rate.high) == pytest.approx((known.low, known.high))
        assert rates.f1 is not None
        assert rates.f1.value == pytest.approx(2 * right / (said + expected))
        assert 0 <= rates.f1.low <= rates.f1.value <= rates.f1.high <= 1


def test_when_every_row_is_asked_the_rates_are_known() -> None:
    for rates in class_rates(confusion([("a", "a"), ("a", "b"), ("b", "b")]), 3):
        assert rates.recall is not None
        assert rates.recall.low == rates.recall.high == rates.recall.value


@pytest.mark.parametrize("population", [None, 800])
def test_intervals_cover_in_nineteen_samples_of_twenty(population: int | None) -> None:
    """2,000 samples of 400 rows in three classes; with 800 rows in all, half of them."""
    rng = np.random.default_rng(8)
    size = population or 10**6
    expected = rng.choice(3, size, p=[0.6, 0.3, 0.1])
    said = np.where(rng.random(size) < 0.8, expected, rng.choice(3, size))
    truth = class_rates(confusion((LABELS[w], LABELS[s]) for w, s in zip(expected, said, strict=True)), None)
    true_rates = {rates.label: rates for rates in truth}
    covered = {"precision": 0, "recall": 0, "f1": 0}
    for _ in range(2_000):
        rows = rng.choice(size, 400, replace=False) if population else rng.integers(0, size, 400)
        matrix = confusion((LABELS[w], LABELS[s]) for w, s in zip(expected[rows], said[rows], strict=True))
        for rates in class_rates(matrix, population):
            for name in covered:
                rate, true = getattr(rates, name), getattr(true_rates[rates.label], name)
                covered[name] += rate.low <= true.value <= rate.high
    for name, count in covered.items():
        assert 0.93 <= count / 6_000 <= 0.97, name
