"""The sample of an evaluation: the rows that were asked, in their order, with scores and costs."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from batchrun.evaluation.intervals import Codes, Scores
from batchrun.evaluation.metrics import Metric, Score, Unscored, bare_label, choice_pair
from batchrun.prompts import InvalidRow
from batchrun.row_records import RowRecord
from batchrun.sampling.frame import SamplingFrame


@dataclass(frozen=True)
class Sample:
    """Arrays have an item for each row of the population that was asked, in the order of asking.

    `indexes` are those of the rows in the input; `scores` are NaN where a row has none (`unscored` counts
    why); `costs` are nano-USD, what is uncertain included. `groups` are codes of clusters or strata, empty
    where there are none. `pairs` are the expected and the given label of each scored row.
    """

    indexes: npt.NDArray[np.int64]
    scores: Scores
    costs: npt.NDArray[np.float64]
    groups: Codes
    pairs: list[tuple[str, str | None]]
    unscored: dict[str, int]


@dataclass
class SampleTally:
    """Takes all rows in the order of the input, and keeps what belongs to those that were asked.

    `classes`: keeps the expected and the given label of each.
    """

    frame: SamplingFrame
    metric: Metric
    classes: bool
    rows: int = 0
    _asked: "array[int]" = field(default_factory=lambda: array("q"))
    _scores: "array[float]" = field(default_factory=lambda: array("d"))
    _costs: "array[float]" = field(default_factory=lambda: array("d"))
    _pairs: list[tuple[str, str | None] | None] = field(default_factory=list)
    _spellings: dict[str, str] = field(default_factory=dict)
    _reasons: dict[int, str] = field(default_factory=dict)

    def add(self, record: RowRecord | InvalidRow | None, expected: Any, duplicate: bool) -> float | None:
        """Takes the next row; returns its score, None where it has none.

        `duplicate`: an earlier row has the same request, and bears the cost.
        """
        index, self.rows = self.rows, self.rows + 1
        if record is None or (isinstance(record, RowRecord) and record.history is None):
            return None
        scored = self._score(record, expected)
        if isinstance(scored, Unscored):
            self._reasons[index] = scored.reason
        score = None if isinstance(scored, Unscored) else scored
        self._asked.append(index)
        self._scores.append(np.nan if score is None else score)
        self._costs.append(0 if duplicate else _nano_usd(record))
        if self.classes:
            said = record.said if isinstance(record, RowRecord) else None
            self._pairs.append(None if score is None else self._pair(said, expected))
        return score

    def _pair(self, said: str | None, expected: Any) -> tuple[str, str | None]:
        wanted, given = choice_pair(said, expected)
        return self._as_first_spelled(wanted), None if given is None else self._as_first_spelled(given)

    def _as_first_spelled(self, label: str) -> str:
        return self._spellings.setdefault(bare_label(label), label)

    def sample(self) -> Sample:
        """Up to the first row in the order of asking that was not asked."""
        frame = self.frame
        slot = np.full(frame.order.size, -1, np.int64)
        asked = np.frombuffer(self._asked, np.int64) if self._asked else np.empty(0, np.int64)
        slot[asked] = np.arange(asked.size)
        slots = slot[frame.order]
        unasked = np.flatnonzero(slots < 0)
        prefix = frame.order[: unasked[0] if unasked.size else slots.size]
        indexes = prefix[frame.scorable[prefix]]
        kept = slot[indexes]
        pairs = [self._pairs[place] for place in kept.tolist()] if self.classes else []
        return Sample(
            indexes,
            np.array(self._scores)[kept],
            np.array(self._costs)[kept],
            frame.groups.codes[indexes] if frame.groups.codes.size else np.empty(0, np.int32),
            [pair for pair in pairs if pair is not None],
            dict(Counter(self._reasons[row] for row in indexes.tolist() if row in self._reasons)),
        )

    def _score(self, record: RowRecord | InvalidRow, expected: Any) -> Score:
        if isinstance(record, InvalidRow):
            return Unscored(record.code)
        if not record.ended:
            return Unscored("not answered")
        if not record.answered:
            return Unscored((record.history and record.history.error_code) or "failed")
        return self.metric.score(record.said, expected)


def _nano_usd(record: RowRecord | InvalidRow) -> int:
    """Settled and uncertain."""
    if isinstance(record, InvalidRow) or record.history is None:
        return 0
    return (record.history.nano_usd or 0) + record.history.uncertain_nano_usd
