"""Shares of the labels after a review: those of all labels, corrected by the rows that were checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from batchrun.evaluation.statistics.intervals import Interval, Z

NO_LABEL = ""
"""Stands for rows that no label fits."""


@dataclass(frozen=True, slots=True)
class CorrectedShare:
    """A label has the share `labelled` of all labels; `share` of the rows should have it, with 95 % interval.

    All from 0 to 1.
    """

    labelled: float
    share: float
    low: float
    high: float


def corrected_shares(
    audit: Iterable[tuple[str, str | None]], of: Mapping[str, int]
) -> dict[str, CorrectedShare]:
    """Estimates which share of the rows should have each label, and which should have none (`NO_LABEL`).

    `audit` has (label, corrected label) of rows drawn at random from all rows with a label, None for
    unchecked ones; `of` counts the labels of all rows. Empty where no row is checked.

    Prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023, "Prediction-powered
    inference", Science 382): the share among all N labels, plus the mean correction among the n checked rows,

        sum(f) / N + sum(y - f) / n,

    where f and y are 1 for rows with the label before and after the review. In a finite table the first term
    is exact, so this is the difference estimator of survey sampling (Cochran 1977, "Sampling techniques",
    section 7.2), and only the second needs an interval. It is a difference of two shares among the same rows:
    Wald's interval with 1 added to each of the four cells, where Agresti and Min (2005) add 1/2, since rare
    corrections to one side were covered in 90 % only. A label that no row had needs that of one share:
    Clopper and Pearson's (1934). They are wider than needed where many of the rows are checked: the
    finite-population correction makes them miss a few errors of a small table too often.
    """
    checked = [(label, corrected) for label, corrected in audit if corrected is not None]
    n, total = len(checked), sum(of.values())
    if not checked:
        return {}
    names = dict.fromkeys([*of, *sorted(corrected for _, corrected in checked), NO_LABEL])
    found = {}
    for name in names:
        missed = sum(corrected == name != label for label, corrected in checked)
        wrong = sum(label == name != corrected for label, corrected in checked)
        labelled = of.get(name, 0) / total
        low, high = (labelled + end for end in _interval(missed, wrong, n, total, only_missed=not labelled))
        share = labelled + (missed - wrong) / n
        found[name] = CorrectedShare(labelled, _share(share), _share(low), _share(high))
    return found


def _interval(missed: int, wrong: int, n: int, total: int, only_missed: bool) -> Interval:
    if n == total:
        return (missed - wrong) / n, (missed - wrong) / n
    return _clopper_pearson(missed, n) if only_missed else _difference(missed, wrong, n)


def _difference(missed: int, wrong: int, n: int) -> Interval:
    rows = n + 4
    up, down = (missed + 1) / rows, (wrong + 1) / rows
    half = Z * sqrt((up + down - (up - down) ** 2) / rows)
    value = (missed - wrong) / n
    return min(up - down - half, value), max(up - down + half, value)


def _clopper_pearson(count: int, n: int) -> Interval:
    from scipy.special import betaincinv

    low = float(betaincinv(count, n - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 0.975)) if count < n else 1.0
    return low, high


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)
