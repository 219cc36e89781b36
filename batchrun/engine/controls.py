"""What may be changed about a run while it sends: caps, limits, and that it goes on."""

import time

from batchrun.engine.auto_reset_event import AutoResetEvent
from batchrun.engine.ledger import Cap, Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.local import DRAIN_SECONDS, Engine
from batchrun.job.budget import Budget
from batchrun.job.caps import SECONDS
from batchrun.job.spec import Limits
from batchrun.journal import JournalWriter
from batchrun.journal.adjustments import Adjustment
from batchrun.journal.samples import Sample
from batchrun.stops import Stop, at_cap_of


class Controls:
    """The running parts that have caps and limits. Called in the event loop's thread.

    `most_seconds` bounds the sending from `began` on.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        limiter: Limiter,
        writer: JournalWriter,
        most_seconds: float | None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._limiter = limiter
        self._writer = writer
        self._most_seconds = most_seconds
        self._began = time.monotonic()
        self._adjusted = AutoResetEvent()

    def adjust(self, budget: Budget, caps: tuple[Cap, ...], limits: Limits, concurrency: int | None) -> None:
        """Puts new caps and limits into force. What was reserved under the former caps is still sent.

        `caps` are those of `budget` that the ledger holds; `concurrency` is what is possible of its limit,
        None if that stays.
        """
        self._ledger.change_caps(caps, budget.keep_credits)
        self._most_seconds = budget.seconds
        self._limiter.change_given(limits.requests_per_minute, limits.tokens_per_minute, time.monotonic())
        self._engine.adjusted(concurrency)
        self._adjusted.call()

    def stop(self, stop: Stop) -> None:
        """Lets the run drain, as a first signal does."""
        self._engine.stop(stop, drain_seconds=DRAIN_SECONDS)

    def note(self, note: Adjustment | Sample) -> None:
        """Queues a record for the journal."""
        self._writer.note(note)

    async def stop_in_time(self) -> None:
        """Stops the run at its cap on seconds, if it has one by then."""
        while (left := self._seconds_left()) > 0:
            await self._adjusted.wait(left)
        self._engine.stop(at_cap_of(SECONDS), drain_seconds=DRAIN_SECONDS)

    def _seconds_left(self) -> float:
        if self._most_seconds is None:
            return float("inf")
        return self._began + self._most_seconds - time.monotonic()
