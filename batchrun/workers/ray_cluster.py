"""Workers that a Ray cluster starts, spreads over its nodes and starts again.

Ray carries no request and no key: the actors connect back to the run, as workers that are started by hand do.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any

import anyio

from batchrun.errors import BatchrunError, StorageError, UsageError
from batchrun.job.workers import NO_CLIENT
from batchrun.text import single_line
from batchrun.workers.access import Token
from batchrun.workers.ray_actor import SendingActor

_CONNECT_SECONDS = 10.0
_SECONDS_BETWEEN_TRIES = 1.0
_ENDING_SECONDS = 2.0
_SHUTDOWN_SECONDS = 5.0
_CLIENT = "ray://"


@contextmanager
def connected_cluster(address: str) -> Iterator[str]:
    """Connects this process to the cluster during the block, unless it is a driver already.

    Yields the address by which other nodes reach this one. Raises UsageError.
    """
    ray = _ray()
    if ray.util.client.ray.is_connected() or os.environ.get("RAY_ADDRESS", "").startswith(_CLIENT):
        raise UsageError(f"[workers]: {NO_CLIENT}")
    is_driver = ray.is_initialized()
    if not is_driver:
        _check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        _connect(address)
    try:
        yield str(ray.util.get_node_ip_address())
    finally:
        if not is_driver:
            # A thread, since it waits for a cluster that may be gone.
            shutdown = threading.Thread(target=ray.shutdown, daemon=True)
            shutdown.start()
            shutdown.join(_SHUTDOWN_SECONDS)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError("Workers on Ray need: pip install 'batchrun-llm[ray]'") from None


def _check_reachable(address: str) -> None:
    """Raises UsageError if nobody listens there: Ray ends the process then, after a minute."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> UsageError:
    why = single_line(str(error)).partition(". ")[0]  # what follows are options of Ray's own commands
    return UsageError(
        f"[workers] address: no Ray cluster can be reached at {address!r}: {why}.\n"
        "Next: start one with `ray start --head`, or submit the command with `ray job submit`."
    )


def _connect(address: str) -> None:
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _ray().init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end the run without draining it


@asynccontextmanager
async def ray_workers(
    number: int | None,
    coordinator: tuple[str, int],
    token: Token,
    failed: Callable[[BatchrunError], None],
) -> AsyncIterator[None]:
    """Keeps `number` actors sending for the coordinator during the block; None: one for each core.

    Ray starts an actor again whose process or node has died. `failed` hears of it once each has failed.
    """
    ray = _ray()
    count = number or max(1, int(ray.cluster_resources().get("CPU", 1)))
    failures: set[int] = set()
    actors: dict[int, Any] = {}

    async def keep_serving(place: int) -> None:
        while True:
            if place not in actors:
                actors[place] = _actor()
            try:
                why = await actors[place].serve.remote(*coordinator, token.text())
            except ray.exceptions.RayError as error:
                why = f"Ray can't run a worker: {single_line(str(error))}"
                ray.kill(actors.pop(place))
            if why is None:
                return
            failures.add(place)
            if len(failures) == count:
                failed(StorageError(why))
            await anyio.sleep(_SECONDS_BETWEEN_TRIES)

    try:
        async with anyio.create_task_group() as tasks:
            for place in range(count):
                tasks.start_soon(keep_serving, place)
            try:
                yield
            finally:
                # Until then actors end by themselves: Ray complains about a kill before.
                tasks.cancel_scope.deadline = anyio.current_time() + _ENDING_SECONDS
    finally:
        for actor in actors.values():
            ray.kill(actor)


def _actor() -> Any:
    options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
    return _ray().remote(num_cpus=1)(SendingActor).options(**options).remote()
