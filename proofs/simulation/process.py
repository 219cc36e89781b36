"""One run: the real decisions, carried out step by step in an order that the seed chooses.

It stands in for `engine/local`, `engine/session` and the journal's thread. Each step is one that they take
between two waits: prepare requests, commit some records, hear of a commit, put a request on the wire, take a
response, release held requests, or wait for the next event.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from signal import SIGTERM
from typing import TYPE_CHECKING

from batchrun.client.response_reader import AnswerIds, ResponseReader
from batchrun.client.server import Server
from batchrun.engine.dispatcher import END, ROWS, Dispatcher, Need, ReleasedRequest
from batchrun.engine.local import DRAIN_SECONDS
from batchrun.engine.session import Session, endpoint_settings
from batchrun.errors import StorageError
from batchrun.exchange import Response
from batchrun.job.caps import SECONDS
from batchrun.job.spec import Job
from batchrun.journal import Attempt, Intent, open_for_reading
from batchrun.journal.checking import check_whole
from batchrun.journal.commits import Record
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.selection import pending_rows
from batchrun.runs.begin import Run, begin
from batchrun.runs.output import write_output
from batchrun.runs.sending import in_sending_order, session_of
from batchrun.stops import Stop, at_cap_of, by_full_disk, interrupted
from proofs.simulation.checks import Violation
from proofs.simulation.disk import CrashError
from proofs.simulation.provider import Arrival

if TYPE_CHECKING:
    from proofs.simulation.world import World

MOST_STEPS = 3_000
SERVER = Server("https://simulated.test", "key")
_FULL = StorageError("The disk is full.")
_BROKEN = StorageError("This is simulated.")


class _Dataset(Dataset):
    """Looks rows up in smaller chunks, so that a row may be answered between its look-up and its turn."""

    chunk = 8

    @property
    def rows_in_a_chunk(self) -> int:
        return self.chunk


class Process:
    """A run of `job` in `world`. `calm`: nothing disturbs it."""

    def __init__(self, world: "World", job: Job, *, calm: bool, retry_failed: bool) -> None:
        self._world = world
        self._calm = calm
        self._writer = world.parts.writer(self._note_intent)
        self._whole = open_dataset(job, sandbox=False, table=world.scenario.table)
        self._dataset = _in_chunks(self._whole, world.scenario.chunk)
        self._journal = world.disk.open()
        check_whole(self._journal)
        world.find_state(self._journal)
        self._run = self._begun(retry_failed)
        session = session_of(self._run, self._run.progress)
        self._dispatcher = self._made_dispatcher(session)
        self._reader = open_for_reading(self._journal.path)
        pending = pending_rows(self._dataset, self._reader, session.observer, session.rules.labelling)
        self._chunks = in_sending_order(self._run, pending)
        self._settings = endpoint_settings(job, SERVER)
        self._ids = AnswerIds()
        # What the engine's tasks wait with: the need of the last `advance` and when it is due, commits that
        # the event loop has not heard of, and requests whose task has not started.
        self._need: Need = 0.0
        self._due = world.clock.now
        self._changed = True
        self._commits: deque[tuple[int, frozenset[int]]] = deque()
        self._starting: deque[ReleasedRequest] = deque()
        self._on_wire: dict[int, ReleasedRequest] = {}
        self._ended = False
        self._failed = False
        self._seconds_end = world.clock.now + (session.most_seconds or math.inf)

    @property
    def number(self) -> int:
        return self._run.number

    def _begun(self, retry_failed: bool) -> Run:
        world, job = self._world, self._dataset.job
        run: list[Run] = []

        def write() -> None:
            run.append(
                begin(
                    self._dataset,
                    SERVER,
                    world.disk.folder,
                    temporary_output=None,
                    journal=self._journal,
                    started_at=world.clock.wall(),
                    topped_up=False,
                    part=None,
                    retry_failed=retry_failed,
                    concurrency=job.limits.concurrency,
                )
            )

        with world.giving_up(final=job.retry.in_doubt == "leave"):
            self._written(write)
        world.compare(self._journal)
        world.budgets[run[0].number] = job.budget
        return run[0]

    def _made_dispatcher(self, session: Session) -> Dispatcher:
        accounting = self._world.parts.accounting(
            session.run,
            self._journal.next_attempt(),
            session.ledger,
            session.price_list,
            self._writer,
            self._journal.latest_start(),
            self._world.clock.wall,
        )
        return Dispatcher(
            session.rules, accounting, session.limiter, session.observer, session.enough, session.may_begin
        )

    def _note_intent(self, intent: Intent) -> None:
        self._world.note_intent(intent, balance_known=self._run.ledger.remaining_credits is not None)

    def run(self) -> Stop | None:
        """Carries the run out to its end. Raises CrashError where it dies, and Violation."""
        steps = 0
        while not self._ended:
            steps += 1
            if steps > MOST_STEPS:
                raise Violation("ends", f"a run goes on after {steps} steps")
            self._disturb()
            if not self._ended:
                self._world.draw.of(self._possible())()
            self._world.check_step()
        return self._end()

    # The steps.

    def _possible(self) -> list[Callable[[], object]]:
        now = self._world.clock.now
        steps: list[Callable[[], object]] = []
        if self._changed or self._due <= now:
            steps.append(self._advance)
        if self._need == ROWS:
            steps.append(self._fetch)
        if self._writer.waiting and not self._failed:
            steps.append(self._commit)
        if self._commits:
            steps.append(self._hear_of_commit)
        if self._starting:
            steps.append(self._start)
        if self._world.provider.arrived(now):
            steps.append(self._take_arrival)
        if self._dispatcher.sendable and self._dispatcher.hold(now) <= 0:
            steps.append(self._release)
        if self._next_event() < math.inf:
            steps.append(self._wait)
        if not steps:
            raise Violation("ends", f"nothing can happen any more; the dispatcher needs {self._need}")
        return steps

    def _advance(self) -> None:
        now = self._world.clock.now
        self._changed = False
        self._need = self._dispatcher.advance(now)
        self._due = now + self._need if isinstance(self._need, float) else math.inf
        self._ended = self._need == END

    def _fetch(self) -> None:
        self._need = 0.0
        self._changed = True
        if self._happens(100):
            self._world.note("the input can't be read further")
            self._dispatcher.fail(_BROKEN)
            return
        self._dispatcher.feed(next(self._chunks, None))

    def _happens(self, one_in: int) -> bool:
        """Returns whether something bad happens, once in so many times."""
        return not self._calm and self._world.draw.one_in(one_in)

    def _commit(self) -> None:
        waiting = self._writer.waiting
        batch = self._writer.take(waiting - self._world.draw.below(waiting))
        if self._happens(100):
            self._find_disk_full(batch)
        else:
            self._commit_batch(batch)

    def _find_disk_full(self, batch: list[Record]) -> None:
        """The first try fails. With the ballast given up the second one may succeed."""
        if self._world.draw.below(2):
            self._world.note("the disk is full, and nothing more fits")
            self._failed = True
            self._abort(error=_FULL)
            return
        self._commit_batch(batch)
        self._stop(by_full_disk(_FULL))

    def _commit_batch(self, batch: list[Record]) -> None:
        world = self._world
        refused: list[frozenset[int]] = []
        world.note(f"commit of {', '.join(map(_said, batch))}")
        with world.booking(batch) as expected:
            self._written(lambda: refused.append(self._writer.commit(self._journal, batch)))
        world.compare(self._journal)
        if refused[0] != expected:
            raise Violation("journal", f"refused {sorted(refused[0])} in place of {sorted(expected)}")
        intents = sum(isinstance(record, Intent) for record in batch)
        if refused[0]:
            world.note(f"the journal refuses {sorted(refused[0])}")
        if intents:
            self._commits.append((intents, refused[0]))

    def _written(self, write: Callable[[], object]) -> None:
        """Writes, unless the process dies before, within or after it."""
        if not self._happens(self._world.scenario.calm_steps // 2):
            write()
            return
        self._world.disk.crash_during(write)
        raise CrashError

    def _hear_of_commit(self) -> None:
        intents, refused = self._commits.popleft()
        self._assign(self._dispatcher.committed(intents, refused, self._world.clock.now))

    def _release(self) -> None:
        self._assign(self._dispatcher.release(self._world.clock.now))

    def _assign(self, released: Sequence[ReleasedRequest]) -> None:
        self._starting.extend(released)
        self._changed = True

    def _start(self) -> None:
        released = self._starting.popleft()
        self._dispatcher.sent(released)
        self._on_wire[released.active.attempt] = released
        self._world.send(released.active)

    def _take_arrival(self) -> None:
        world = self._world
        arrival = world.draw.of(world.provider.arrived(world.clock.now))
        released = self._on_wire.pop(arrival.attempt)
        if self._happens(100):
            world.note(f"batchrun itself fails at attempt {arrival.attempt}")
            world.provider.delivered(arrival, trusted=False)
            world.ended(released.active, None)
            self._dispatcher.faulted(released, _BROKEN)
            self._changed = True
            return
        reader = ResponseReader(self._settings, self._ids, released.active.request.body)
        if 200 <= (arrival.status or 0) < 300 and released.active.request.beginning is not None:
            self._dispatcher.begun(released)
        trusted = _read(reader, arrival)
        world.provider.delivered(arrival, trusted=trusted)
        result = reader.result()
        response = result if isinstance(result, Response) else None
        world.ended(released.active, response)
        said = "a response" if isinstance(result, Response) else result.code
        world.note(f"attempt {arrival.attempt} ends with {said}")
        self._assign(self._dispatcher.completed(released, result, world.clock.now))

    def _wait(self) -> None:
        clock = self._world.clock
        clock.now = max(clock.now, self._next_event())
        self._world.provider.bill_until(clock.now)
        if clock.now >= self._seconds_end:
            self._seconds_end = math.inf
            self._stop(at_cap_of(SECONDS))

    def _next_event(self) -> float:
        """Returns when something is due that is not possible yet."""
        dispatcher, now = self._dispatcher, self._world.clock.now
        held = now + dispatcher.hold(now) if dispatcher.sendable else math.inf
        # An ulp later, since the sum of `now` and a wait may be rounded down.
        times = (self._due, held, self._seconds_end, self._world.provider.next_arrival)
        later = [time for time in times if now < time < math.inf]
        return math.nextafter(min(later), math.inf) if later else math.inf

    # Disturbances.

    def _disturb(self) -> None:
        if self._world.scenario.restless and self._happens(4):
            self._world.jump_a_day()
        if not self._happens(self._world.scenario.calm_steps):
            return
        disturbance = self._world.draw.of((self._drain, self._crash, self._crash, self._interrupt))
        disturbance()

    def _crash(self) -> None:
        self._world.disk.crash()
        raise CrashError

    def _drain(self) -> None:
        self._world.note("SIGTERM")
        self._stop(interrupted(SIGTERM))

    def _interrupt(self) -> None:
        self._world.note("a second SIGTERM")
        self._abort(stop=interrupted(SIGTERM, immediate=True))

    def _stop(self, stop: Stop) -> None:
        self._dispatcher.stop(stop, self._world.clock.now + DRAIN_SECONDS)
        self._changed = True

    def _abort(self, error: Exception | None = None, stop: Stop | None = None) -> None:
        self._dispatcher.abort(error, stop)
        self._ended = True

    # The end.

    def _end(self) -> Stop | None:
        """Ends as the engine and the session do: drops what is in flight, and commits what is queued."""
        self._dispatcher.abandon()
        self._world.provider.forget_client()
        while (waiting := self._writer.waiting) and not self._failed:
            self._commit_batch(self._writer.take(waiting - self._world.draw.below(waiting)))
            self._world.check_step()
        self._reader.close()
        stop: Stop | None = None
        with suppress(StorageError):
            stop = self._dispatcher.stopped_by
            self._finish(stop)
        return stop

    def _finish(self, stop: Stop | None) -> None:
        world, journal = self._world, self._journal
        world.check_drained()
        if stop is not None and stop.reopens_failures:
            in_doubt = self._dataset.job.retry.in_doubt == "ask"
            self._written(lambda: journal.reopen_failures(self.number, in_doubt=in_doubt))
        write_output(self._whole, journal, world.output, lambda _rows, _findings: {})
        world.check_output(self._whole, calm=self._calm)
        self._written(lambda: journal.finish_run(self.number, world.clock.wall(), None, 0, ""))
        self._written(journal.close)


def _in_chunks(dataset: Dataset, rows: int) -> Dataset:
    small = _Dataset(*(getattr(dataset, field.name) for field in fields(dataset)))
    object.__setattr__(small, "chunk", rows)
    return small


def _said(record: Record) -> str:
    if isinstance(record, Intent):
        return f"intent {record.attempt}"
    if isinstance(record, Attempt):
        return f"{record.attempt} as {record.outcome}"
    return f"withdrawal of {record}"


def _read(reader: ResponseReader, arrival: Arrival) -> bool:
    """Gives the reader what has arrived; returns whether the connection can be trusted further."""
    if arrival.status is not None:
        reader.begin(arrival.status, arrival.headers, arrival.connection.memory)
        reader.feed(arrival.body)
    return reader.end(arrival.interruption)
