"""Signals: the first SIGHUP, SIGINT or SIGTERM lets a run drain, a second one ends it at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from batchrun.stops import AT_ONCE, DRAINING, Stop, interrupted, is_echo


class ImmediateShutdown(BaseException):
    """The second signal was received. Not an Exception, so that no handler takes it for a fault."""


class ShutdownRequest:
    """The stop requested by signals or by a program's other threads: `stop` is None before the first.

    `tell` is called with each stop: for a signal in the main thread, between any two steps of its work.
    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stop: Stop | None = None
        self.tell: Callable[[Stop], object] = _nobody
        self._clock = clock
        self._first: tuple[int, float] | None = None

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock()
        if is_echo(self._first, number, now):
            return
        self._first = self._first or (number, now)
        self.request(interrupted(number, immediate=self.stop is not None or number in AT_ONCE))

    def request(self, stop: Stop) -> None:
        # In this order: a listener that is added in between reads `stop` afterwards.
        self.stop = stop
        self.tell(stop)

    @contextmanager
    def notifying(self, tell: Callable[[Stop], object]) -> Iterator[None]:
        """Calls `tell` with each stop for the duration of the block, also for an earlier signal.

        Blocks may be nested: the innermost is told first.
        """
        others = self.tell

        def tell_all(stop: Stop) -> None:
            tell(stop)
            others(stop)

        self.tell = tell_all
        try:
            if self.stop is not None:
                tell(self.stop)
            yield
        finally:
            self.tell = others

    def check(self) -> None:
        """Raises ImmediateShutdown after a second signal.

        Call it regularly: an exception raised in a signal handler can be lost in a finalizer.
        """
        if self.stop is not None and self.stop.immediate:
            raise ImmediateShutdown


@contextmanager
def handling_signals(shutdown: ShutdownRequest | None = None) -> Iterator[ShutdownRequest]:
    """Handles the signals in place of the previous handlers.

    Outside of the main thread, which alone gets signals, it handles none.
    """
    shutdown = shutdown or ShutdownRequest()
    if threading.current_thread() is not threading.main_thread():
        yield shutdown
        return
    before = [(number, signal.signal(number, shutdown.on_signal)) for number in _heard()]
    try:
        yield shutdown
    finally:
        for number, handler in before:
            # None: the previous handler was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _heard() -> list[int]:
    """Returns the signals to handle; an ignored SIGHUP stays ignored: under `nohup` a run has no terminal."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in (*DRAINING, *AT_ONCE) if not (ignored and number == signal.SIGHUP)]


def _nobody(_stop: Stop) -> None:
    pass
