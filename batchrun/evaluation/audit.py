"""Chooses rows for a person's review, and estimates the precision of all labels from the corrections.

The audit is a random part of all labelled rows. Only the audit shows how often labels are right, since every
labelled row could have been drawn. Invalid rows and rows with disagreeing votes are chosen because they are
likely wrong: they are worth correcting, but would make the labels look worse than they are.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Literal

from batchrun.evaluation.statistics.intervals import wilson

AUDIT_SHARE = 0.5
"""The audit's share of the rows for review: only its rows narrow the interval, by their square root."""

Why = Literal["audit", "invalid", "low agreement"]


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """An answered row. `agreement`: the share of the samples with its label, None without votes."""

    index: int
    is_valid: bool
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class ForReview:
    index: int
    why: Why


def choose_for_review(
    rows: Iterable[LabelledRow], most: int, seed: int, audit_share: float = AUDIT_SHARE
) -> list[ForReview]:
    """Returns at most `most` rows for a person, in input order; the same seed draws the same audit.

    `audit_share` of them (0 to 1) are drawn from the valid rows. Of the others, half are invalid rows and
    half those with the lowest agreement below 1; where there are fewer of the one, there are more of the
    other, and then of the audit. Memory is that of `most` rows, however many there are.
    """
    audit = _Lowest(most)
    invalid = _Lowest(most)
    doubtful = _Lowest(2 * most)  # as many as `most` of them may be drawn for the audit as well
    for row in rows:
        place = _place(row.index, seed)
        if not row.is_valid:
            invalid.add((place,), row.index)
            continue
        audit.add((place,), row.index)
        if row.agreement is not None and row.agreement < 1:
            doubtful.add((row.agreement, place), row.index)
    return _shares(audit.rows(), invalid.rows(), doubtful.rows(), most, ceil(most * audit_share))


def _shares(
    audit: Sequence[int], invalid: Sequence[int], doubtful: Sequence[int], most: int, audited: int
) -> list[ForReview]:
    # How many are drawn must not depend on which are drawn, or the audit would be no fair sample.
    drawn = audit[: max(audited, most - len(invalid) - len(doubtful))]
    others = most - len(drawn)
    in_audit = set(drawn)
    doubtful = [index for index in doubtful if index not in in_audit]
    taken = invalid[: max(ceil(others / 2), others - len(doubtful))]
    chosen = [
        *(ForReview(index, "audit") for index in drawn),
        *(ForReview(index, "invalid") for index in taken),
        *(ForReview(index, "low agreement") for index in doubtful[: others - len(taken)]),
    ]
    return sorted(chosen, key=lambda row: row.index)


@dataclass(frozen=True, slots=True)
class Precision:
    """`share` of the `checked` labels are right, with its 95 % interval from `low` to `high`, all 0 to 1.

    Of `of` labels in all. None for a share of nothing. `unchecked` rows of the audit are left out: if
    those were left that are hard to tell, the share is too good.
    """

    right: int
    checked: int
    unchecked: int
    of: int
    share: float | None
    low: float | None
    high: float | None


def precision(audit: Iterable[tuple[str, str | None]], of: int) -> Precision:
    """Estimates how many of `of` labels are right, from the audit's rows only: (label, corrected label).

    The corrected label is None for unchecked rows. Wilson's interval, narrower if the audit is a large part
    of all labels.
    """
    pairs = list(audit)
    checked = [(label, corrected) for label, corrected in pairs if corrected is not None]
    right = sum(label == corrected for label, corrected in checked)
    unchecked = len(pairs) - len(checked)
    if not checked:
        return Precision(0, 0, unchecked, of, None, None, None)
    share = right / len(checked)
    low, high = wilson(share, len(checked), of)
    return Precision(right, len(checked), unchecked, of, share, low, high)


def precision_of_each(audit: Iterable[tuple[str, str | None]], of: Mapping[str, int]) -> dict[str, Precision]:
    """Estimates this for each label that `of` counts: the audit is a random sample of each label's rows."""
    pairs = list(audit)
    return {
        label: precision((pair for pair in pairs if pair[0] == label), number) for label, number in of.items()
    }


class _Lowest:
    """The rows with the lowest keys of all that were added, `most` at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[tuple[float, ...], int]] = []  # keys negated: the highest is at the top

    def add(self, key: tuple[float, ...], index: int) -> None:
        entry = (tuple(-part for part in key), index)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[int]:
        """Returns the rows' indices, the lowest key first."""
        return [index for _, index in sorted(self._heap, reverse=True)]


def _place(index: int, seed: int) -> int:
    """Returns a row's place in a separate random order: a cap may have cut the sending order."""
    key = seed.to_bytes(8, "big")
    row = index.to_bytes(8, "big")
    return int.from_bytes(blake2b(row, digest_size=8, key=key, person=b"audit").digest(), "big")
