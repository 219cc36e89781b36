"""The asynchronous part of a run: the engine between the journal's thread, the endpoint and the signals."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from batchrun.books import Books
from batchrun.engine import DRAIN_SECONDS, Engine, Rules
from batchrun.interruption import Interruption
from batchrun.job import Job
from batchrun.journal import Journal, JournalWriter
from batchrun.journal.ballast import give_up_room, holding_room
from batchrun.ledger import Ledger
from batchrun.limits.limiter import Limiter
from batchrun.open_rows import Row
from batchrun.pricing import Tariff
from batchrun.progress import Progress
from batchrun.row_queue import RowWatch
from batchrun.stops import Stop, at_cap_of, by_full_disk
from batchrun.target import Target
from batchrun.wire.endpoint import EndpointSettings, open_endpoint

T = TypeVar("T")


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


def ask(
    asking: Asking,
    journal: Journal,
    chunks: Generator[list[Row], None, None],
    progress: Progress,
    interruption: Interruption,
    watch: RowWatch | None = None,
) -> Stop | None:
    """Asks for the requests of `chunks` until they end or the run is stopped.

    Returns why it was stopped, None where it wasn't: also for a disk that is full, as long as what is in
    flight still finds room. Raises JournalError and StorageError.
    """
    with holding_room(journal.path.with_name("ballast")) as ballast, closing(chunks):
        return anyio.run(
            partial(_ask, asking, journal, chunks, progress, interruption, watch, ballast),
            backend_options=_event_loop(),
        )


async def _ask(
    asking: Asking,
    journal: Journal,
    chunks: Generator[list[Row], None, None],
    progress: Progress,
    interruption: Interruption,
    watch: RowWatch | None,
    ballast: Path,
) -> Stop | None:
    # With this task's context, by which anyio knows its event loop.
    in_loop = partial(asyncio.get_running_loop().call_soon_threadsafe, context=copy_context())
    writer = JournalWriter(
        journal,
        committed=lambda intents, not_needed: in_loop(engine.intents_committed, intents, not_needed),
        failed=lambda error: in_loop(engine.abort, error),
        make_room=lambda: give_up_room(ballast),
        nearly_full=lambda error: in_loop(engine.stop, by_full_disk(error), DRAIN_SECONDS),
        row_counts=_now_and_then(lambda: (encoded_rows(progress), asking.run)),
    )
    ended: Stop | Exception | None
    try:
        async with open_endpoint(asking.endpoint) as endpoint, anyio.create_task_group() as tasks:
            books = Books(
                asking.run,
                journal.next_attempt(),
                asking.ledger,
                asking.tariff,
                writer,
                journal.latest_start(),
            )
            engine = Engine(asking.rules, books, asking.limiter, endpoint, progress, watch)
            if asking.most_seconds is not None:
                tasks.start_soon(_stop_after, engine, asking.most_seconds)
            try:
                with interruption.told_to(lambda stop: in_loop(_interrupt, engine, stop)):
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


def endpoint_settings(job: Job, target: Target) -> EndpointSettings:
    """How the server of a run is spoken to."""
    return EndpointSettings(
        base_url=target.base_url,
        api_key=target.api_key,
        # A sandbox wants a key, also in the place of a server that wants none.
        auth="bearer" if target.sandbox else job.endpoint.auth,
        headers=job.endpoint.headers,
        timeout=job.endpoint.timeout_seconds,
        idle_timeout=job.endpoint.idle_timeout_seconds,
        max_answer_bytes=job.endpoint.max_answer_bytes,
        connections=job.limits.concurrency,
        free_tier=job.request.free_tier,
        stream=job.request.stream,
    )


def encoded_rows(progress: Progress) -> str:
    """The counts of rows so far, as the journal keeps them."""
    return msgspec.json.encode(progress.rows_so_far()).decode()


def _now_and_then(value: Callable[[], T]) -> Callable[[], T | None]:
    """`value`, but None within a second of the last time."""
    due = -math.inf

    def value_if_due() -> T | None:
        nonlocal due
        if time.monotonic() < due:
            return None
        due = time.monotonic() + 1
        return value()

    return value_if_due


def _interrupt(engine: Engine, stop: Stop) -> None:
    """The first signal drains, the second ends at once."""
    if stop.at_once:
        engine.abort(stop=stop)
    else:
        engine.stop(stop, drain_seconds=DRAIN_SECONDS)


async def _stop_after(engine: Engine, seconds: float) -> None:
    await anyio.sleep(seconds)
    engine.stop(at_cap_of("budget.seconds"), drain_seconds=DRAIN_SECONDS)


def _event_loop() -> dict[str, Any]:
    try:
        import uvloop  # noqa: F401  # faster, where it is to be had
    except ImportError:
        return {}
    return {"use_uvloop": True}
