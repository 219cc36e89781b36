"""Counts of a run that is going on, for whoever shows them."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from batchrun.exchange import Failure


@dataclass(slots=True)
class Progress:
    """Written by the run, read by the display. `rows` is None until the input's length is known.

    `settled_before` counts rows that needed no asking, `shared` those that wait for, or took, another
    row's answer; `answers` counts rows, also those `without_label`; `held_by` names the cap that the next
    request waits for. `stopping` says why nothing more is started, while what is in flight is waited
    for. `on_failure` is told of each
    failed attempt: its number in the journal, and whether its row ends with it.
    """

    rows: int | None = None
    settled_before: int = 0
    shared: int = 0
    invalid: int = 0
    answers: int = 0
    without_label: int = 0
    failed: int = 0
    requests: int = 0
    retried: int = 0
    tokens: int = 0
    by_error: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    held_by: str | None = None
    last_error: str | None = None
    stopping: str | None = None
    writing: bool = False
    started: float = field(default_factory=time.monotonic)
    on_failure: Callable[[Failure, int, bool], None] = lambda _failure, _attempt, _final: None

    @property
    def done(self) -> int:
        return self.settled_before + self.shared + self.invalid + self.answers + self.failed

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
        self.without_label += invalid

    def attempt_failed(self, failure: Failure, attempt: int, *, final: bool) -> None:
        self.by_error[failure.code] += 1
        self.in_flight -= 1
        self.last_error = failure.message
        self.on_failure(failure, attempt, final)
