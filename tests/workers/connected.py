"""A pool and its workers in one event loop, over sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from batchrun.client.settings import EndpointSettings
from batchrun.errors import BatchrunError
from batchrun.exchange import Failure, Response
from batchrun.rows.observer import Observer, Worker
from batchrun.workers.access import Token, listening_socket, new_certificate, new_token
from batchrun.workers.pool import Door, Pool, open_pool
from batchrun.workers.worker import CoordinatorLink, Ending, serve
from tests.endpoint.wire_server import REQUEST


class Heard(Observer):
    """Notes the workers that have joined and left."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.workers: list[Any] = []

    def worker_joined(self, worker: Worker) -> None:
        self.workers.append(worker)
        self.events.append("joined")

    def worker_left(self, worker: Worker, why: str) -> None:
        self.events.append(why)


def a_door(*, tls: bool = False) -> Door:
    context, fingerprint = new_certificate() if tls else (None, None)
    return Door(listening_socket("127.0.0.1", 0, tls=tls), new_token(fingerprint), context)


@asynccontextmanager
async def by_hand(_failed: Callable[[BatchrunError], None]) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def pool_at(
    url: str, door: Door, heard: Observer | None = None, **settings: object
) -> AsyncIterator[Pool]:
    endpoint = EndpointSettings(url, "sk-test-key", **settings)  # type: ignore[arg-type]
    async with open_pool(door, by_hand, endpoint, heard or Observer()) as pool:
        yield pool


class RunningWorker:
    """A worker as a task, with the link that it has."""

    def __init__(self, task: "asyncio.Task[Ending]", link: CoordinatorLink) -> None:
        self.task = task
        self.link = link

    @property
    def transport(self) -> asyncio.Transport:
        assert self.link._transport is not None
        return self.link._transport

    def fall_silent(self) -> None:
        self.link._timers.pop("beat").cancel()


@asynccontextmanager
async def worker_of(door: Door, token: Token | None = None) -> AsyncIterator[RunningWorker]:
    connected: asyncio.Future[CoordinatorLink] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(door.address, token or door.token, connected=connected.set_result))
    try:
        yield RunningWorker(task, await asyncio.wait_for(asyncio.shield(connected), 5))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def sent(pool: Pool, number: int = 1) -> list[Response | Failure]:
    """Sends so many requests at once; their texts differ."""
    bodies = [REQUEST.replace(b"hello", b"hello %d" % each) for each in range(number)]
    return await asyncio.gather(*map(pool.send, bodies))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
