"""Stops an evaluation early: its confidence sequence in sending order, and the decisions from it."""

from collections.abc import Sequence

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


class StoppingRule:
    """Takes scores of rows in sending order, one by one; a cluster counts once it is whole.

    `thresholds` are the job's unless others are given; `alpha` is the probability of ever being wrong.
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
            self._sizes = iter(sizes.tolist())
        self._cluster: list[float | None] = []
        self._size = 0

    def add(self, score: float | None) -> None:
        if self._sizes is None:
            self.sequence.add(score)
            return
        if not self._cluster:
            self._size = next(self._sizes)
        self._cluster.append(score)
        if len(self._cluster) == self._size:
            self.sequence.add(*self._cluster)
            self._cluster = []


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
    codes = frame.groups.codes[frame.order[frame.scorable[frame.order]]]
    if not codes.size:
        return np.empty(0, np.int64)
    begins = np.flatnonzero(np.r_[True, (codes[1:] != codes[:-1]) | (codes[1:] < 0)])
    return np.diff(np.append(begins, codes.size)).astype(np.int64, copy=False)
