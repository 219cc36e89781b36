"""Scores rows of a run as they end, and stops the run once enough is known."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from batchrun.errors import EXIT_DONE
from batchrun.evaluation.forecast import forecast, forecast_text
from batchrun.evaluation.intervals import Codes
from batchrun.evaluation.metrics import Metric, Unscored
from batchrun.evaluation.sequences import InOrder
from batchrun.job.evaluation import Evaluation
from batchrun.open_rows import Ended, Row
from batchrun.pending import Candidate
from batchrun.progress import Progress
from batchrun.prompts import Request
from batchrun.sampling.early_stop import Evidence, decision
from batchrun.sampling.frame import SamplingFrame
from batchrun.sampling.report import score_name
from batchrun.stops import Stop

PILOT_ROWS = 50

Lookup = Callable[[Request], Ended | None]
"""How the row of a request has ended, by the journal."""
Spending = Callable[[], tuple[float, float] | None]
"""The mean cost of a row so far, and what the budget has for all rows, those so far included, in nano-USD;
None where there is no cap."""


class Monitor:
    """Follows the sample of a run in the order of asking; knows nothing that the report couldn't say later.

    `stop` is called once, when the evaluation's early stop is decided. Rows are expected in the thread that
    reads them, and end in the event loop's.
    """

    def __init__(
        self,
        frame: SamplingFrame,
        evaluation: Evaluation,
        metric: Metric,
        progress: Progress,
        look_up: Lookup,
        spending: Spending | None,
    ) -> None:
        self.stop: Callable[[Stop], object] = lambda _: None
        self._lock = Lock()
        self._evaluation = evaluation
        self._metric = metric
        self._progress = progress
        self._look_up = look_up
        self._spending = spending
        self._population = frame.population
        self._clusters = _first_clusters(frame) if evaluation.cluster else None
        stops = evaluation.stop is not None and frame.population > 0
        self._evidence = Evidence(frame, evaluation, metric.binary) if stops else None
        self._in_order = InOrder(self._count)
        self._positions = 0
        self._waiting: dict[bytes, list[tuple[int, Any]]] = defaultdict(list)
        self._unsendable: list[int] = []
        self._pilot: list[float] = []
        self._decided = False

    def expect(self, candidates: Sequence[Candidate]) -> list[Row]:
        """Takes the next rows in the order of asking; returns those to ask for."""
        with self._lock:
            for candidate in candidates:
                if candidate.expected is not None:
                    self._expect(candidate)
        return [candidate.row for candidate in candidates if candidate.row is not None]

    def _expect(self, candidate: Candidate) -> None:
        if candidate.row is None:
            self._unsendable.append(self._positions)
        else:
            self._waiting[candidate.row.request.row].append((self._positions, candidate.expected))
        self._positions += 1

    def ended(self, row: Ended) -> None:
        with self._lock:
            # Not when they are expected: what is decided then would stop the run from the reader's thread.
            while self._unsendable:
                self._in_order.arrived(self._unsendable.pop(), None)
            for position, expected in self._waiting.pop(row.request.row, ()):
                score = None if row.text is None else self._metric.score(row.said, expected)
                self._in_order.arrived(position, None if isinstance(score, Unscored) else score)

    def answered_elsewhere(self, request: Request) -> None:
        """`request` is the first one of its row."""
        if request.row in self._waiting and (row := self._look_up(request)) is not None:
            self.ended(row)

    def _count(self, score: float | None) -> None:
        progress = self._progress
        progress.scored += score is not None
        progress.score_sum += score or 0.0
        if len(self._pilot) < PILOT_ROWS:
            self._pilot.append(np.nan if score is None else score)
            if len(self._pilot) == PILOT_ROWS:
                self._forecast()
        if self._evidence is not None and self._evaluation.stop is not None and not self._decided:
            self._evidence.add(score)
            decided = decision(self._evidence.sequence, self._evaluation.stop)
            if decided is not None:
                self._decided = True
                self.stop(_enough(score_name(self._metric), decided, self._evidence.sequence.n))

    def _forecast(self) -> None:
        """Says what the budget buys, as far as the first rows can tell."""
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
        self._progress.notice = forecast_text(bought, "the budget", score_name(self._metric))


def _first_clusters(frame: SamplingFrame) -> Codes:
    """The clusters of the pilot's rows, which are the first of the population in the order of asking."""
    scorable = frame.order[frame.scorable[frame.order]]
    return frame.groups.codes[scorable[:PILOT_ROWS]]


def _enough(name: str, decided: str, rows: int) -> Stop:
    return Stop(
        EXIT_DONE,
        f"Enough is known after {rows:,} scored rows: the {name} is {decided}.",
        "leave evaluation.stop out to ask for the other rows",
    )
