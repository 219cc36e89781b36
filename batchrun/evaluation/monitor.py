"""Scores rows of a run as they end, and stops the run once enough is known."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from batchrun.client.request import Request
from batchrun.errors import EXIT_DONE
from batchrun.evaluation.early_stopping import LookAhead, StoppingRule, decision
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.report import score_name
from batchrun.evaluation.statistics.confidence_sequences import InOrder
from batchrun.evaluation.statistics.forecast import forecast, forecast_text
from batchrun.evaluation.statistics.intervals import Codes
from batchrun.job.evaluation import Evaluation
from batchrun.rows.active import Row
from batchrun.rows.metrics import Metric, Unscored
from batchrun.rows.observer import Observer
from batchrun.rows.result import RowResult
from batchrun.rows.selection import SampleCandidate
from batchrun.stops import Stop

PILOT_ROWS = 50

Lookup = Callable[[Request], RowResult]
"""Returns the result of a request's row, from the journal."""
Spending = Callable[[], tuple[float, float] | None]
"""Returns the mean cost of a row so far, and the budget for all rows, including earlier ones, in nano-USD;
None without a cap."""


class EvaluationMonitor(Observer):
    """Follows the sample of a run in sending order; the report could derive the same later.

    `enough` is the reason to stop, once the evaluation's early stop is decided. `observer` gets the scores
    and the forecast. Rows are expected in the thread that reads them, and end in the event loop's.
    """

    def __init__(
        self,
        frame: SamplingFrame,
        evaluation: Evaluation,
        metric: Metric,
        observer: Observer,
        look_up: Lookup,
        spending: Spending | None,
    ) -> None:
        self.enough: Stop | None = None
        self._lock = Lock()
        self._evaluation = evaluation
        self._metric = metric
        self._observer = observer
        self._look_up = look_up
        self._spending = spending
        self._population = frame.population
        self._clusters = _first_clusters(frame) if evaluation.cluster else None
        self._evidence: StoppingRule | None = None
        self._ahead: LookAhead | None = None
        if evaluation.stop is not None and frame.population > 0:
            self._evidence = StoppingRule(frame, evaluation, metric.binary)
            self._ahead = LookAhead(self._evidence, evaluation.stop, frame.population)
        self._in_order = InOrder(self._count)
        self._positions = 0
        self._waiting: dict[bytes, list[tuple[int, Any]]] = defaultdict(list)
        self._unsendable: list[int] = []
        self._pilot: list[float] = []

    @property
    def decides(self) -> bool:
        """Whether it may stop the run."""
        return self._ahead is not None

    def may_begin(self, row: Row) -> bool:
        """Returns whether a row may begin, though it may turn out that the decision did not need it."""
        with self._lock:
            expected = self._waiting.get(row.request.row)
            return self._ahead is None or not expected or self._ahead.allows(expected[0][0])

    def expect(self, candidates: Sequence[SampleCandidate]) -> list[Row]:
        """Takes the next rows in sending order; returns the rows to send."""
        with self._lock:
            for candidate in candidates:
                if candidate.expected is not None:
                    self._expect(candidate)
        return [candidate.row for candidate in candidates if candidate.row is not None]

    def _expect(self, candidate: SampleCandidate) -> None:
        if candidate.row is None:
            self._unsendable.append(self._positions)
        else:
            self._waiting[candidate.row.request.row].append((self._positions, candidate.expected))
        self._positions += 1

    def row_ended(self, request: Request, result: RowResult) -> None:
        with self._lock:
            # Not when they are expected: the run would get it in the reader's thread.
            while self._unsendable:
                self._in_order.arrived(self._unsendable.pop(), None)
            for position, expected in self._waiting.pop(request.row, ()):
                score = self._metric.score(result.label_text, expected) if result.answered else None
                self._in_order.arrived(position, None if isinstance(score, Unscored) else score)

    def row_known(self, request: Request, result: RowResult) -> None:
        self.row_ended(request, result)

    def row_shared(self, request: Request, *, ended: bool) -> None:
        if ended and request.row in self._waiting and (result := self._look_up(request)).ended:
            self.row_ended(request, result)

    def _count(self, score: float | None) -> None:
        self._observer.row_scored(score)
        if len(self._pilot) < PILOT_ROWS:
            self._pilot.append(np.nan if score is None else score)
            if len(self._pilot) == PILOT_ROWS:
                self._forecast()
        if self._evidence is not None and self._evaluation.stop is not None and self.enough is None:
            self._evidence.add(score)
            decided = decision(self._evidence.sequence, self._evaluation.stop)
            if decided is not None:
                self.enough = _enough(score_name(self._metric), decided, self._evidence.sequence.n)

    def _forecast(self) -> None:
        """Reports what the budget buys, as estimated from the first rows."""
        spending = None if self._spending is None else self._spending()
        if spending is None:
            return
        per_row, for_all = spending
        costs = np.full(len(self._pilot), per_row)
        bought = forecast(
            np.array(self._pilot),
            costs,
            for_all - per_row * len(self._pilot),
            self._population,
            self._metric.binary,
            clusters=self._clusters,
        )
        self._observer.forecast_made(forecast_text(bought, "the budget", score_name(self._metric)))


def _first_clusters(frame: SamplingFrame) -> Codes:
    """Returns the clusters of the pilot's rows, the first of the population in sending order."""
    scorable = frame.scorable_order
    return frame.groups.codes[scorable[:PILOT_ROWS]]


def _enough(name: str, decided: str, rows: int) -> Stop:
    return Stop(
        EXIT_DONE,
        f"Enough is known after {rows:,} scored rows: the {name} is {decided}.",
        "remove evaluation.stop to send the other rows",
    )
