"""One task waits, any other wakes it."""

import anyio


class Wakeup:
    """Wakes the one task that waits for it; a call with nobody waiting is kept for the next wait."""

    def __init__(self) -> None:
        self._called = False
        self._event: anyio.Event | None = None

    def call(self) -> None:
        self._called = True
        if self._event is not None:
            self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        if not self._called:
            self._event = anyio.Event()
            if seconds is None:
                await self._event.wait()
            else:
                with anyio.move_on_after(seconds):
                    await self._event.wait()
            self._event = None
        self._called = False
