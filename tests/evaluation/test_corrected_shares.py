"""Shares of the labels after a review, against tables whose true shares are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.evaluation.corrected_shares import NO_LABEL, CorrectedShare, corrected_shares

LABELS = ("good", "bad", "neutral", NO_LABEL)
AUDITS = 1_000


def test_by_hand() -> None:
    """60 of 100 labels are good; of 20 checked rows one bad label should be good, three good ones bad."""
    audit = [("good", "good")] * 9 + [("good", "bad")] * 3 + [("bad", "bad")] * 7 + [("bad", "good")]
    found = corrected_shares(audit, {"bad": 40, "good": 60})
    assert found["good"].share == pytest.approx(0.6 + (1 - 3) / 20)
    assert found["bad"].share == pytest.approx(0.4 + (3 - 1) / 20)
    assert found["good"].low < found["good"].share < found["good"].high
    assert found[NO_LABEL].share == 0


def test_a_label_that_only_the_person_gave_is_counted() -> None:
    found = corrected_shares([("good", "mixed"), ("good", "good"), ("good", None)], {"good": 10})
    assert list(found) == ["good", "mixed", NO_LABEL]
    assert (found["mixed"].labelled, found["mixed"].share) == (0.0, 0.5)


def test_nothing_is_known_without_a_checked_row() -> None:
    assert corrected_shares([("good", None)], {"good": 10}) == {}


def test_a_review_of_all_rows_has_no_doubt() -> None:
    audit = [("good", "bad"), ("good", "good"), ("bad", "bad"), ("bad", NO_LABEL)]
    found = corrected_shares(audit, {"bad": 2, "good": 2})
    assert found["bad"] == CorrectedShare(0.5, 0.5, 0.5, 0.5)
    assert found["good"] == CorrectedShare(0.5, 0.25, 0.25, 0.25)
    assert found[NO_LABEL] == CorrectedShare(0.0, 0.25, 0.25, 0.25)


pairs = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["a", "b", "c", NO_LABEL]))


@given(st.lists(pairs, min_size=1, max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_shares_and_corrections_sum_to_one(audit: list[tuple[str, str]], more_a: int, more_b: int) -> None:
    of = {
        name: sum(label == name for label, _ in audit) + more for name, more in (("a", more_a), ("b", more_b))
    }
    found = corrected_shares(audit, of)
    assert sum(part.labelled for part in found.values()) == pytest.approx(1)
    for part in found.values():
        assert 0 <= part.low <= part.share <= part.high <= 1
    if all(0 < part.share < 1 for part in found.values()):
        assert sum(part.share for part in found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rows", "audited", "errors"),
    [(60, 30, 0.05), (60, 30, 0.3), (300, 40, 0.25), (2000, 50, 0.02), (2000, 100, 0.1), (20_000, 200, 0.2)],
)
def test_the_interval_covers_the_true_share(rows: int, audited: int, errors: float) -> None:
    """The shares of the labels alone are off by points; the corrected ones are not."""
    random = np.random.default_rng(rows + audited)
    labels = random.choice(3, size=rows, p=[0.6, 0.3, 0.1])
    truth = labels.copy()
    wrong = random.random(rows) < errors * np.array([0.5, 1.5, 1.0])[labels]
    truth[wrong] = random.integers(0, 4, wrong.sum())
    of = {name: int((labels == code).sum()) for code, name in enumerate(LABELS[:3])}
    covered, mean = np.zeros(4), np.zeros(4)
    for _ in range(AUDITS):
        drawn = random.choice(rows, audited, replace=False)
        found = corrected_shares([(LABELS[labels[row]], LABELS[truth[row]]) for row in drawn], of)
        for code, name in enumerate(LABELS):
            share = (truth == code).mean()
            covered[code] += found[name].low - 1e-9 <= share <= found[name].high + 1e-9
            mean[code] += found[name].share / AUDITS
    print(f"{rows} rows, {audited} checked: covered in {covered.min() / AUDITS:.1%} at the least")
    assert covered.min() / AUDITS >= 0.94  # 95 %, less 1.5 standard errors of the simulation
    shares = [(truth == code).mean() for code in range(4)]
    # Negative shares are cut to 0, which lifts the mean of rare labels a little.
    assert np.abs(mean - shares).max() < 0.015
