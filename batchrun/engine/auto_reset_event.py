"""An event for which one task waits, and which any other sets."""

import asyncio
import math


class AutoResetEvent:
    """Wakes the one task that waits for it; a call while no task waits is kept for the next wait.

    Uses a future of the event loop, since every row waits once: an anyio event with a timeout scope costs
    several times as much.
    """

    def __init__(self) -> None:
        self._called = False
        self._waiter: asyncio.Future[None] | None = None

    def call(self) -> None:
        self._called = True
        self._wake()

    async def wait(self, seconds: float | None = None) -> None:
        if not self._called:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            endless = seconds is None or seconds == math.inf
            timer = None if endless else loop.call_later(seconds or 0.0, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._called = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
