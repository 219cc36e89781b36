"""Stops an evaluation early: its confidence sequence in sending order, and the decisions from it."""

from collections.abc import Sequence
from copy import copy, deepcopy

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.statistics.confidence_sequences import (
    ALPHA,
    ConfidenceSequence,
    cluster_sequence,
    row_sequence,
)
from batchrun.job.evaluation import EarlyStop, Evaluation

LEAST_AHEAD = 8


class StoppingRule:
    """Takes scores of rows in sending order, one by one; a cluster counts once it is whole.

    `rows` is the number of rows taken. `thresholds` are the job's unless others are given; `alpha` is the
    probability of ever being wrong.
    """

    def __init__(
        self,
        frame: SamplingFrame,
        evaluation: Evaluation,
        binary: bool,
        thresholds: Sequence[float] | None = None,
        alpha: float = ALPHA,
    ) -> None:
        if thresholds is None:
            thresholds = thresholds_of(evaluation.stop)
        sizes = _cluster_sizes(frame) if evaluation.cluster else None
        if sizes is None or not sizes.size:
            self.sequence = row_sequence(frame.population, binary, thresholds, alpha)
            self._sizes = None
        else:
            reference = thresholds[0] if thresholds else 0.5
            self.sequence = cluster_sequence(
                frame.population, sizes.size, int(sizes.max()), thresholds, reference, alpha
            )
            self._sizes = sizes
        self.rows = 0
        self.cluster: list[float | None] = []
        self._clusters = 0

    def add(self, score: float | None) -> None:
        self.rows += 1
        if self._sizes is None:
            self.sequence.add(score)
            return
        self.cluster.append(score)
        if len(self.cluster) == self._sizes[self._clusters]:
            self.sequence.add(*self.cluster)
            self.cluster = []
            self._clusters += 1

    def twin(self) -> "StoppingRule":
        """Returns a copy that takes other scores from here on."""
        twin = copy(self)
        twin.sequence, twin.cluster = deepcopy(self.sequence), list(self.cluster)
        return twin


class LookAhead:
    """Says how far the sending may be ahead of the rows that are scored: to the first row at which a decision
    is possible, if all scores until then speak for it. Until then no row is sent in vain.

    At least LEAST_AHEAD rows and an eighth of those scored may be in progress, so that the sending does not
    come to a near halt where a decision is close for long. So a decision after n rows leaves at most
    max(LEAST_AHEAD, n / 8) rows that it did not need.
    """

    def __init__(self, rule: StoppingRule, stop: EarlyStop, population: int) -> None:
        self._rule = rule
        self._stop = stop
        self._population = population
        self._until = 0
        self._next_look = 0

    def allows(self, position: int) -> bool:
        """Returns whether the row at a position of the sending order, from 0, may be in progress."""
        scored = self._rule.rows
        self._until = max(self._until, scored + LEAST_AHEAD, scored + scored // 8)
        if position >= self._until and scored >= self._next_look:
            most = min(2 * (position - scored), self._population - scored)
            ahead = rows_to_decision(self._rule, self._stop, most)
            self._until = max(self._until, scored + ahead)
            if ahead < most:  # else a look further ahead may find more
                self._next_look = scored + 1 + ahead // 4  # a look takes as long as some rows
        return position < self._until


def rows_to_decision(rule: StoppingRule, stop: EarlyStop, most: int) -> int:
    """Returns after how many more rows a decision is possible at the earliest, `most` if not before."""
    wanted = [1.0] if stop.above is not None or stop.half_width is not None else []
    wanted += [0.0] if stop.below is not None or stop.half_width is not None else []
    earliest = most
    for score in wanted:
        twin = rule.twin()
        for rows in range(1, earliest):
            twin.add(score)
            if decision(twin.sequence, stop) is not None:
                earliest = rows
                break
    return earliest


def thresholds_of(stop: EarlyStop | None) -> list[float]:
    return [] if stop is None else [value for value in (stop.above, stop.below) if value is not None]


def decision(sequence: ConfidenceSequence, stop: EarlyStop) -> str | None:
    """Returns the decision in a few words; None as long as there is none."""
    if stop.above is not None and sequence.decided_above(stop.above):
        return f"above {stop.above:g}"
    if stop.below is not None and sequence.decided_below(stop.below):
        return f"below {stop.below:g}"
    if stop.half_width is not None and sequence.n and sequence.half_width <= stop.half_width:
        return f"known to +- {100 * stop.half_width:g} points"
    return None


def _cluster_sizes(frame: SamplingFrame) -> npt.NDArray[np.int64]:
    """Returns the sizes of the clusters in sending order. A row without a cluster is one of its own."""
    codes = frame.groups.codes[frame.scorable_order]
    if not codes.size:
        return np.empty(0, np.int64)
    begins = np.flatnonzero(np.r_[True, (codes[1:] != codes[:-1]) | (codes[1:] < 0)])
    return np.diff(np.append(begins, codes.size)).astype(np.int64, copy=False)
