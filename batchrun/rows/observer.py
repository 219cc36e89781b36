"""The events of a run, for the display, the log, the counts and an evaluation's monitor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from batchrun.client.request import Request
from batchrun.errors import BatchrunError
from batchrun.exchange import Failure, Response, Waiting
from batchrun.rows.result import RowResult


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`run` is the journal's number; `rows` is None if the length of the input isn't known yet."""

    run: int
    sandbox: bool
    rows: int | None


@dataclass(frozen=True, slots=True)
class RowsScanned:
    """More rows of the input were compared with the journal.

    Of these, `unsendable` have no valid request, `answered` and `failed` ended in earlier runs and are not
    sent again.
    """

    rows: int
    unsendable: int
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """`attempt` is the journal's number; `final`: its row has failed with it; `delay`: seconds until it is
    sent again at the earliest, None if it isn't."""

    attempt: int
    failure: Failure
    final: bool
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class RunAdjusted:
    """The run has new caps or limits, or is to stop, by `author`: key -> old and new value, None: none.

    `refused` says why the run didn't take them.
    """

    author: str
    settings: Mapping[str, tuple[str | None, str | None]]
    refused: str | None = None


class Worker(Protocol):
    """A process that sends in this one's place. Its counts go on while it is connected."""

    @property
    def name(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def ended(self) -> int:
        """Returns the number of its requests that have ended."""


class Observer:
    """Observes a run and doesn't change it. A subclass overrides the methods that it needs.

    Events come in the order of their causes, but in three threads: those of scanning in the thread that reads
    the input, those of the run and its output in the caller's thread, all others in the event loop's.
    There a method must return at once. It must not raise.
    """

    # The run.

    def run_started(self, event: RunStarted) -> None: ...

    def output_begun(self) -> None:
        """No request is in flight any more; writing the output begins."""

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None: ...

    def run_failed(self, run: int, error: BatchrunError) -> None: ...

    def close(self) -> None:
        """Ends the events. Called last and in every case, even without an event for the run's end."""

    # Scanning the input.

    def rows_scanned(self, event: RowsScanned) -> None: ...

    def rows_counted(self, rows: int) -> None:
        """The whole input has been scanned: it has `rows` rows."""

    # Sending.

    def request_sent(self, number: int) -> None:
        """`number` counts the attempts of this request in this run, from 1 up."""

    def response_received(self, response: Response, tokens: int) -> None:
        """A request has a response, which counts as `tokens`."""

    def attempt_failed(self, event: AttemptFailed) -> None: ...

    def blocked(self, cap: str | None) -> None:
        """The cap that the next request waits for has changed; None: none."""

    def throttled(self, waiting: Waiting | None) -> None:
        """What the next request waits for has changed, or until when; None: it doesn't wait."""

    def worker_joined(self, worker: Worker) -> None:
        """A worker can send."""

    def worker_left(self, worker: Worker, why: str) -> None:
        """A connection has ended before the run: a worker's, or one that never became a worker's."""

    def stopping(self, reason: str) -> None:
        """No more rows are begun; the run waits for the requests in flight."""

    def adjusted(self, event: RunAdjusted) -> None:
        """Somebody has set caps or limits of the run; if it took them, they are in force."""

    # Rows.

    def row_ended(self, request: Request, result: RowResult) -> None:
        """A row has ended; `request` is one of its requests and identifies it."""

    def row_known(self, request: Request, result: RowResult) -> None:
        """A row ended in an earlier run. Called if a run covers all rows, as an evaluation does."""

    def row_shared(self, request: Request, *, ended: bool) -> None:
        """A row shares the response of another row with the same request, which has `ended` or will."""

    # An evaluation.

    def row_scored(self, score: float | None) -> None:
        """`score` is None if the row has failed, or can't be scored."""

    def forecast_made(self, text: str) -> None: ...


EVENTS = tuple(name for name in vars(Observer) if not name.startswith("_"))


def combined(observers: Sequence[Observer]) -> Observer:
    """Combines observers into one. An event costs a call only for observers that override its method."""
    whole = Observer()
    for event in EVENTS:
        methods = [getattr(each, event) for each in observers]
        heard_by = [method for method in methods if not _is_of_the_base(method, event)]
        if heard_by:
            setattr(whole, event, heard_by[0] if len(heard_by) == 1 else _each_of(heard_by))
    return whole


def _is_of_the_base(method: Callable[..., None], event: str) -> bool:
    return getattr(method, "__func__", None) is getattr(Observer, event)


def _each_of(methods: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def tell(*values: object, **more: object) -> None:
        for method in methods:
            method(*values, **more)

    return tell
