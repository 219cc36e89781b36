"""Opens the door to a run's workers, if its job has any."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from batchrun.client.server import Server
from batchrun.engine.session import OpenSender, own_connections
from batchrun.errors import BatchrunError
from batchrun.job.spec import Job
from batchrun.job.workers import DEFAULT_COUNT, Workers, split_address
from batchrun.runs.run_folder import RunFolder, write_private
from batchrun.workers.access import (
    listening_socket,
    new_certificate,
    new_token,
    own_address,
    shown_address,
)
from batchrun.workers.local import local_workers, without_key
from batchrun.workers.pool import Door, Starter, open_pool


def files_of_a_request(job: Job, server: Server) -> int:
    """Returns the descriptors that a request takes here: workers and their connections are elsewhere."""
    return (job.workers is None) + server.sandbox


@contextmanager
def senders(
    job: Job, server: Server, folder: RunFolder, warn: Callable[[str], object]
) -> Iterator[OpenSender]:
    """Yields what opens the run's sender: its endpoint, or workers that can connect from now on.

    The token file lies in the run's folder during the block. `warn` gets a line that says how workers are
    started by hand. Raises UsageError if the job's address can't be listened at.
    """
    if job.workers is None:
        yield own_connections
        return
    door = _door(job.workers)
    try:
        write_private(folder.token, f"{door.token.text()}\n")
        arguments = ["--connect", shown_address(*door.address), "--token-file", str(folder.token)]
        if job.workers.kind == "local":
            environment = without_key(os.environ, job.endpoint.api_key_env, server.api_key)
            number = job.workers.count or DEFAULT_COUNT
            start: Starter = partial(local_workers, number, arguments, environment, folder.workers_log)
        else:
            start = _started_by_hand
            warn(f"waits for workers. On each machine: batchrun worker {' '.join(arguments)}")
        yield lambda settings, observer: open_pool(door, start, settings, observer)
    finally:
        door.listener.close()
        folder.token.unlink(missing_ok=True)


def _door(workers: Workers) -> Door:
    host, port = _address(workers)
    tls, fingerprint = new_certificate() if workers.tls else (None, None)
    listener = listening_socket(host, port, tls=workers.tls)
    return Door(listener, new_token(fingerprint), tls)


def _address(workers: Workers) -> tuple[str, int]:
    if workers.kind == "local":
        return "127.0.0.1", 0
    host, port = split_address(workers.address or ":0")
    return host or own_address(), port


@asynccontextmanager
async def _started_by_hand(_failed: Callable[[BatchrunError], None]) -> AsyncIterator[None]:
    yield
