"""The worker process of `batchrun worker`: connects, comes back after a broken connection, obeys signals."""

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from batchrun.client.event_loop import event_loop_options
from batchrun.errors import EXIT_DONE, EXIT_FAULT, StorageError, UsageError
from batchrun.stops import EXIT_BY_SIGNAL, is_echo
from batchrun.workers.access import read_token_file, shown_address
from batchrun.workers.worker import CoordinatorLink, Ending, serve

_SECONDS_BETWEEN_TRIES = 0.25
_RECONNECT_SECONDS = 10.0


def run_worker(
    address: tuple[str, int], token_file: Path, wait_seconds: float, say: Callable[[str], object]
) -> int:
    """Sends for a coordinator until its run is over; returns the exit code.

    Waits for token file and coordinator, for `wait_seconds` at most. Raises UsageError and StorageError.
    """
    return anyio.run(
        partial(_Process(address, token_file, say).run, wait_seconds), backend_options=event_loop_options()
    )


class _Process:
    def __init__(self, address: tuple[str, int], token_file: Path, say: Callable[[str], object]) -> None:
        self._address = address
        self._token_file = token_file
        self._say = say
        self._link: CoordinatorLink | None = None
        self._signal: int | None = None
        self._first: tuple[int, float] | None = None
        self._task: asyncio.Task[Ending] | None = None

    async def run(self, wait_seconds: float) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
                loop.add_signal_handler(number, self._on_signal, number)
        self._task = loop.create_task(self._serve(wait_seconds))
        try:
            ending = await self._task
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            ending = Ending.LOST
        if self._signal is not None:
            return EXIT_BY_SIGNAL + self._signal
        self._say("the run is over" if ending is Ending.OVER else "the coordinator is gone")
        return EXIT_DONE if ending is Ending.OVER else EXIT_FAULT

    def _on_signal(self, number: int) -> None:
        """The first lets the requests in flight end, the second ends at once."""
        now = time.monotonic()
        if is_echo(self._first, number, now):
            return
        self._first = self._first or (number, now)
        second, self._signal = self._signal is not None, number
        if self._link is not None and not second:
            self._say("takes no more requests, and ends once those in flight have ended")
            self._link.leave()
        elif self._task is not None:
            self._task.cancel()

    async def _serve(self, wait_seconds: float) -> Ending:
        ending = await self._connected(wait_seconds, gives_up_if_refused=False)
        while ending is Ending.LOST and self._signal is None:
            self._link = None
            try:
                ending = await self._connected(_RECONNECT_SECONDS, gives_up_if_refused=True)
            except StorageError:
                break
            except UsageError:
                if self._token_file.exists():
                    raise
                break  # the run has ended meanwhile, and has removed it
        return ending

    async def _connected(self, seconds: float, *, gives_up_if_refused: bool) -> Ending:
        """Serves over one connection, for which it tries for `seconds`.

        Nobody listens any more where a coordinator has ended: then there is no point in trying.
        """
        until = time.monotonic() + seconds
        waiting = False
        while True:
            late = time.monotonic() >= until
            try:
                if late or self._token_file.exists():
                    return await serve(
                        self._address, read_token_file(self._token_file), connected=self._note, warn=self._say
                    )
            except OSError as error:
                if late or (gives_up_if_refused and isinstance(error, ConnectionRefusedError)):
                    why = error.strerror or "no answer in time"
                    raise StorageError(
                        f"No coordinator answers at {shown_address(*self._address)}: {why}.\n"
                        "Next: start the run, and name the address that it prints."
                    ) from None
            if not waiting:
                place = shown_address(*self._address)
                self._say(
                    f"waits for the run at {place} and its {self._token_file}, for {seconds:g} s at most"
                )
                waiting = True
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    def _note(self, link: CoordinatorLink) -> None:
        self._link = link
        self._say(f"connected to {shown_address(*self._address)}")
