"""Confusion matrix, and precision, recall and F1 of each class with 95 % intervals."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from batchrun.evaluation.statistics.intervals import wilson


@dataclass(frozen=True, slots=True)
class Rate:
    """A share among `of` rows of the sample, with its 95 % interval."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True, slots=True)
class ClassRates:
    """One class. `expected` and `said` count rows, `right` rows that are both; a rate of no rows is None."""

    label: str
    expected: int
    said: int
    right: int
    precision: Rate | None
    recall: Rate | None
    f1: Rate | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """`counts[expected][said]` in the order of `labels`; `invalid[expected]` had no valid label."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    invalid: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(map(sum, self.counts)) + sum(self.invalid)


def confusion(pairs: Iterable[tuple[str, str | None]]) -> Confusion:
    """Counts (expected label, given label) for each scored row; None: no valid label.

    Labels are compared exactly. They are ordered by their number of expected rows.
    """
    counted = Counter(pairs)
    expected: Counter[str] = Counter()
    for (wanted, said), count in counted.items():
        expected[wanted] += count
        expected[wanted if said is None else said] += 0
    labels = tuple(sorted(expected, key=lambda label: (-expected[label], label)))
    counts = tuple(tuple(counted[wanted, said] for said in labels) for wanted in labels)
    return Confusion(labels, counts, tuple(counted[wanted, None] for wanted in labels))


def class_rates(matrix: Confusion, population: int | None) -> list[ClassRates]:
    """Returns the rates of each class, in the matrix's order; `population` as for estimates.

    Precision and recall have Wilson's interval. F1 is 2 J / (1 + J) with J = right / (expected or said), a
    share of rows like the others, so the ends of its interval are those of J's in the same formula.
    The intervals take rows as independent: with clusters they are too narrow.
    """
    return [_rates(matrix, index, population) for index in range(len(matrix.labels))]


def _rates(matrix: Confusion, index: int, population: int | None) -> ClassRates:
    right = matrix.counts[index][index]
    expected = sum(matrix.counts[index]) + matrix.invalid[index]
    said = sum(row[index] for row in matrix.counts)
    sampled = None if population is None else matrix.rows / population
    overlap = _rate(right, expected + said - right, sampled)
    f1 = overlap and Rate(_f1(overlap.value), _f1(overlap.low), _f1(overlap.high), overlap.of)
    label = matrix.labels[index]
    return ClassRates(
        label, expected, said, right, _rate(right, said, sampled), _rate(right, expected, sampled), f1
    )


def _rate(right: int, of: int, sampled: float | None) -> Rate | None:
    """Returns the rate. `sampled` is the sent share of all rows, so about the share of these rows."""
    if not of:
        return None
    low, high = wilson(right / of, of, None if sampled is None else of / sampled)
    return Rate(right / of, low, high, of)


def _f1(overlap: float) -> float:
    return 2 * overlap / (1 + overlap)
