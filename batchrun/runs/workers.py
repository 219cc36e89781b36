"""Opens the door to a run's workers, if its job has any: then its journal has a process of its own, too."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from shlex import join

from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.client.server import Server
from batchrun.engine.session import OpenSender, own_connections
from batchrun.errors import BatchrunError
from batchrun.job.credentials import without_key
from batchrun.job.spec import Job
from batchrun.job.workers import DEFAULT_COUNT, Workers, split_address
from batchrun.journal.process import commits_elsewhere
from batchrun.journal.writer import OpenCommits, commits_here
from batchrun.rows.observer import Observer
from batchrun.runs.run_folder import RunFolder, write_private
from batchrun.workers.access import (
    listening_socket,
    new_certificate,
    new_token,
    own_address,
    shown_address,
)
from batchrun.workers.local import local_workers
from batchrun.workers.pool import Door, Pool, Starter, open_pool
from batchrun.workers.ray_cluster import connected_cluster, ray_workers

_LOCAL_START_SECONDS = 60.0


def files_of_a_request(job: Job, server: Server) -> int:
    """Returns the descriptors that a request takes here: workers and their connections are elsewhere."""
    return (job.workers is None) + server.sandbox


def commits_of(job: Job, server: Server, locks: Sequence[int]) -> OpenCommits:
    """Returns what opens the journal's commits. A process of their own inherits the run's `locks`.

    Where these can't be inherited, the next run could begin beside such a process: then there is none.
    """
    if job.workers is None or not locks:
        return commits_here
    return commits_elsewhere(locks, without_key(os.environ, job, server.api_key))


def seconds_to_start(job: Job) -> float:
    """Returns how long the run waits for what sends.

    Processes on this machine need time to start, which is not an outage; the run is told if they can't.
    """
    is_local = job.workers is not None and job.workers.kind == "local"
    return max(job.retry.outage_seconds, _LOCAL_START_SECONDS if is_local else 0.0)


@contextmanager
def senders(
    job: Job, server: Server, folder: RunFolder, warn: Callable[[str], object]
) -> Iterator[OpenSender]:
    """Yields what opens the run's sender: its endpoint, or workers that can connect from now on.

    The token file lies in the run's folder during the block. `warn` gets a line that says how workers are
    started by hand. Raises UsageError if the job's address can't be listened at, or its cluster isn't there.
    """
    workers = job.workers
    if workers is None:
        yield own_connections
        return
    with _place(workers) as (host, port):
        tls, fingerprint = new_certificate() if workers.tls else (None, None)
        token = new_token(fingerprint)
        try:
            # Before anybody can connect: a worker may have found the file of a run that was killed.
            write_private(folder.token, f"{token.text()}\n")
            with closing(listening_socket(host, port, tls=workers.tls)) as listener:
                door = Door(listener, token, tls)
                start = _starter(job, workers, server, folder, door, warn)
                yield partial(_open_pool, workers, door, start)
        finally:
            folder.token.unlink(missing_ok=True)


@asynccontextmanager
async def _open_pool(
    workers: Workers, door: Door, start: Starter, settings: EndpointSettings, observer: Observer
) -> AsyncIterator[Pool]:
    """Opens the pool. Raises JobError where workers on this machine could not connect to the endpoint."""
    if workers.kind == "local":
        async with open_endpoint(settings):
            pass
    async with open_pool(door, start, settings, observer) as pool:
        yield pool


@contextmanager
def _place(workers: Workers) -> Iterator[tuple[str, int]]:
    """Yields where the run listens: host and port. A Ray cluster is connected during the block."""
    match workers.kind:
        case "local":
            yield "127.0.0.1", 0
        case "listen":
            host, port = split_address(workers.address or ":0")
            yield host or own_address(), port
        case "ray":
            with connected_cluster(workers.address or "auto") as host:
                yield host, 0


def _starter(
    job: Job,
    workers: Workers,
    server: Server,
    folder: RunFolder,
    door: Door,
    warn: Callable[[str], object],
) -> Starter:
    if workers.kind == "ray":
        return partial(ray_workers, workers.count, door.address, door.token)
    arguments = ["--connect", shown_address(*door.address), "--token-file", str(folder.token)]
    if workers.kind == "local":
        environment = without_key(os.environ, job, server.api_key)
        number = workers.count or DEFAULT_COUNT
        # The run listens before it starts them: where nobody does any more, it has been killed.
        arguments += ["--wait", "0"]
        return partial(local_workers, number, arguments, environment, folder.workers_log)
    warn(f"waits for workers. On each machine: batchrun worker {join(arguments)}")
    return _started_by_hand


@asynccontextmanager
async def _started_by_hand(_failed: Callable[[BatchrunError], None]) -> AsyncIterator[None]:
    yield
