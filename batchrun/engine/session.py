"""The asynchronous part of a run: connects the engine to the journal's thread, endpoint and signals."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.client.event_loop import event_loop_options
from batchrun.client.server import Server
from batchrun.clock import milliseconds
from batchrun.engine.accounting import Accounting, MoneyPool
from batchrun.engine.controls import Controls
from batchrun.engine.dispatcher import Dispatcher, Rules
from batchrun.engine.ledger import Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.local import DRAIN_SECONDS, Engine, Sender
from batchrun.engine.pricing import PriceList
from batchrun.engine.shutdown import ShutdownRequest
from batchrun.errors import BatchrunError
from batchrun.job.spec import MOST_IN_FLIGHT, Job
from batchrun.journal import Journal, JournalWriter
from batchrun.journal.ballast import give_up_room, holding_room
from batchrun.journal.writer import OpenCommits, commits_here
from batchrun.rows.active import Row
from batchrun.rows.observer import Observer
from batchrun.stops import Stop, by_endpoint, by_full_disk, by_moved_journal

T = TypeVar("T")
_JOURNAL_SECONDS = 10.0
"""How long a run that has to end at once waits for another process to write what it has been given."""


class RunSender(Sender, Protocol):
    """A sender that may need a while until it can send."""

    async def ready(self) -> None:
        """Returns once requests can be sent. Raises BatchrunError if they never can."""


class OpenSender(Protocol):
    """Opens a run's sender, whose events the observer hears."""

    def __call__(
        self, settings: EndpointSettings, observer: Observer, /
    ) -> AbstractAsyncContextManager[RunSender]: ...


def own_connections(
    settings: EndpointSettings, _observer: Observer
) -> AbstractAsyncContextManager[RunSender]:
    """Opens a sender in this process."""
    return open_endpoint(settings)


@dataclass(frozen=True, slots=True)
class Session:
    """The parts of sending: limits, prices and ledger, the server, what sends, and the observer.

    `run` is the journal's number for the run, `most_seconds` bounds the sending. `row_counts` returns the
    counts of rows so far, as JSON for the journal. `enough` is called when rows have ended: the stop that it
    returns ends the run; `may_begin` says whether a row may begin yet. The tasks `beside` run beside the
    sending, and may change its caps and limits. `open_commits` says where the journal is written. `pool`
    grants money if the budget has one. A sender that can't send after `start_seconds` ends the run.
    """

    run: int
    rules: Rules
    ledger: Ledger
    price_list: PriceList
    limiter: Limiter
    endpoint: EndpointSettings
    most_seconds: float | None = None
    observer: Observer = field(default_factory=Observer)
    row_counts: Callable[[], str] = lambda: "{}"
    enough: Callable[[], Stop | None] | None = None
    may_begin: Callable[[Row], bool] | None = None
    beside: Sequence[Callable[[Controls], Coroutine[Any, Any, None]]] = ()
    open_sender: OpenSender = own_connections
    open_commits: OpenCommits = commits_here
    pool: MoneyPool | None = None
    start_seconds: float = math.inf


def run_engine(
    session: Session,
    journal: Journal,
    chunks: Generator[list[Row], None, None],
    shutdown: ShutdownRequest,
) -> Stop | None:
    """Sends the requests of `chunks` until they end or the run is stopped.

    Returns why it was stopped, None if it wasn't. A full disk is such a stop as long as the requests in
    flight still find room. Raises JournalError and StorageError.
    """
    with holding_room(journal.path.with_name("ballast")) as ballast, closing(chunks):
        return anyio.run(
            partial(_run_engine, session, journal, chunks, shutdown, ballast),
            backend_options=event_loop_options(),
        )


async def _run_engine(
    session: Session,
    journal: Journal,
    chunks: Generator[list[Row], None, None],
    shutdown: ShutdownRequest,
    ballast: Path,
) -> Stop | None:
    # In this task's context, by which anyio identifies its event loop.
    in_loop = partial(asyncio.get_running_loop().call_soon_threadsafe, context=copy_context())
    ended: Stop | Exception | None
    async with (
        AsyncExitStack() as after_the_sender,
        session.open_sender(session.endpoint, session.observer) as sender,
    ):
        # Only now, since senders may take their time: what the writer reports is the engine's to hear.
        writer = JournalWriter(
            journal,
            committed=lambda intents, not_needed: in_loop(engine.intents_committed, intents, not_needed),
            failed=lambda error: in_loop(lambda: engine.abort(error)),
            make_room=lambda: give_up_room(ballast),
            nearly_full=lambda error: in_loop(engine.stop, by_full_disk(error), DRAIN_SECONDS),
            row_counts=_now_and_then(lambda: (session.row_counts(), session.run)),
            moved=lambda error: in_loop(engine.stop, by_moved_journal(error), DRAIN_SECONDS),
            open_commits=session.open_commits,
        )
        await after_the_sender.enter_async_context(_closing(writer, shutdown))
        async with anyio.create_task_group() as tasks:
            engine = Engine(_dispatcher_of(session, journal, writer), sender, waits=True)
            controls = Controls(engine, session.ledger, session.limiter, writer, session.most_seconds)
            tasks.start_soon(_begin_when_ready, engine, sender, session)
            tasks.start_soon(controls.stop_in_time)
            for task in session.beside:
                tasks.start_soon(task, controls)
            try:
                with shutdown.notifying(lambda stop: in_loop(_interrupt, engine, stop)):
                    ended = await engine.run(_in_thread(chunks))
            except Exception as error:  # the task group would wrap it: it is raised outside
                ended = error
            tasks.cancel_scope.cancel()
    if isinstance(ended, Exception):
        raise ended
    return ended


@asynccontextmanager
async def _closing(writer: JournalWriter, shutdown: ShutdownRequest) -> AsyncIterator[None]:
    """Closes the writer at the end. After a second signal, a process that writes has only so long for it."""
    loop = asyncio.get_running_loop()
    give_up_later = partial(loop.call_soon_threadsafe, loop.call_later, _JOURNAL_SECONDS, writer.give_up)
    with shutdown.notifying(lambda stop: give_up_later() if stop.immediate else None):
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.close)


def _dispatcher_of(session: Session, journal: Journal, writer: JournalWriter) -> Dispatcher:
    accounting = Accounting(
        session.run,
        journal.next_attempt(),
        session.ledger,
        session.price_list,
        writer,
        journal.latest_start(),
        milliseconds,
        session.pool,
    )
    return Dispatcher(
        session.rules, accounting, session.limiter, session.observer, session.enough, session.may_begin
    )


async def _begin_when_ready(engine: Engine, sender: RunSender, session: Session) -> None:
    """Has the engine begin once the sender can send; ends the run if it never can."""
    seconds = session.start_seconds
    try:
        with anyio.move_on_after(seconds) as waiting:
            await sender.ready()
    except BatchrunError as error:
        engine.fail(error)
        return
    if waiting.cancelled_caught:
        key = " (retry.outage_seconds)" if seconds == session.rules.outage_seconds else ""
        engine.stop(by_endpoint(f"No worker has come within {seconds:g} s{key}."))
    engine.begin()


async def _in_thread(chunks: Iterator[list[Row]]) -> AsyncIterator[Sequence[Row]]:
    """Reads, renders and looks rows up in a thread, so that requests in flight don't wait for it."""
    while (chunk := await anyio.to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk


def endpoint_settings(job: Job, server: Server) -> EndpointSettings:
    """Returns the settings of the client for the server of a run."""
    return EndpointSettings(
        base_url=server.base_url,
        api_key=server.api_key,
        # A sandbox requires a key, even if it replaces a server that requires none.
        auth="bearer" if server.sandbox else job.endpoint.auth,
        headers=job.endpoint.headers,
        timeout=job.endpoint.timeout_seconds,
        idle_timeout=job.endpoint.idle_timeout_seconds,
        max_answer_bytes=job.endpoint.max_answer_bytes,
        connections=MOST_IN_FLIGHT,  # limits.concurrency bounds them, and may be raised during the run
        free_tier=job.request.free_tier,
        stream=job.request.stream,
    )


def _now_and_then(value: Callable[[], T]) -> Callable[[], T | None]:
    """Returns `value`, limited to once a second: None in between."""
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
    if stop.immediate:
        engine.abort(stop=stop)
    else:
        engine.stop(stop, drain_seconds=DRAIN_SECONDS)
