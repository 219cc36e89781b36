"""The fan-out in this process: tasks that carry out the dispatcher's decisions.

One task prepares requests, one follows the journal's commits, one waits for limiter and circuit breaker, and
each request in flight has a task, which takes the next request when its own has ended.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

import anyio
import anyio.abc

from batchrun.engine.auto_reset_event import AutoResetEvent
from batchrun.engine.dispatcher import END, ROWS, Dispatcher, ReleasedRequest
from batchrun.exchange import Failure, Response
from batchrun.rows.active import Row
from batchrun.stops import Stop

DRAIN_SECONDS = 30.0
"""Seconds that an interrupted run waits for the requests in flight."""


class Sender(Protocol):
    """Sends a request's body and returns the outcome. Any exception is an internal fault of batchrun."""

    async def send(self, body: bytes, begun: Callable[[], None] | None = None) -> Response | Failure:
        """`begun` is called once a response with a status of success begins."""


class Engine:
    """One run's tasks. Every method but `run` returns at once, and is called in the event loop's thread."""

    def __init__(self, dispatcher: Dispatcher, sender: Sender, *, waits: bool = False) -> None:
        """`waits`: prepares no row before `begin` is called. A source without rows ends the run before."""
        self._dispatcher = dispatcher
        self._sender = sender
        self._waits = waits
        self._tasks: anyio.abc.TaskGroup
        # Each wakes one task: a request has ended or is durable, or the run was stopped, so that `advance`
        # may get further; requests are held back, so that a task has to wait; the journal has committed.
        self._changed = AutoResetEvent()
        self._held = AutoResetEvent()
        self._committed = AutoResetEvent()
        self._commits: deque[tuple[int, frozenset[int]]] = deque()
        # Tasks without a request. Idle and busy tasks together never exceed the highest concurrency
        # so far, since the dispatcher releases no more.
        self._idle: list[asyncio.Future[ReleasedRequest]] = []

    async def run(self, source: AsyncIterator[Sequence[Row]]) -> Stop | None:
        """Sends all requests for the rows of the source, until it ends or the run is stopped; then drains.

        Returns why it was stopped, None if it wasn't. Raises the source's exception, after the drain, and the
        errors given to `fail` and `abort`.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._wait_while_held)
                self._tasks.start_soon(self._follow_commits)
                await self._prepare(source)
                self._tasks.cancel_scope.cancel()
        finally:
            self._dispatcher.abandon()
        return self._dispatcher.stopped_by

    def begin(self) -> None:
        """Prepares rows from now on."""
        self._waits = False
        self._changed.call()

    def stop(self, stop: Stop, drain_seconds: float | None = None) -> None:
        """Prepares nothing more and drains, for `drain_seconds` at most; the first reason counts."""
        self._waits = False
        self._dispatcher.stop(stop, None if drain_seconds is None else time.monotonic() + drain_seconds)
        self._changed.call()

    def adjusted(self, concurrency: int | None) -> None:
        """Goes on with new caps and limits, and with another bound on the requests in flight if given."""
        if concurrency is not None:
            self._dispatcher.change_concurrency(concurrency)
        self._changed.call()
        self._held.call()

    def fail(self, error: Exception) -> None:
        """Prepares nothing more and drains, for a fault that doesn't affect the requests in flight."""
        self._waits = False
        self._dispatcher.fail(error)
        self._changed.call()

    def abort(self, error: Exception | None = None, stop: Stop | None = None) -> None:
        """Ends at once, for the reason `stop` if given. Requests on the wire become uncertain."""
        self._dispatcher.abort(error, stop)
        self._tasks.cancel_scope.cancel()

    def intents_committed(self, intents: int, not_needed: frozenset[int]) -> None:
        """Notes that `intents` more intents are durable in the journal."""
        self._commits.append((intents, not_needed))
        self._committed.call()

    async def _prepare(self, source: AsyncIterator[Sequence[Row]]) -> None:
        while (need := self._dispatcher.advance(time.monotonic())) != END:
            if need != ROWS:
                await self._changed.wait(need)
            else:
                await self._fetch(source)

    async def _fetch(self, source: AsyncIterator[Sequence[Row]]) -> None:
        try:
            rows = await anext(source, None)
        except Exception as error:  # of whatever kind: the responses in flight are paid for
            self.fail(error)
            return
        while rows and self._waits:
            await self._changed.wait(math.inf)
        self._dispatcher.feed(rows)

    async def _follow_commits(self) -> None:
        """Runs in its own task, so that an error here ends the run."""
        while True:
            await self._committed.wait()
            while self._commits:
                self._assign(self._dispatcher.committed(*self._commits.popleft(), time.monotonic()))

    async def _wait_while_held(self) -> None:
        """Waits for limiter and circuit breaker on behalf of all idle tasks."""
        while True:
            await self._held.wait()
            while (seconds := self._dispatcher.hold(time.monotonic())) > 0:
                await self._held.wait(seconds)
            self._assign(self._dispatcher.release(time.monotonic()))

    def _assign(self, released: Sequence[ReleasedRequest]) -> None:
        """Gives each request to an idle task, or to a new one."""
        for request in released:
            if not self._idle:
                self._tasks.start_soon(self._send_on, request)
                continue
            task = self._idle.pop()
            if not task.cancelled():  # else the run is being aborted, which cancels released requests
                task.set_result(request)
        if self._dispatcher.sendable:
            self._held.call()
        self._changed.call()

    async def _send_on(self, released: ReleasedRequest) -> None:
        """Sends one request after the other, as long as the run lasts."""
        while True:
            self._dispatcher.sent(released)
            try:
                request = released.active.request
                begun = None if request.beginning is None else partial(self._begun, released)
                result = await self._sender.send(request.body, begun)
            except Exception as error:  # an internal fault: the other responses are paid for
                self._dispatcher.faulted(released, error)
                self._changed.call()
                return
            next_ones = self._dispatcher.completed(released, result, time.monotonic())
            self._assign(next_ones[1:])
            released = next_ones[0] if next_ones else await self._idling()

    def _begun(self, released: ReleasedRequest) -> None:
        """Notes that a response begins: requests that share its prompt's marked beginning may go."""
        self._dispatcher.begun(released)
        self._changed.call()

    async def _idling(self) -> ReleasedRequest:
        task: asyncio.Future[ReleasedRequest] = asyncio.get_running_loop().create_future()
        self._idle.append(task)
        return await task
