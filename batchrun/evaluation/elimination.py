"""Which candidates of a race are worse than another one, from the same rows in the same random order.

Each pair has a confidence sequence of its differences, row by row, with 5 % shared out among the pairs
(Bonferroni): whenever one looks, the statements about all pairs hold together in at least 95 % of races.
A row that one of the two has no score for counts as the largest difference against either statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from batchrun.evaluation.early_stopping import StoppingRule
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.statistics.confidence_sequences import ALPHA
from batchrun.evaluation.statistics.intervals import Scores
from batchrun.job.evaluation import Evaluation

_EQUAL = 0.5
"""A difference of 0, as differences from -1 to 1 are scaled to scores from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean score of candidate `a` less that of `b`, from -1 to 1, after `rows` rows that both were sent.

    `better` is the one that is better for certain, `after` the rows that it took to know; None: it is open.
    """

    a: int
    b: int
    rows: int
    value: float | None
    low: float
    high: float
    better: int | None
    after: int | None


class Elimination:
    """Takes the candidates' scores in sending order; knows which candidates are worse."""

    def __init__(self, frame: SamplingFrame, evaluation: Evaluation, candidates: int) -> None:
        pairs = list(combinations(range(candidates), 2))
        alpha = ALPHA / len(pairs)
        self._pairs = [_Pair(a, b, StoppingRule(frame, evaluation, False, [_EQUAL], alpha)) for a, b in pairs]

    def feed(self, scores: Sequence[Scores]) -> None:
        """Takes the scores of each candidate's rows so far, the ones that were fed before included."""
        for pair in self._pairs:
            pair.feed(scores[pair.a], scores[pair.b])

    def differences(self) -> list[Difference]:
        return [pair.difference() for pair in self._pairs]

    def worse(self) -> dict[int, Difference]:
        """Returns the candidates that are worse than another one for certain, with what shows it first."""
        found: dict[int, Difference] = {}
        decided = [each for each in self.differences() if each.better is not None]
        for each in sorted(decided, key=lambda each: each.after or 0):
            found.setdefault(each.b if each.better == each.a else each.a, each)
        return found


class _Pair:
    def __init__(self, a: int, b: int, rule: StoppingRule) -> None:
        self.a = a
        self.b = b
        self._rule = rule
        self._fed = 0
        self._better: int | None = None
        self._after: int | None = None

    def feed(self, of_a: Scores, of_b: Scores) -> None:
        both = min(of_a.size, of_b.size)
        for difference in (of_a[self._fed : both] - of_b[self._fed : both]).tolist():
            self._fed += 1
            self._rule.add(None if np.isnan(difference) else _EQUAL + difference / 2)
            if (better := self._decision()) != self._better:
                self._better, self._after = better, self._fed

    def _decision(self) -> int | None:
        if self._rule.sequence.decided_above(_EQUAL):
            return self.a
        return self.b if self._rule.sequence.decided_below(_EQUAL) else None

    def difference(self) -> Difference:
        sequence = self._rule.sequence
        estimate = sequence.estimate()
        value = None if estimate is None else 2 * estimate.value - 1
        low, high = 2 * sequence.low - 1, 2 * sequence.high - 1
        return Difference(self.a, self.b, self._fed, value, low, high, self._better, self._after)
