"""The asynchronous part of a run: the engine between the journal's thread, the endpoint and the signals."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from batchrun.books import Books
from batchrun.engine import DRAIN_SECONDS, Engine, Rules
from batchrun.journal import Journal, JournalWriter
from batchrun.journal.ballast import give_up_room, holding_room
from batchrun.ledger import Ledger
from batchrun.limits.limiter import Limiter
from batchrun.open_rows import Row
from batchrun.pricing import Tariff
from batchrun.progress import Progress
from batchrun.stops import Stop, at_cap_of, interrupted
from batchrun.wire.endpoint import EndpointSettings, open_endpoint


@dataclass(frozen=True, slots=True)
class Asking:
    """What it takes to ask: the bounds, the money and the server. `run` is the journal's number of the
    run, `most_seconds` bounds the asking."""

    run: int
    rules: Rules
    ledger: Ledger
    tariff: Tariff
    limiter: Limiter
    endpoint: EndpointSettings
    most_seconds: float | None = None


def ask(asking: Asking, journal: Journal, chunks: Iterator[list[Row]], progress: Progress) -> Stop | None:
    """Asks for the requests of `chunks` until they end or the run is stopped.

    Returns why it was stopped, None where it wasn't. Raises JournalError and StorageError.
    """
    with holding_room(journal.path.with_name("ballast")) as ballast, _signal_handlers_kept():
        return anyio.run(_ask, asking, journal, chunks, progress, ballast, backend_options=_event_loop())


async def _ask(
    asking: Asking,
    journal: Journal,
    chunks: Iterator[list[Row]],
    progress: Progress,
    ballast: Path,
) -> Stop | None:
    if threading.current_thread() is not threading.main_thread():
        return await _exchange(asking, journal, chunks, progress, ballast, None)
    # Until the journal is closed: a signal that came while its last answers are written must not lose them.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        return await _exchange(asking, journal, chunks, progress, ballast, signals)


async def _exchange(
    asking: Asking,
    journal: Journal,
    chunks: Iterator[list[Row]],
    progress: Progress,
    ballast: Path,
    signals: AsyncIterator[signal.Signals] | None,
) -> Stop | None:
    # With this task's context, by which anyio knows its event loop.
    in_loop = partial(asyncio.get_running_loop().call_soon_threadsafe, context=copy_context())
    writer = JournalWriter(
        journal,
        committed=lambda intents, not_needed: in_loop(engine.intents_committed, intents, not_needed),
        failed=lambda error: in_loop(engine.abort, error),
        make_room=lambda: give_up_room(ballast),
        nearly_full=lambda error: in_loop(engine.fail, error),
    )
    ended: Stop | Exception | None
    try:
        async with open_endpoint(asking.endpoint) as endpoint, anyio.create_task_group() as tasks:
            books = Books(asking.run, journal.next_attempt(), asking.ledger, asking.tariff, writer)
            engine = Engine(asking.rules, books, asking.limiter, endpoint, progress)
            if signals is not None:
                tasks.start_soon(_stop_on_signals, engine, signals)
            if asking.most_seconds is not None:
                tasks.start_soon(_stop_after, engine, asking.most_seconds)
            try:
                ended = await engine.run(_in_thread(chunks))
            except Exception as error:  # the task group would wrap it: it is raised outside
                ended = error
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(writer.close)
    if isinstance(ended, Exception):
        raise ended
    return ended


async def _in_thread(chunks: Iterator[list[Row]]) -> AsyncIterator[Sequence[Row]]:
    """Reads, renders and looks up in a thread, so that requests in flight don't wait for it."""
    while (chunk := await anyio.to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk


async def _stop_on_signals(engine: Engine, signals: AsyncIterator[signal.Signals]) -> None:
    """The first signal drains, the second ends at once."""
    drained = False
    async for number in signals:
        stop = interrupted(by_sigterm=number == signal.SIGTERM)
        engine.stop(stop, drain_seconds=DRAIN_SECONDS)
        if drained:
            engine.abort()
        drained = True


async def _stop_after(engine: Engine, seconds: float) -> None:
    await anyio.sleep(seconds)
    engine.stop(at_cap_of("budget.seconds"), drain_seconds=DRAIN_SECONDS)


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """The event loop leaves the default handlers behind, not those that were there before."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before:
                signal.signal(number, handler)


def _event_loop() -> dict[str, Any]:
    try:
        import uvloop  # noqa: F401  # faster, where it is to be had
    except ImportError:
        return {}
    return {"use_uvloop": True}
