"""Counts of a run that is going on, for whoever shows them."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from batchrun.exchange import Failure


@dataclass(slots=True)
class Progress:
    """Written by the run, read by the display. `rows` is None until the input's length is known.

    Of the rows that have been `looked_at`, `answered_before` and `failed_before` needed no asking; `shared`
    are those that wait for, or took, another row's answer; `answers` are those of this run, also those that
    are `invalid`. An evaluation has `scored` rows so far, whose scores sum up to `score_sum`, and may have
    a `notice` for people. `held_by` names the cap that the next request waits for, `slowed_by` says whether
    it waits for the rate limit or for an endpoint that fails. `stopping` says why nothing more is started,
    while what is in flight is waited for. `on_failure` is told of each failed attempt: its number in the
    journal, and whether its row ends with it.
    """

    rows: int | None = None
    looked_at: int = 0
    answered_before: int = 0
    failed_before: int = 0
    shared: int = 0
    unsendable: int = 0
    answers: int = 0
    invalid: int = 0
    failed: int = 0
    requests: int = 0
    retried: int = 0
    tokens: int = 0
    scored: int = 0
    score_sum: float = 0.0
    notice: str | None = None
    by_error: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    held_by: str | None = None
    slowed_by: Literal["rate limit", "endpoint"] | None = None
    last_error: str | None = None
    stopping: str | None = None
    writing: bool = False
    started: float = field(default_factory=time.monotonic)
    on_failure: Callable[[Failure, int, bool], None] = lambda _failure, _attempt, _final: None

    @property
    def done(self) -> int:
        settled_before = self.answered_before + self.failed_before
        return settled_before + self.shared + self.unsendable + self.answers + self.failed

    def rows_so_far(self) -> dict[str, int | None]:
        """Rows by status, `total` and `pending` None where the length of the input isn't known yet.

        `looked_at` of the `total` have been compared with the journal; any other may have its answer there.
        `shared` are rows that wait for another's answer or took it: here they count under no status.
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
            "looked_at": self.looked_at,
        }

    def sent(self, number: int) -> None:
        self.requests += 1
        self.retried += number > 1
        self.in_flight += 1
        self.held_by = None

    def answered(self, tokens: int) -> None:
        self.in_flight -= 1
        self.tokens += tokens

    def row_ended(self, *, failed: bool, invalid: bool) -> None:
        self.failed += failed
        self.answers += not failed
        self.invalid += invalid

    def attempt_failed(self, failure: Failure, attempt: int, *, final: bool) -> None:
        self.by_error[failure.code] += 1
        self.in_flight -= 1
        self.last_error = failure.message
        self.on_failure(failure, attempt, final)
