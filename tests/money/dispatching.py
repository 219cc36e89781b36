"""A dispatcher on values: no event loop, no journal on disk, and time is what the test says."""

from collections.abc import Callable, Sequence

from batchrun.client.request import Request
from batchrun.client.retry import RetryPolicy
from batchrun.engine.accounting import Accounting
from batchrun.engine.dispatcher import Dispatcher, Need, ReleasedRequest, Rules
from batchrun.engine.ledger import Cap, Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.exchange import Failure, Response
from batchrun.journal.records import Attempt, Intent
from batchrun.rows.active import Row
from batchrun.rows.labelling import PLAIN, Labelling
from batchrun.rows.observer import Observer, combined
from batchrun.runs.observers.progress import Progress
from batchrun.stops import Stop
from tests.money.fanout import TARIFF, answer, request
from tests.money.journals import digest_of

Record = tuple[str, int]
"""What the journal was given: "intent", "cancelled" or an attempt's outcome, and the attempt's number."""


class Log:
    """In the journal's place: keeps what it was given, in its order; commits when the test says so."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.digests: dict[int, bytes] = {}
        self.finals: set[int] = set()
        self.uncommitted = 0

    def write_intent(self, intent: Intent) -> None:
        self.records.append(("intent", intent.attempt))
        self.digests[intent.attempt] = intent.digest
        self.uncommitted += 1

    def record(self, attempt: Attempt) -> None:
        self.records.append((attempt.outcome.value, attempt.attempt))
        if attempt.final:
            self.finals.add(attempt.attempt)

    def cancel_intent(self, attempt: int) -> None:
        self.records.append(("cancelled", attempt))

    @property
    def open_intents(self) -> set[int]:
        """The attempts whose end is not known."""
        ended = {attempt for kind, attempt in self.records if kind != "intent"}
        return self.digests.keys() - ended

    def count(self, kind: str) -> int:
        return sum(each == kind for each, _ in self.records)


class Desk:
    """A dispatcher with rows to send. `sent` are the requests on the wire; times are seconds."""

    def __init__(
        self,
        rows: int = 0,
        *,
        caps: Sequence[Cap] = (),
        concurrency: int = 4,
        leave_in_doubt: bool = False,
        max_attempts: int = 3,
        outage_seconds: float = 900.0,
        requests_per_minute: int | None = 10**9,
        max_wait_seconds: float = 10.0,
        observer: Observer | None = None,
        enough: Callable[[], Stop | None] | None = None,
        labelling: Labelling = PLAIN,
        useless_rows: int = 0,
    ) -> None:
        self.log = Log()
        self.ledger = Ledger(tuple(caps))
        self.progress = Progress()
        self.limiter = Limiter(requests_per_minute)
        self.dispatcher = Dispatcher(
            Rules(
                concurrency,
                RetryPolicy(max_attempts, max_wait_seconds),
                leave_in_doubt,
                outage_seconds,
                labelling,
                useless_rows,
                address="model.test/v1/messages",
            ),
            Accounting(1, 1, self.ledger, TARIFF, self.log),
            self.limiter,
            combined([self.progress, *([] if observer is None else [observer])]),
            enough,
        )
        self.sent: list[ReleasedRequest] = []
        self.dispatcher.feed([Row(number - 1, request(number)) for number in range(1, rows + 1)])
        self.dispatcher.feed(None)

    def advance(self, now: float = 0.0) -> Need:
        return self.dispatcher.advance(now)

    def commit(self, now: float = 0.0, *, refused: Sequence[int] = ()) -> list[int]:
        """Makes every intent so far durable; returns the rows that are sent then."""
        intents, self.log.uncommitted = self.log.uncommitted, 0
        if not intents:
            return []
        return self.send(self.dispatcher.committed(intents, frozenset(refused), now))

    def send(self, released: Sequence[ReleasedRequest]) -> list[int]:
        for each in released:
            self.dispatcher.sent(each)
        self.sent.extend(released)
        return [row_of(each.active.request) for each in released]

    def end(self, result: Response | Failure | None = None, now: float = 0.0, place: int = 0) -> list[int]:
        """Ends one of the requests on the wire; returns the rows that are sent then."""
        ended = self.sent.pop(place)
        return self.send(self.dispatcher.completed(ended, result or answer(), now))


def row_of(sent: Request) -> int:
    number = int(sent.body)
    assert sent.row == digest_of(number)
    return number
