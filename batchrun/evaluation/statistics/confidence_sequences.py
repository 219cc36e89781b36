"""Confidence sequences: intervals that may be checked after every row, to stop when enough is known.

A t-interval that is checked repeatedly excludes the true mean sooner or later. A sequence ever excludes it
with a probability of at most 5 %, however the moments of checking are chosen.

Rows are fed in sending order, which must be a random permutation of all rows, or of all clusters. `InOrder`
restores it for responses that arrive out of order: feeding them as they finish would favour short ones. A row
without a score counts as 0 for the lower end and as 1 for the upper one. So a decision holds whatever the
missing scores would have been, and is wrong with a probability of 5 % at most; so is the interval. (With
missing rows the two ends of the interval belong to two sequences. For scores of 0 or 1 each of these is wrong
with a probability of 5 % at most.)

Sources: Waudby-Smith and Ramdas 2020, "Confidence sequences for sampling without replacement" (scores of 0
or 1: the prior-posterior ratio); Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
variables by betting" (scores between 0 and 1). No sequence for stratified samples is known to this module.
"""

from collections.abc import Callable, Iterable
from math import lgamma, log, sqrt
from typing import Protocol

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.statistics.intervals import Estimate

ALPHA = 0.05
_BOLDNESS = 0.75  # of the largest bet that can't lose everything: c in the paper, which takes 1/2 or 3/4
_CANDIDATES = 2_001
_ROUNDING = 1e-9  # of a sum of scores over their number


class _Ends(Protocol):
    """The two ends of the interval for the mean of all units, each with a score from 0 to 1."""

    method: str

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    def add(self, low: float, high: float) -> None:
        """Takes the next unit's score, which is somewhere from `low` to `high`."""

    def above(self, threshold: float) -> bool:
        """Returns whether all means up to the threshold are ruled out."""

    def below(self, threshold: float) -> bool:
        """Returns whether all means from the threshold on are ruled out."""


class ConfidenceSequence:
    """Bounds the mean score of `rows` rows from the rows fed so far. Made by the functions below.

    `n` rows fed have a score, `missing` ones have none. A unit is a row, or a cluster of at most
    `largest` rows. The score of a cluster is the sum of its rows' over `largest`, counted from
    `reference` for each row, so that the clusters' sizes tell in it as little as can be.
    """

    def __init__(self, rows: int, ends: _Ends, units: int, largest: int, reference: float) -> None:
        self.rows = rows
        self.n = 0
        self.missing = 0
        self._sum = 0.0
        self._ends = ends
        self._largest = largest
        self._reference = reference
        self._scale = rows / (units * largest)

    @property
    def low(self) -> float:
        """Lower end of the interval, from 0 to 1."""
        return self._outer(self._ends.low)

    @property
    def high(self) -> float:
        """Upper end of the interval, from 0 to 1."""
        return self._outer(self._ends.high)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def add(self, *scores: float | None) -> None:
        """Takes the next row in sending order, or all rows of the next cluster; None: no score."""
        known = sum(score for score in scores if score is not None)
        missing = scores.count(None)
        self.n += len(scores) - missing
        self.missing += missing
        self._sum += known
        base = self._reference * (self._largest - len(scores))
        self._ends.add((base + known) / self._largest, (base + known + missing) / self._largest)

    def decided_above(self, threshold: float) -> bool:
        """Returns whether the mean of all rows is above the threshold, with missing scores as 0."""
        return self._ends.above(_inner(threshold, self._reference, self._scale))

    def decided_below(self, threshold: float) -> bool:
        """Returns whether the mean of all rows is below the threshold, with missing scores as 1."""
        return self._ends.below(_inner(threshold, self._reference, self._scale))

    def _outer(self, mean: float) -> float:
        """The mean of the rows' scores, for a mean of the units' scores."""
        return min(max(self._reference + (mean - self._reference) / self._scale, 0.0), 1.0)

    def estimate(self) -> Estimate | None:
        """Returns the mean of the scored rows with the current interval. None if no row has a score."""
        if not self.n:
            return None
        asked = self.n + self.missing
        return Estimate(
            value=self._sum / self.n,
            low=self.low,
            high=self.high,
            n=self.n,
            of=self.rows,
            missing=self.missing,
            method=f"confidence sequence, {self._ends.method}",
            bounds=(self._sum / asked, (self._sum + self.missing) / asked),
        )


def row_sequence(
    rows: int, binary: bool, thresholds: Iterable[float] = (), alpha: float = ALPHA
) -> ConfidenceSequence:
    """For `rows` rows in random order. `binary` says that scores are 0 or 1, which takes microseconds a row.

    Other scores take some tens of them. Decisions about `thresholds` are exact; those about other
    means, and the interval, are to within 0.0005. `alpha` is the probability of ever being wrong.
    """
    ends = _RatioEnds(rows, alpha) if binary else _BettingEnds(rows, thresholds, alpha)
    return ConfidenceSequence(rows, ends, units=rows, largest=1, reference=0.0)


def cluster_sequence(
    rows: int,
    clusters: int,
    largest: int,
    thresholds: Iterable[float] = (),
    reference: float = 0.5,
    alpha: float = ALPHA,
) -> ConfidenceSequence:
    """For `rows` rows in whole clusters in random order, the largest of which has `largest` rows.

    `reference` is a guess of the mean, such as the threshold. Of use where there are many clusters
    and none is much larger than the others.
    """
    scale = rows / (clusters * largest)
    ends = _BettingEnds(clusters, [_inner(threshold, reference, scale) for threshold in thresholds], alpha)
    return ConfidenceSequence(rows, ends, clusters, largest, reference)


class InOrder:
    """Passes scores on in sending order, each as soon as all before it are known."""

    def __init__(self, hand_on: Callable[[float | None], None]) -> None:
        self._hand_on = hand_on
        self._next = 0
        self._waiting: dict[int, float | None] = {}

    def arrived(self, position: int, score: float | None) -> None:
        """Takes the score of the row at a position, from 0 on, each one once; None: it will have none."""
        self._waiting[position] = score
        while self._next in self._waiting:
            self._hand_on(self._waiting.pop(self._next))
            self._next += 1


def _inner(mean: float, reference: float, scale: float) -> float:
    """The mean of the units' scores, for a mean of the rows' scores."""
    return reference + (mean - reference) * scale


class _RatioEnds:
    """Scores of 0 or 1: prior-posterior ratio with a uniform prior for the number of ones among N.

    A number k is ruled out once prior(k) / posterior(k) >= 1 / alpha (Theorem 2.1). The ratio is the
    marginal likelihood over the hypergeometric one, with one minimum over k, so bisection finds the ends.
    """

    method = "prior-posterior ratio"

    def __init__(self, units: int, alpha: float) -> None:
        self._units = units
        self._enough = log(1 / alpha)
        self._seen = 0
        self._ones = [0, 0]
        self._least = 0
        self._most = units

    @property
    def low(self) -> float:
        return self._possible(self._least) / self._units

    @property
    def high(self) -> float:
        return self._possible(self._most) / self._units

    def _possible(self, k: int) -> int:
        """Between the numbers that come out if all other scores are 0 or all are 1: that much is certain."""
        return min(max(k, self._ones[0]), self._units - self._seen + self._ones[1])

    def add(self, low: float, high: float) -> None:
        self._seen += 1
        self._ones[0] += int(low)
        self._ones[1] += int(high)
        least = max(self._least, self._bisect(self._least, self._ones[0]))
        most = min(self._most, self._bisect(self._most, self._ones[1]))
        if least <= most:  # else both can't be right, which has a probability of 5 % at most
            self._least, self._most = least, most

    def above(self, threshold: float) -> bool:
        return self.low > threshold

    def below(self, threshold: float) -> bool:
        return self.high < threshold

    def _bisect(self, outer: int, ones: int) -> int:
        """The number nearest to `outer` that isn't ruled out, between it and the likeliest one."""
        if not self._ruled_out(outer, ones):
            return outer
        likeliest = ones * (self._units + 1) // self._seen
        inner = min(max(likeliest, ones), self._units - self._seen + ones)
        while abs(inner - outer) > 1:
            middle = (inner + outer) // 2
            if self._ruled_out(middle, ones):
                outer = middle
            else:
                inner = middle
        return inner

    def _ruled_out(self, k: int, ones: int) -> bool:
        units, seen = self._units, self._seen
        if not ones <= k <= units - seen + ones:
            return True
        marginal = lgamma(1 + ones) + lgamma(1 + seen - ones) - lgamma(2 + seen)
        likelihood = _log_choices(units - seen, k - ones) - _log_choices(units, k)
        return marginal - likelihood >= self._enough


def _log_choices(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


class _BettingEnds:
    """Scores from 0 to 1: one capital bets that the mean is higher than a candidate, one that it is lower."""

    method = "betting"

    def __init__(self, units: int, thresholds: Iterable[float], alpha: float) -> None:
        candidates = np.union1d(np.linspace(0, 1, _CANDIDATES), list(thresholds))
        self._lower = _LowerEnd(units, candidates, alpha)
        self._upper = _LowerEnd(units, 1 - candidates[::-1], alpha)

    @property
    def low(self) -> float:
        return self._within_the_possible(self._lower.ruled_out)

    @property
    def high(self) -> float:
        return self._within_the_possible(1 - self._upper.ruled_out)

    def _within_the_possible(self, mean: float) -> float:
        """Between the means that come out if all other scores are 0 or all are 1: that much is certain."""
        return min(max(mean, self._lower.least), 1 - self._upper.least)

    def add(self, low: float, high: float) -> None:
        self._lower.add(low)
        self._upper.add(1 - high)
        self._lower.forget_from(1 - self._upper.ruled_out)
        self._upper.forget_from(1 - self._lower.ruled_out)

    def above(self, threshold: float) -> bool:
        return self._lower.least > threshold + _ROUNDING or (
            self._lower.ruled_out >= threshold and 1 - self._upper.least > threshold
        )

    def below(self, threshold: float) -> bool:
        return 1 - self._upper.least < threshold - _ROUNDING or (
            self._upper.ruled_out >= 1 - threshold and self._lower.least < threshold
        )


class _LowerEnd:
    """Bets that the mean of N scores is higher than each candidate, drawing without replacement.

    With S the sum of the first t - 1 scores, the rest has the mean mu_t(m) = (N m - S) / (N - t + 1) if m is
    the mean of all. The capital is multiplied by 1 + lambda_t (x_t - mu_t(m)), and m is ruled out
    when it reaches 2 / alpha; it falls with m, so every candidate below one that is ruled out is
    ruled out as well. The bet lambda_t = sqrt(2 log(2 / alpha) / (v t log(t + 1))), with v the variance of
    the scores so far, is cut to 0.75 / mu_t(m) (hedged capital, with the paper's predictable plug-in).
    """

    def __init__(self, units: int, candidates: npt.NDArray[np.float64], alpha: float) -> None:
        self.ruled_out = -1.0
        self._enough = log(2 / alpha)
        self._units = units
        self._candidates = candidates
        self._log_capital = np.zeros(candidates.size)
        self._seen = 0
        self._sum = 0.0
        self._squares = 0.25

    @property
    def least(self) -> float:
        """The mean of all if the scores that aren't known yet are 0."""
        return self._sum / self._units

    def add(self, score: float) -> None:
        rest = np.maximum((self._units * self._candidates - self._sum) / (self._units - self._seen), 0.0)
        self._seen += 1
        t = self._seen
        boldest = sqrt(2 * self._enough / (self._squares * log(t + 1)))
        bets = boldest / np.maximum(1.0, boldest * rest / _BOLDNESS)
        self._log_capital += np.log1p(bets * (score - rest))
        self._sum += score
        self._squares += (score - (0.5 + self._sum) / (t + 1)) ** 2
        self._rule_out()

    def forget_from(self, candidate: float) -> None:
        """Candidates from this one on are ruled out from the other side."""
        if self._candidates.size and self._candidates[-1] >= candidate:
            kept = int(np.searchsorted(self._candidates, candidate))
            self._candidates, self._log_capital = self._candidates[:kept], self._log_capital[:kept]

    def _rule_out(self) -> None:
        rich = np.flatnonzero(self._log_capital >= self._enough)
        if rich.size:
            last = int(rich[-1])
            self.ruled_out = float(self._candidates[last])
            self._candidates, self._log_capital = self._candidates[last + 1 :], self._log_capital[last + 1 :]
