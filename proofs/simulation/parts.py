"""What a run is made of here that a planted bug replaces: the accounting, and the journal's queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchrun.engine.accounting import Accounting
from batchrun.journal import Attempt, Intent, Journal
from batchrun.journal.commits import Commits, Record, Withdrawal

_MOST_UNINDEXED = 20
"""Far fewer than in a run, so that they are indexed several times in each world."""


class Writer:
    """Stands in for the journal's thread: takes records, and commits as many as the seed says.

    `heed` is called with each intent.
    """

    def __init__(self, heed: Callable[[Intent], object]) -> None:
        self.queue: list[Record] = []
        self._heed = heed
        self._commits: Commits | None = None

    def write_intent(self, intent: Intent) -> None:
        self._heed(intent)
        self.queue.append(intent)

    def record(self, attempt: Attempt) -> None:
        self.queue.append(attempt)

    def cancel_intent(self, attempt: int) -> None:
        self.queue.append(Withdrawal(attempt))

    @property
    def waiting(self) -> int:
        return len(self.queue)

    def take(self, records: int) -> list[Record]:
        batch, self.queue = self.queue[:records], self.queue[records:]
        return batch

    def commit(self, journal: Journal, batch: Sequence[Record]) -> frozenset[int]:
        if self._commits is None:
            self._commits = Commits(journal.connection, journal.path)
        refused = self._commits.write(batch)
        self._commits.index_digests(_MOST_UNINDEXED, attempts_in_a_part=_MOST_UNINDEXED)
        return refused


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a run that a planted bug replaces."""

    accounting: type[Accounting] = Accounting
    writer: type[Writer] = Writer
