"""A whole run before a simulated server in virtual time, with what the display says twice a second.

The dispatcher, limiter, circuit breaker and display are the real ones; journal and endpoint are simulated.
"""

import heapq
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from batchrun.client.server import Server as Address
from batchrun.engine.dispatcher import END, ROWS, ReleasedRequest
from batchrun.exchange import BillingStatus, Failure, FailureAction
from batchrun.job.file import make_job
from batchrun.journal import Journal
from batchrun.runs.observers import progress_lines
from batchrun.runs.observers.rates import RateMeter
from batchrun.runs.observers.view import View
from benchmarks.limit_servers import Refusal, Server
from tests.money.dispatching import Desk
from tests.money.fanout import answer

ROUND_TRIP = 0.02
BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Look:
    """The display at an instant. `to_go` and `next_request` in seconds, None where it says nothing."""

    at: float
    lines: list[str]
    to_go: float | None
    next_request: float | None


class ShownRun:
    """A run of `rows` rows, one attempt after the other, until it ends or `most_seconds` have passed."""

    def __init__(
        self,
        journal: Journal,
        server: Server,
        rows: int,
        *,
        concurrency: int = 64,
        latency: float = 0.2,
        limits: Mapping[str, int] | None = None,
        outage_seconds: float = 900.0,
        most_seconds: float = 3_600.0,
    ) -> None:
        given = dict(limits or {})
        job = make_job(
            {
                "input": {"path": "in.csv"},
                "prompt": {"template": "{{ text }}"},
                "request": {"model": "m", "max_tokens": 16},
                "output": {"path": "out.parquet"},
                "limits": {"concurrency": concurrency, **given},
            },
            Path.cwd(),
            sandbox=True,
        )
        self._desk = desk = Desk(
            rows,
            concurrency=concurrency,
            max_attempts=6,
            max_wait_seconds=120.0,
            outage_seconds=outage_seconds,
            requests_per_minute=given.get("requests_per_minute"),
        )
        desk.progress.rows = rows
        address = Address("http://127.0.0.1:1", None, sandbox=True)
        before = journal.totals(sandbox=True)
        self._view = View(job, address, desk.ledger, desk.progress, desk.limiter, before)
        self._server, self._latency, self._most_seconds = server, latency, most_seconds
        self._random = random.Random(1)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self.looks: list[Look] = []
        self.seconds = 0.0

    def looked_at(self, monkeypatch: pytest.MonkeyPatch) -> list[Look]:
        """Runs to the end; returns the looks. `seconds` is then when it ended."""
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        meter = RateMeter(self._view.progress, now)
        random.seed(1)  # the retry policy draws from it
        next_look = BETWEEN_LOOKS
        while (wake := self._go_on(now)) is not None and now < self._most_seconds:
            while next_look <= wake:
                now = next_look
                self.looks.append(_look(now, progress_lines.status_lines(self._view, meter, 0)))
                next_look += BETWEEN_LOOKS
            now = wake
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2](now)
        self.seconds = now
        return self.looks

    def _go_on(self, now: float) -> float | None:
        """Sends what may be sent; returns when to go on, None at the run's end."""
        dispatcher, log = self._desk.dispatcher, self._desk.log
        while True:
            need = dispatcher.advance(now)
            if not log.uncommitted:
                break
            intents, log.uncommitted = log.uncommitted, 0
            self._send(dispatcher.committed(intents, frozenset(), now), now)
        if need == END:
            return None
        if dispatcher.sendable:
            self._send(dispatcher.release(now), now)
        wakes = [self._events[0][0] if self._events else math.inf]
        if need != ROWS and isinstance(need, float):
            wakes.append(now + max(need, 1e-6))
        if dispatcher.sendable:
            wakes.append(now + max(dispatcher.hold(now), 1e-6) + self._random.expovariate(1000))
        return min(wakes)

    def _send(self, released: list[ReleasedRequest], now: float) -> None:
        for each in released:
            self._desk.dispatcher.sent(each)
            self._at(now + ROUND_TRIP / 2, partial(self._arrive, each))

    def _at(self, instant: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (instant, next(self._numbers), happens))

    def _arrive(self, each: ReleasedRequest, now: float) -> None:
        refusal = self._server.arrive(now, 75)
        if refusal is not None:
            self._at(
                now + ROUND_TRIP / 2, lambda at: self._end(each, _failure(refusal, self._server, at), at)
            )
            return
        latency = self._latency * self._random.lognormvariate(0, 0.3)
        self._at(now + latency, lambda at: self._answer(each, at))

    def _answer(self, each: ReleasedRequest, now: float) -> None:
        self._server.ended(now)
        self._end(each, answer(limits=self._server.limits(now)), now)

    def _end(self, each: ReleasedRequest, result: object, now: float) -> None:
        self._send(self._desk.dispatcher.completed(each, result, now), now)  # type: ignore[arg-type]


def _failure(refusal: Refusal, server: Server, now: float) -> Failure:
    limited = refusal.status == 429
    return Failure(
        "rate_limit_error" if limited else "overloaded_error",
        "Slow down." if limited else "The server is overloaded.",
        FailureAction.SLOW_DOWN if limited else FailureAction.RETRY,
        BillingStatus.NO,
        refusal.status,
        retry_after=refusal.wait,
        limits=server.limits(now),
    )


def _look(now: float, lines: list[str]) -> Look:
    return Look(
        now, lines, _seconds(r"([\d:]+) to go", lines[0]), _seconds(r"next request in ([\d:]+)", lines[1])
    )


def _seconds(pattern: str, line: str) -> float | None:
    found = re.search(pattern, line)
    if found is None:
        return None
    seconds = 0.0
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
