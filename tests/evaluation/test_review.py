"""Rows for a person's eye: which are chosen, and that the audit is a fair sample."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.evaluation.audit import (
    ForReview,
    LabelledRow,
    Precision,
    choose_for_review,
    precision,
    precision_of_each,
)

rows_of_a_run = st.lists(st.tuples(st.booleans(), st.sampled_from([None, 0.4, 0.6, 1.0])), max_size=60).map(
    lambda kinds: [LabelledRow(index, *kind) for index, kind in enumerate(kinds)]
)


def by_reason(chosen: list[ForReview]) -> Counter[str]:
    return Counter(row.why for row in chosen)


def table(valid: int, invalid: int, doubtful: int = 0) -> list[LabelledRow]:
    agreements = [0.6] * doubtful + [1.0] * (valid - doubtful)
    labelled = [LabelledRow(index, True, agreement) for index, agreement in enumerate(agreements)]
    return labelled + [LabelledRow(valid + index, False) for index in range(invalid)]


@given(rows_of_a_run, st.integers(0, 30), st.integers(0, 2**63 - 1), st.floats(0, 1))
def test_as_many_as_there_are_up_to_the_most(
    rows: list[LabelledRow], most: int, seed: int, audit_share: float
) -> None:
    chosen = choose_for_review(rows, most, seed, audit_share)
    indices = [row.index for row in chosen]
    assert indices == sorted(set(indices))
    assert len(chosen) <= most
    valid = {row.index: row.is_valid for row in rows}
    assert all(valid[row.index] == (row.why != "invalid") for row in chosen)
    if most >= 2 * len(rows):
        assert len(chosen) == len(rows)


@given(rows_of_a_run, st.integers(0, 30), st.integers(0, 2**63 - 1))
def test_no_row_left_out_is_more_doubtful(rows: list[LabelledRow], most: int, seed: int) -> None:
    chosen = {row.index: row.why for row in choose_for_review(rows, most, seed)}
    agreements = {row.index: row.agreement for row in rows if row.is_valid and row.agreement is not None}
    taken = [agreements[index] for index, why in chosen.items() if why == "low agreement"]
    left = [agreement for index, agreement in agreements.items() if index not in chosen]
    if taken and left:
        assert max(taken) <= min(left)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (table(1000, 200, 200), {"audit": 50, "invalid": 25, "low agreement": 25}),
        (table(1000, 10, 0), {"audit": 90, "invalid": 10}),
        (table(1000, 200, 0), {"audit": 50, "invalid": 50}),
        (table(1000, 0, 0), {"audit": 100}),
        (table(20, 200, 0), {"audit": 20, "invalid": 80}),
        (table(0, 0, 0), {}),
    ],
)
def test_shares(rows: list[LabelledRow], expected: dict[str, int]) -> None:
    assert by_reason(choose_for_review(rows, 100, seed=1)) == expected


def test_what_the_audit_holds_is_not_chosen_again() -> None:
    counts = by_reason(choose_for_review(table(100, 0, 100), 60, seed=1))
    assert counts == {"audit": 30, "low agreement": 30}


def test_same_seed_same_rows() -> None:
    rows = table(500, 50, 50)
    assert choose_for_review(rows, 40, seed=7) == choose_for_review(rows, 40, seed=7)
    assert choose_for_review(rows, 40, seed=7) != choose_for_review(rows, 40, seed=8)


def test_every_valid_row_is_as_likely_to_be_in_the_audit() -> None:
    """2,000 seeds: doubtful rows are drawn as often as the others, 40 of 100."""
    rows = table(100, 30, 30)
    drawn: Counter[int] = Counter()
    for seed in range(2_000):
        drawn.update(row.index for row in choose_for_review(rows, 80, seed) if row.why == "audit")
    assert sum(drawn.values()) == 2_000 * 40
    doubtful = sum(drawn[index] for index in range(30)) / 30 / 2_000
    others = sum(drawn[index] for index in range(30, 100)) / 70 / 2_000
    assert doubtful == pytest.approx(0.4, abs=0.01)
    assert others == pytest.approx(0.4, abs=0.01)


def test_precision() -> None:
    """45 of 50: Wilson's interval is 78.64 % to 95.65 % at large; among 10,000 labels hardly less."""
    audit = [("a", "a")] * 45 + [("a", "b")] * 5 + [("a", None)] * 3
    found = precision(audit, of=10_000)
    assert (found.right, found.checked, found.unchecked, found.of, found.share) == (45, 50, 3, 10_000, 0.9)
    assert found.low == pytest.approx(0.7864, abs=0.0005)
    assert found.high == pytest.approx(0.9565, abs=0.0005)


def test_all_labels_checked_is_exact() -> None:
    found = precision([("a", "a"), ("a", "b")], of=2)
    assert (found.low, found.share, found.high) == (0.5, 0.5, 0.5)


def test_nothing_checked_says_nothing() -> None:
    assert precision([("a", None)], of=9) == Precision(0, 0, 1, 9, None, None, None)


def test_precision_of_each_label() -> None:
    audit = [("a", "a"), ("a", "b"), ("b", "b"), ("b", None)]
    found = precision_of_each(audit, {"a": 500, "b": 500, "c": 3})
    assert {label: (one.right, one.checked, one.unchecked) for label, one in found.items()} == {
        "a": (1, 2, 0),
        "b": (1, 1, 1),
        "c": (0, 0, 0),
    }


def test_the_audit_is_right_as_often_as_all_labels_and_the_chosen_rows_are_not() -> None:
    """1,000 labels of which 94 % are right, those with low agreement in 40 %; 500 seeds."""
    rows = [LabelledRow(index, True, 0.6 if index % 10 == 0 else 1.0) for index in range(1_000)]
    right = [index % 10 != 0 or index % 100 < 40 for index in range(1_000)]
    shares: list[float] = []
    of_all_reviewed: list[float] = []
    for seed in range(500):
        chosen = choose_for_review(rows, 200, seed)
        audit = [("x", "x" if right[row.index] else "y") for row in chosen if row.why == "audit"]
        shares.append(precision(audit, len(rows)).share or 0)
        of_all_reviewed.append(sum(right[row.index] for row in chosen) / len(chosen))
    assert sum(shares) / 500 == pytest.approx(0.94, abs=0.005)
    assert sum(of_all_reviewed) / 500 < 0.8
