"""SIGINT and SIGTERM: the first lets a run come to its end in order, the second ends it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from batchrun.stops import Stop, interrupted

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class EndedAtOnce(BaseException):
    """The second signal came. No Exception, so that nothing on the way takes it for a fault."""


class Interruption:
    """What signals, or a program's other threads, have asked for: `stop` is None before the first.

    `tell` is called with each stop: for a signal in the main thread, between any two steps of its work.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.tell: Callable[[Stop], object] = _nobody

    def hear(self, number: int, _frame: FrameType | None) -> None:
        self.ask(interrupted(by_sigterm=number == signal.SIGTERM, at_once=self.stop is not None))

    def ask(self, stop: Stop) -> None:
        # In this order: who begins to listen in between looks at `stop` afterwards.
        self.stop = stop
        self.tell(stop)

    @contextmanager
    def told_to(self, tell: Callable[[Stop], object]) -> Iterator[None]:
        """Tells somebody for as long as the block lasts, of a signal that came before it too."""
        self.tell = tell
        try:
            if self.stop is not None:
                tell(self.stop)
            yield
        finally:
            self.tell = _nobody

    def check(self) -> None:
        """Raises EndedAtOnce where a second signal has come.

        To be called now and then: what a handler raises by itself can be lost in a finalizer.
        """
        if self.stop is not None and self.stop.at_once:
            raise EndedAtOnce


@contextmanager
def heeding_signals(interruption: Interruption | None = None) -> Iterator[Interruption]:
    """Hears the signals in the place of the handlers that were there before.

    Outside of the main thread, which alone gets signals, it hears none.
    """
    interruption = interruption or Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = [(number, signal.signal(number, interruption.hear)) for number in _NUMBERS]
    try:
        yield interruption
    finally:
        for number, handler in before:
            # None: one that Python doesn't know of was there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _nobody(_stop: Stop) -> None:
    pass
