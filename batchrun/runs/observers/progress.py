"""Counts of a running run, for the display, the journal and the summary."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrun.client.request import Request
from batchrun.errors import BatchrunError
from batchrun.exchange import Response, Waiting
from batchrun.rows.observer import AttemptFailed, Observer, RowsScanned, Worker
from batchrun.rows.result import FAILED, INVALID, RowResult


@dataclass(slots=True)
class Progress(Observer):
    """Counts events; other threads read it. `rows` is None until the input's length is known.

    Of the rows that have been `scanned`, `answered_before` and `failed_before` needed no request; `shared`
    rows wait for another row's response, `to_share` of them, or took it; `answers` counts this run's,
    including `invalid` ones. An evaluation has `scored` rows so far, whose scores sum up to `score_sum`, and
    may have a `forecast` for people. `blocked_by` names the cap that the next request waits for, `waiting`
    says what else it waits for, and until when; the last one of those that are sent again waits until
    `repeats_until`. `commit` says since when the journal is being written, and by which process if not by
    this one. `workers` are connected. `stopping_for` says why no more rows are begun while requests in flight
    drain.
    """

    rows: int | None = None
    scanned: int = 0
    answered_before: int = 0
    failed_before: int = 0
    shared: int = 0
    to_share: int = 0
    unsendable: int = 0
    answers: int = 0
    invalid: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    retried: int = 0
    tokens: int = 0
    scored: int = 0
    score_sum: float = 0.0
    forecast: str | None = None
    by_error: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    blocked_by: str | None = None
    waiting: Waiting | None = None
    repeats_until: float = 0.0
    last_error: str | None = None
    stopping_for: str | None = None
    workers: list[Worker] = field(default_factory=list)
    writing: bool = False
    commit: tuple[float, int | None] | None = None
    started: float = field(default_factory=time.monotonic)
    _waiting_for: Counter[bytes] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        settled_before = self.answered_before + self.failed_before
        took = self.shared - self.to_share
        return settled_before + took + self.unsendable + self.answers + self.failed

    @property
    def answered(self) -> int:
        """Returns the rows with a response, including earlier ones, but without rows that share one."""
        return self.answered_before + self.answers

    def rows_so_far(self) -> dict[str, Any]:
        """Returns rows by status; `total` and `pending` are None if the input's length isn't known yet.

        `looked_at` of the `total` have been compared with the journal; any other may have its answer there.
        `shared` rows wait for another row's response or took it: here they count under no status. The
        `reasons` belong to rows that this run found invalid.
        """
        ok = self.answered_before + self.answers - self.invalid
        failed = self.failed_before + self.failed + self.unsendable
        pending = None if self.rows is None else self.rows - ok - self.invalid - failed - self.shared
        return {
            "total": self.rows,
            "ok": ok,
            "invalid": self.invalid,
            "failed": failed,
            "pending": pending,
            "shared": self.shared,
            "looked_at": self.scanned,
            "reasons": {code: {"rows": rows} for code, rows in self.reasons.items()},
        }

    def rows_scanned(self, event: RowsScanned) -> None:
        self.scanned += event.rows
        self.unsendable += event.unsendable
        self.answered_before += event.answered
        self.failed_before += event.failed

    def rows_counted(self, rows: int) -> None:
        self.rows = rows

    def request_sent(self, number: int) -> None:
        self.requests += 1
        self.retried += number > 1
        self.in_flight += 1

    def response_received(self, response: Response, tokens: int) -> None:
        self.in_flight -= 1
        self.tokens += tokens

    def attempt_failed(self, event: AttemptFailed) -> None:
        self.in_flight -= 1
        self.by_error[event.failure.code] += 1
        self.last_error = event.failure.message
        if event.delay is not None:
            self.repeats_until = max(self.repeats_until, time.monotonic() + event.delay)

    def blocked(self, cap: str | None) -> None:
        self.blocked_by = cap

    def throttled(self, waiting: Waiting | None) -> None:
        self.waiting = waiting

    def worker_joined(self, worker: Worker) -> None:
        self.workers = [*self.workers, worker]  # a new list: another thread may be reading this one

    def worker_left(self, worker: Worker, why: str) -> None:
        self.workers = [each for each in self.workers if each is not worker]

    def stopping(self, reason: str) -> None:
        self.stopping_for = reason

    def row_ended(self, request: Request, result: RowResult) -> None:
        failed = result.status == FAILED
        self.to_share -= self._waiting_for.pop(request.row, 0)
        self.failed += failed
        self.answers += not failed
        if result.status == INVALID:
            self.invalid += 1
            self.reasons[result.flaw or ""] += 1

    def row_shared(self, request: Request, *, ended: bool) -> None:
        self.shared += 1
        if ended:
            self.to_share -= self._waiting_for.pop(request.row, 0)
        else:
            self.to_share += 1
            self._waiting_for[request.row] += 1

    def row_scored(self, score: float | None) -> None:
        self.scored += score is not None
        self.score_sum += score or 0.0

    def forecast_made(self, text: str) -> None:
        self.forecast = text

    def output_begun(self) -> None:
        self.writing = True

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None:
        self.writing = False

    def run_failed(self, run: int, error: BatchrunError) -> None:
        self.writing = False
