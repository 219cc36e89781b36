"""Worker processes on this machine."""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from batchrun.errors import BatchrunError, StorageError
from batchrun.journal.child import python_command

_SECONDS_BETWEEN_STARTS = 1.0
_MOST_LOG_BYTES = 10 * 2**20


@asynccontextmanager
async def local_workers(
    number: int,
    arguments: list[str],
    environment: Mapping[str, str],
    log: Path,
    failed: Callable[[BatchrunError], None],
) -> AsyncIterator[None]:
    """Runs `number` processes of `batchrun worker` with these arguments; one that ends is started again.

    What they print is appended to `log`. `failed` hears of it once each has ended.
    """
    processes: set[subprocess.Popen[bytes]] = set()
    failures: set[int] = set()

    async def keep_running(place: int) -> None:
        while True:
            why = await _run_once(arguments, environment, log, processes)
            failures.add(place)
            if len(failures) == number:
                next_step = f"Next: fix the cause ({log} may say more), then run the same command."
                failed(StorageError(f"{why}\n{next_step}"))
            await anyio.sleep(_SECONDS_BETWEEN_STARTS)

    try:
        async with anyio.create_task_group() as tasks:
            for place in range(number):
                tasks.start_soon(keep_running, place)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_end, processes)


async def _run_once(
    arguments: list[str],
    environment: Mapping[str, str],
    log: Path,
    processes: "set[subprocess.Popen[bytes]]",
) -> str:
    """Runs a process to its end; returns why it has ended, or can't be started."""
    try:
        process = start_logged(python_command("batchrun.__main__", "worker", *arguments), environment, log)
    except OSError as error:
        return f"A worker process can't be started: {error.strerror}."
    processes.add(process)
    # A limiter of its own: the default one's places are needed by the run's threads.
    code = await anyio.to_thread.run_sync(
        process.wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )
    processes.discard(process)
    return f"A worker process ended with exit code {code}: {_last_words(log)}"


def start_logged(
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    stdin: int = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """Starts a command; what it prints is appended to `log`, which is emptied first if it is large.

    Raises OSError.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        if output.tell() > _MOST_LOG_BYTES:
            output.truncate(0)
        # In a session of its own: a terminal's Ctrl-C is for the run, which lets its requests end.
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        )


def _last_words(log: Path) -> str:
    lines: list[str] = []
    with suppress(OSError), log.open("rb") as file:  # it may have been moved away
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4_096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " ".join(line.removeprefix("batchrun: ") for line in lines[-2:]) or "it said nothing."


def _end(processes: "set[subprocess.Popen[bytes]]") -> None:
    """Kills them: the run has all outcomes, or doesn't wait for any."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
