"""A run of the real engine, books and journal against an endpoint in memory that keeps its own bill."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from batchrun.client.request import Request
from batchrun.client.retry import RetryPolicy
from batchrun.engine.accounting import Accounting
from batchrun.engine.dispatcher import Dispatcher, Rules
from batchrun.engine.ledger import Cap, Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.local import Engine
from batchrun.engine.pricing import PriceList
from batchrun.exchange import BillingStatus, Completion, Failure, FailureAction, Response
from batchrun.journal import Journal, JournalWriter, create_or_open
from batchrun.journal.writer import OpenCommits, commits_here
from batchrun.rows.active import Row
from batchrun.runs.observers.progress import Progress
from batchrun.stops import Stop
from tests.money.journals import digest_of, start_run

NANO_USD_PER_TOKEN = 5_000
TARIFF = PriceList(NANO_USD_PER_TOKEN * 10**6, NANO_USD_PER_TOKEN * 10**6)

SendResult = Response | Failure
Serve = Callable[[int, int], Awaitable[SendResult]]
"""Answers request `number` at its `attempt`, both from 1 up."""


def request(number: int, *, input_bound: int = 100, output_bound: int = 20) -> Request:
    return Request(b"%d" % number, digest_of(number), input_bound, output_bound)


def answer(
    input_tokens: int = 60, output_tokens: int = 15, *, nano_usd: int | None = None, **more: Any
) -> Response:
    cost = (input_tokens + output_tokens) * NANO_USD_PER_TOKEN if nano_usd is None else nano_usd
    counts: Any = {"completion": Completion("yes"), **more}
    return Response(b'{"type":"message"}', input_tokens, output_tokens, cost, **counts)


def failure(
    action: FailureAction = FailureAction.RETRY,
    billing: BillingStatus = BillingStatus.NO,
    status: int = 503,
    retry_after: float | None = None,
) -> Failure:
    return Failure("api_error", "It failed.", action, billing, status, retry_after)


@dataclass
class Provider:
    """`bill` is what it has charged in nano-USD, the answers that were lost on the way included."""

    serve: Serve
    bill: int = 0
    most_in_flight: int = 0
    in_flight: int = 0
    attempts: Counter[int] = field(default_factory=Counter)

    async def send(self, body: bytes, begun: object = None) -> SendResult:
        number = int(body)
        self.attempts[number] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = await self.serve(number, self.attempts[number])
        finally:
            self.in_flight -= 1
        if isinstance(reply, Response):
            self.bill += reply.cost_nano_usd or 0
        return reply


@dataclass
class Run:
    """What a test may set, and after `asked` look at."""

    path: Path
    caps: tuple[Cap, ...] = ()
    keep_credits: int | None = None
    price_list: PriceList = TARIFF
    rules: Rules = Rules(concurrency=8, retry=RetryPolicy(max_attempts=3, max_wait_seconds=0.01))  # noqa: RUF009
    broken_commit: int | None = None
    broken_input: Exception | None = None
    make_room: Callable[[], bool] = lambda: False
    open_commits: OpenCommits = commits_here
    meddle: Callable[[Engine], Coroutine[Any, Any, None]] | None = None

    async def asked(self, provider: Provider, requests: Sequence[Request]) -> Stop | None:
        """Asks for all requests, in chunks of 50. Raises what the engine raises."""
        journal = create_or_open(self.path)
        in_loop = partial(asyncio.get_running_loop().call_soon_threadsafe, context=copy_context())
        writer = (_Writer if self.broken_commit is None else _BreakingWriter)(
            journal,
            lambda intents, not_needed: in_loop(engine.intents_committed, intents, not_needed),
            lambda error: in_loop(engine.abort, error),
            self.make_room,
            lambda error: in_loop(engine.fail, error),
            open_commits=self.open_commits,
        )
        if isinstance(writer, _BreakingWriter):
            writer.commits_left = self.broken_commit or 0
        self.ledger = Ledger(self.caps, self.keep_credits)
        self.progress = Progress()
        accounting = Accounting(
            start_run(journal), journal.next_attempt(), self.ledger, self.price_list, writer
        )
        dispatcher = Dispatcher(self.rules, accounting, Limiter(10**9), self.progress)
        engine = Engine(dispatcher, provider)
        try:
            async with anyio.create_task_group() as tasks:
                if self.meddle is not None:
                    tasks.start_soon(self.meddle, engine)
                try:
                    ended: Stop | Exception | None = await engine.run(_chunks(requests, self.broken_input))
                except Exception as error:  # the task group would wrap it
                    ended = error
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_close, writer, journal)
        if isinstance(ended, Exception):
            raise ended
        return ended

    def journal(self) -> Journal:
        return create_or_open(self.path)


class _Writer(JournalWriter):
    pass


class _BreakingWriter(JournalWriter):
    """Its disk breaks after some commits."""

    commits_left = 0

    def _commit(self, batch: list[object]) -> frozenset[int]:  # type: ignore[override]
        self.commits_left -= 1
        if self.commits_left < 0:
            raise OSError("the disk is gone")
        return super()._commit(batch)  # type: ignore[arg-type]


def _close(writer: JournalWriter, journal: Journal) -> None:
    try:
        writer.close()
    except OSError:
        pass
    finally:
        journal.close()


async def _chunks(requests: Sequence[Request], broken: Exception | None) -> AsyncIterator[Sequence[Row]]:
    for start in range(0, len(requests), 50):
        await anyio.lowlevel.checkpoint()
        if broken is not None and start:
            raise broken
        yield [Row(start + place, one) for place, one in enumerate(requests[start : start + 50])]
