"""Values that take a while to make, kept until what they are made of has changed."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from batchrun.errors import BatchrunError

MOST_SHARE_OF_TIME = 0.01
"""During a run, so that the run has the processor. A person may ask for more."""

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Makes a value in a thread of its own, and again when its `stamp` is another one.

    `value` is the last one, None before the first; `error` says why there is no newer one.
    """

    def __init__(self, make: Callable[[], Value], clock: Callable[[], float] = time.monotonic) -> None:
        self.value: Value | None = None
        self.error: BatchrunError | None = None
        self._make = make
        self._clock = clock
        self._stamp: Hashable = None
        self._took = self._ended = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def refresh(self, stamp: Hashable, *, running: bool, patience: float = 0.0) -> Value | None:
        """Begins to make the value where that is due; returns it, after `patience` seconds the last one."""
        with self._lock:
            if not self.busy and stamp != self._stamp and (not running or self._clock() >= self._due):
                self._thread = threading.Thread(target=self._run, args=(stamp,), daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(patience)
        return self.value

    def hurry(self) -> None:
        """Makes the next newer value due at once."""
        self._took = 0.0

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def _due(self) -> float:
        return self._ended + self._took / MOST_SHARE_OF_TIME

    def _run(self, stamp: Hashable) -> None:
        began = self._clock()
        try:
            self.value, self.error = self._make(), None
        except BatchrunError as error:
            self.error = error
        except Exception as fault:
            self.error = BatchrunError(
                f"batchrun itself failed ({type(fault).__name__}). The terminal has more."
            )
            raise
        finally:
            self._stamp, self._ended = stamp, self._clock()
            self._took = self._ended - began
