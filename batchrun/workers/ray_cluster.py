"""Workers that a Ray cluster starts and spreads over its nodes.

Ray carries no request and no key: the actors connect back to the run, as workers that are started by hand do.
"""

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, redirect_stdout, suppress
from importlib import import_module
from typing import Any

import anyio

from batchrun.errors import BatchrunError, StorageError, UsageError
from batchrun.job.workers import NO_CLIENT
from batchrun.text import first_line, single_line
from batchrun.workers.access import Token
from batchrun.workers.ray_actor import SendingActor

_CONNECT_SECONDS = 10.0
_FIRST_BYTES_SECONDS = 30.0
_SECONDS_BETWEEN_TRIES = 1.0
_ENDING_SECONDS = 2.0
_SHUTDOWN_SECONDS = 5.0
_CLIENT = "ray://"
_HTTP2_BEGINNING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A client's first bytes, with no settings: Ray's head speaks gRPC (RFC 9113, section 3.4)."""
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_MISSING = "ModuleNotFoundError"
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): .*", re.MULTILINE)


@contextmanager
def connected_cluster(address: str) -> Iterator[str]:
    """Connects this process to the cluster during the block, unless it is a driver already.

    Yields the address by which other nodes reach this one. Raises UsageError.
    """
    ray = _ray()
    named = os.environ.get("RAY_ADDRESS", "")
    if ray.util.client.ray.is_connected() or named.startswith(_CLIENT):
        raise UsageError(f"[workers]: {NO_CLIENT}")
    if ray.is_initialized():
        yield str(ray.util.get_node_ip_address())
        return
    check_reachable(named or address if address == "auto" else address)
    # Ray prints the cluster's troubles to stdout, which is for a command's result.
    with redirect_stdout(sys.stderr):
        _connect(address)
        try:
            yield str(ray.util.get_node_ip_address())
        finally:
            # A thread, since it waits for a cluster that may be gone.
            shutdown = threading.Thread(target=ray.shutdown, daemon=True)
            shutdown.start()
            shutdown.join(_SHUTDOWN_SECONDS)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError("Workers on Ray need: pip install 'batchrun-llm[ray]'") from None


def check_reachable(address: str) -> None:
    """Raises UsageError if no Ray listens there: Ray itself would try for many minutes."""
    if address.startswith(("http://", "https://")):
        raise _no_cluster(address, "that is how the dashboard's address looks")
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            connection.settimeout(_FIRST_BYTES_SECONDS)
            answer = b""
            with suppress(ConnectionError):  # of a TLS server, which reads another beginning
                connection.sendall(_HTTP2_BEGINNING)
                answer = connection.recv(5)
    except OSError as error:
        raise _no_cluster(address, str(error)) from None
    if answer == b"HTTP/":
        raise _no_cluster(address, "a web server answers there, as the dashboard is")


def _no_cluster(address: str, why: str) -> UsageError:
    return UsageError(
        f"[workers] address: no Ray cluster can be reached at {address!r}: {why}.\n"
        "Next: name the head's HOST:6379, start one with `ray start --head`, or submit the command with"
        " `ray job submit`."
    )


def _not_joined(address: str, error: Exception) -> UsageError:
    """Words for a refusal. Where Ray names options of its own commands, its first sentence is enough."""
    text = " ".join(single_line(str(error)).split()).partition(". ")[0].rstrip(" .")
    if text.startswith("Could not find"):
        return _no_cluster(address, text)
    return UsageError(
        f"[workers] address: can't join the Ray cluster at {address!r}: {text}.\n"
        "Next: have the cluster's versions of Ray and Python, and its token where RAY_AUTH_MODE is token."
    )


def _connect(address: str) -> None:
    ray = _ray()
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _not_joined(address, error) from None
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

    One whose process or node has died is replaced. `failed` hears of it once each has failed.
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
                why = why_it_cannot_run(error)
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


def why_it_cannot_run(error: Exception) -> str:
    """A line for what Ray says: of a traceback the exception, else the first sentence."""
    raised = _RAISED.findall(_COLOUR.sub("", str(error)))
    if not raised:
        return f"Ray can't run a worker: {single_line(_COLOUR.sub('', first_line(error)))}"
    advice = "\nNext: install the same version of batchrun on all nodes." if _MISSING in raised[-1] else ""
    return f"Ray can't run a worker: {single_line(raised[-1])}{advice}"


def _actor() -> Any:
    # Ray itself starts none again: it would print a warning for each that a run no longer needs.
    return _ray().remote(num_cpus=1, scheduling_strategy="SPREAD")(SendingActor).remote()
