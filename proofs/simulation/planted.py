"""Five bugs put in on purpose. A simulation that doesn't find them proves nothing."""

from collections.abc import Callable, Sequence

from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Shortfall
from batchrun.journal import Attempt, Intent, Journal
from batchrun.journal.commits import Record, Withdrawal
from proofs.simulation.parts import Parts, Writer


class _LateEnds(Writer):
    """An end is handed in after the ledger frees its reservation: an intent may come in between."""

    def __init__(self, heed: Callable[[Intent], object]) -> None:
        super().__init__(heed)
        self._late: list[Attempt] = []

    def record(self, attempt: Attempt) -> None:
        self._late.append(attempt)

    def write_intent(self, intent: Intent) -> None:
        super().write_intent(intent)
        self._hand_in()

    @property
    def waiting(self) -> int:
        return len(self.queue) + len(self._late)

    def take(self, records: int) -> list[Record]:
        self._hand_in()
        return super().take(records)

    def _hand_in(self) -> None:
        self.queue.extend(self._late)
        self._late.clear()


class _IndexBehind(Writer):
    """The index by digest is not caught up with the responses of a commit when its intents are checked."""

    def commit(self, journal: Journal, batch: Sequence[Record]) -> frozenset[int]:
        refused = super().commit(journal, [record for record in batch if isinstance(record, Intent)])
        super().commit(journal, [record for record in batch if not isinstance(record, Intent)])
        return refused


class _KeptWithdrawals(Writer):
    """The intent of a request that was not sent stays in the journal."""

    def commit(self, journal: Journal, batch: Sequence[Record]) -> frozenset[int]:
        return super().commit(journal, [record for record in batch if not isinstance(record, Withdrawal)])


class _DayTwice(Accounting):
    """A clock that is set back grants a day's cap again."""

    def _turn_of_the_day(self) -> None:
        self._latest_start = self._clock()
        day = self._latest_start // MILLISECONDS_PER_DAY
        if day != self._day:
            self._day = day
            self._ledger.new_day()


class _ForgetfulRetry(Accounting):
    """A retry is sent with the reservation of the attempt before, which has been released."""

    def reserve(self, active: ActiveRequest) -> Shortfall | None:
        if not active.number:
            return super().reserve(active)
        self._turn_of_the_day()
        self._write_intent(active, active.reservation)
        return None


PLANTED = {
    "an end handed in after the ledger frees": Parts(writer=_LateEnds),
    "an index that is not caught up": Parts(writer=_IndexBehind),
    "a withdrawn intent that is kept": Parts(writer=_KeptWithdrawals),
    "a day's cap that is given twice": Parts(accounting=_DayTwice),
    "a retry that forgets its reservation": Parts(accounting=_ForgetfulRetry),
}
