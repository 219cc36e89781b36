"""The sample of an evaluation: the sent rows in their order, with scores and costs."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from batchrun.client.builder import InvalidRow
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.statistics.intervals import Codes, Scores
from batchrun.rows.history import RowHistory, result_of
from batchrun.rows.metrics import Metric, Score, Unscored, bare_label, choice_pair


@dataclass(frozen=True)
class Sample:
    """Arrays have an item for each row of the population that was sent, in sending order.

    `indexes` are the rows' indexes in the input; `scores` are NaN for rows without one (`unscored` counts the
    reasons); `costs` are nano-USD, including uncertain spend. `groups` are codes of clusters or strata, empty
    without any. `pairs` are the expected and the given label of each scored row.
    """

    indexes: npt.NDArray[np.int64]
    scores: Scores
    costs: npt.NDArray[np.float64]
    groups: Codes
    pairs: list[tuple[str, str | None]]
    unscored: dict[str, int]


@dataclass
class SampleTally:
    """Takes all rows in input order, and keeps the data of the rows that were sent.

    `classes`: keeps the expected and the given label of each. `ended_only`: a row that was sent and has not
    ended counts as not sent, for whoever sends it again.
    """

    frame: SamplingFrame
    metric: Metric
    classes: bool
    ended_only: bool = False
    rows: int = 0
    _asked: "array[int]" = field(default_factory=lambda: array("q"))
    _scores: "array[float]" = field(default_factory=lambda: array("d"))
    _costs: "array[float]" = field(default_factory=lambda: array("d"))
    _pairs: list[tuple[str, str | None] | None] = field(default_factory=list)
    _spellings: dict[str, str] = field(default_factory=dict)
    _reasons: dict[int, str] = field(default_factory=dict)

    def add(self, record: RowHistory | InvalidRow | None, expected: Any, duplicate: bool) -> float | None:
        """Takes the next row; returns its score, None without one.

        `duplicate`: an earlier row has the same request and the cost.
        """
        index, self.rows = self.rows, self.rows + 1
        if record is None or (isinstance(record, RowHistory) and not self._counts(record)):
            return None
        scored = self._score(record, expected)
        if isinstance(scored, Unscored):
            self._reasons[index] = scored.reason
        score = None if isinstance(scored, Unscored) else scored
        self._asked.append(index)
        self._scores.append(np.nan if score is None else score)
        self._costs.append(0 if duplicate else _nano_usd(record))
        if self.classes:
            self._pairs.append(None if score is None else self._pair(result_of(record).label_text, expected))
        return score

    def _counts(self, record: RowHistory) -> bool:
        return record.history is not None and (record.result.ended or not self.ended_only)

    def _pair(self, label_text: str | None, expected: Any) -> tuple[str, str | None]:
        wanted, given = choice_pair(label_text, expected)
        return self._as_first_spelled(wanted), None if given is None else self._as_first_spelled(given)

    def _as_first_spelled(self, label: str) -> str:
        return self._spellings.setdefault(bare_label(label), label)

    def sent(self) -> int:
        """Returns the rows of the population that were sent up to the first in sending order that was not."""
        unsent = np.flatnonzero(self._slots()[self.frame.scorable_order] < 0)
        return int(unsent[0]) if unsent.size else self.frame.population

    def unsent(self) -> int:
        """Returns the rows that were not sent, those without an expected value included."""
        return int((self._slots() < 0).sum())

    def _slots(self) -> npt.NDArray[np.int64]:
        """Returns the place of each row of the input among those that were sent, -1 for the others."""
        slots = np.full(self.frame.order.size, -1, np.int64)
        asked = np.frombuffer(self._asked, np.int64) if self._asked else np.empty(0, np.int64)
        slots[asked] = np.arange(asked.size)
        return slots

    def sample(self) -> Sample:
        """Returns the sample up to the first row of the population in sending order that was not sent."""
        frame, slot = self.frame, self._slots()
        indexes = frame.scorable_order[: self.sent()]
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

    def _score(self, record: RowHistory | InvalidRow, expected: Any) -> Score:
        if isinstance(record, InvalidRow):
            return Unscored(record.code)
        if not record.result.ended:
            return Unscored("not answered")
        if not record.result.answered:
            return Unscored((record.history and record.history.error_code) or "failed")
        return self.metric.score(record.result.label_text, expected)


def _nano_usd(record: RowHistory | InvalidRow) -> int:
    """Returns settled and uncertain spend."""
    if isinstance(record, InvalidRow) or record.history is None:
        return 0
    return (record.history.nano_usd or 0) + record.history.uncertain_nano_usd
