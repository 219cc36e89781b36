"""The history of one seed: runs of one job under changing budgets, until a last, calm run ends it."""

import json
import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.client.request import Request
from batchrun.engine.accounting import ActiveRequest
from batchrun.exchange import Response
from batchrun.journal import Intent, Journal
from batchrun.journal.commits import Record
from batchrun.rows.dataset import Dataset
from batchrun.rows.result import FAILED, INVALID, OK, PENDING, STATUSES
from proofs.simulation.books import Books, Sums
from proofs.simulation.checks import Violation, check_balance, check_bill, check_caps
from proofs.simulation.clock import Clock
from proofs.simulation.disk import CrashError, Disk
from proofs.simulation.draw import Draw
from proofs.simulation.parts import Parts
from proofs.simulation.process import Process
from proofs.simulation.provider import Provider
from proofs.simulation.scenario import draw_budget, draw_scenario

if TYPE_CHECKING:
    from batchrun.job.budget import Budget

MOST_RUNS = 4
_JUMPS = (24, -24, 1, -1, 48)
_DOWNTIME = 200.0
"""Seconds between two runs at most."""


class World:
    """Everything outside of the process, and what the checks remember.

    `books` is what the durable journal has to hold, and `sums` are the journal's own totals after the last
    commit. `intents` has every intent that was ever handed in, `budgets` the budget of each run.
    `sent_for` has the row of each attempt that was put on the wire.
    `blind_credits` is the worst case of each run's requests from before it knew the balance.
    """

    def __init__(self, draw: Draw, root: Path, parts: Parts) -> None:
        self.draw = draw
        self.parts = parts
        self.scenario = draw_scenario(draw)
        self.clock = Clock(near_midnight=draw.one_in(3))
        self.provider = Provider(draw, self.scenario.balance)
        self.disk = Disk(root, draw)
        self.output = root / "output.jsonl"
        self.books = Books()
        self.sums: Sums | None = None
        self.intents: dict[int, Intent] = {}
        self.budgets: dict[int, Budget] = {}
        self.blind_credits: Counter[int] = Counter()
        self.rows_sent: defaultdict[int, set[bytes]] = defaultdict(set)
        self.trace: list[str] = []
        self.steps = self.runs = self.crashes = self.comparisons = 0
        self._root = root
        self.sent_for: dict[int, bytes] = {}
        # The books as they are if the interrupted write is durable, and if it isn't.
        self._candidates: list[Books] = []
        # The digests on the wire or with a response, in the current run.
        self._on_wire: dict[int, bytes] = {}
        self._answered: set[bytes] = set()
        self._checked: tuple[int, ...] = ()

    def live(self) -> None:
        """Lives the whole history. Raises Violation where a promise is broken."""
        for _ in range(1 + self.draw.below(MOST_RUNS)):
            self._run(calm=False)
            self.clock.now += self.draw.up_to(_DOWNTIME)
            self.provider.bill_until(self.clock.now)
            if self.draw.one_in(3):
                self.jump()
        self.provider.faults_left = 0
        self._run(calm=True)

    def _run(self, *, calm: bool) -> None:
        self.runs += 1
        budget = {} if calm else draw_budget(self.draw, self.scenario, self.runs)
        retry_failed = not calm and self.draw.one_in(5)
        self.note(f"run with {budget}{', --retry-failed' if retry_failed else ''}")
        self._on_wire.clear()
        self._answered.clear()
        job = self.scenario.job(budget, self.draw.of(self.scenario.max_tokens), self._root)
        try:
            stop = Process(self, job, calm=calm, retry_failed=retry_failed).run()
            self.note(f"the run ends: {'all rows' if stop is None else stop.reason}")
        except CrashError:
            self.crashes += 1
            self.note("crash")
        self.provider.forget_client()
        self.disk.close()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.now:8.2f} s  {text}")

    def jump(self) -> None:
        hours = self.draw.of(_JUMPS)
        self.clock.jump(hours)
        self.note(f"the clock jumps by {hours} hours")

    def jump_a_day(self) -> None:
        days = self.draw.of((1, -1))
        self.clock.jump(24 * days)
        self.note(f"the clock jumps by {days} days")

    # The journal.

    def find_state(self, journal: Journal) -> None:
        """Decides, after a crash during a write, whether the journal has that write: whole, or not at all."""
        self.sums = Sums.of(journal.totals(sandbox=False))
        possible = [books for books in self._candidates if books.sums() == self.sums]
        if possible:  # both, where an intent takes a withdrawn one's place
            newest = journal.next_attempt() - 1
            self.books = min(possible, key=lambda books: abs(books.newest - newest))
        self._candidates.clear()
        self.compare(journal)
        self._check_responses(journal)

    @contextmanager
    def booking(self, batch: Sequence[Record]) -> Iterator[frozenset[int]]:
        """Books a commit that the block makes. Yields the intents that it has to refuse."""
        before = self.books.copied()
        expected = self.books.apply(batch)
        try:
            yield expected
        except CrashError:
            self._candidates = [self.books, before]
            raise

    @contextmanager
    def giving_up(self, *, final: bool) -> Iterator[None]:
        """Books the open intents as uncertain, as the block does."""
        before = self.books.copied()
        self.books.give_up_open(final=final)
        try:
            yield
        except CrashError:
            self._candidates = [self.books, before]
            raise

    def compare(self, journal: Journal) -> None:
        """Holds the journal against the books."""
        self.comparisons += 1
        self.sums = Sums.of(journal.totals(sandbox=False))
        expected = self.books.sums()
        if self.sums != expected:
            raise Violation("journal", f"its sums are {self.sums} in place of {expected}")

    def _check_responses(self, journal: Journal) -> None:
        histories = journal.histories(list(self.books.answered))
        for digest, attempt in self.books.answered.items():
            if histories[digest].answer != self.books.ended[attempt][1].response:
                raise Violation("journal", f"the response of attempt {attempt} is not as it was committed")

    # The wire.

    def note_intent(self, intent: Intent, *, balance_known: bool) -> None:
        self.intents[intent.attempt] = intent
        if not balance_known:
            self.blind_credits[intent.run] += intent.credits

    def send(self, active: ActiveRequest) -> None:
        """Puts a request on the wire."""
        attempt, digest = active.attempt, active.request.digest
        if attempt not in self.books.open:
            raise Violation("intent", f"attempt {attempt} is sent before its intent is durable")
        if digest in self.books.answered or digest in self._answered:
            raise Violation("bought twice", f"attempt {attempt} is sent although its request has a response")
        if digest in self._on_wire.values():
            raise Violation("bought twice", f"attempt {attempt} is sent while its request is in flight")
        self._on_wire[attempt] = digest
        self.sent_for[attempt] = active.request.row
        self.rows_sent[self.intents[attempt].run].add(active.request.row)
        fate = self.provider.take(active, self.clock.now)
        self.note(f"attempt {attempt} is sent for {active.request.row.hex()[:6]}: {fate}")

    def ended(self, active: ActiveRequest, response: Response | None) -> None:
        """Notes what the client makes of an arrival."""
        del self._on_wire[active.attempt]
        if response is None:
            return
        if response.completion.response_id != f"msg_{active.attempt}":
            of = response.completion.response_id
            raise Violation("responses", f"attempt {active.attempt} takes the response {of} of another")
        self._answered.add(active.request.digest)

    # The promises.

    def check_step(self) -> None:
        self.steps += 1
        state = len(self.provider.billed), self.comparisons, len(self.sent_for), len(self._answered)
        if state == self._checked:
            return  # nothing has changed that is checked
        self._checked = state
        check_caps(self)
        check_balance(self)
        check_bill(self)

    def check_drained(self) -> None:
        if self.books.open:
            raise Violation("drained", f"a run ends in order with the open intents {sorted(self.books.open)}")

    def check_output(self, dataset: Dataset, *, calm: bool) -> None:
        """N rows in, N rows out, in order, each with one status and the response to its own request."""
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        made = [request for chunk in dataset.chunks() for request in chunk.requests]
        requests = [request for request in made if isinstance(request, Request)]
        given = [row["text"] for row in rows]
        if given != self.scenario.texts:
            raise Violation("rows", f"the output has the rows {given}")
        for row, request in zip(rows, requests, strict=True):
            self._check_row(row, request.digest, calm=calm)

    def _check_row(self, row: dict[str, object], digest: bytes, *, calm: bool) -> None:
        status, response = row["status"], row["response_id"]
        if status not in STATUSES or (calm and status == PENDING):
            raise Violation("rows", f"a row ends as {status}")
        if status in (OK, INVALID):
            attempt = int(str(response).removeprefix("msg_"))
            ended = self.books.ended.get(attempt)
            if ended is None or ended[1].response is None or self.sent_for[attempt] != digest:
                raise Violation("rows", f"a row has the response of attempt {attempt}, which is not its own")
        elif digest in self.books.answered and self.scenario.plain:
            raise Violation("rows", f"a row with a response is {status}")
        elif status == FAILED and digest not in {intent.digest for intent, _ in self.books.ended.values()}:
            raise Violation("rows", "a row that was never sent has failed")


class Outcome:
    """How a history went. `violation` is the broken promise, if one is; `counts` what the history had."""

    def __init__(self, world: World, violation: Violation | None) -> None:
        self.violation = violation
        self.choices = world.draw.made
        self.trace = world.trace
        self.counts = Counter(
            histories=1,
            steps=world.steps,
            runs=world.runs,
            crashes=world.crashes,
            torn=world.disk.torn,
            requests=len(world.sent_for),
            billed=len(world.provider.billed),
        )


def history(seed: int, root: Path, parts: Parts = Parts(), choices: Sequence[int] | None = None) -> Outcome:  # noqa: B008
    """Lives the history of a seed, or of the given choices, in the empty folder `root`."""
    before = random.getstate()
    random.seed(seed)  # the waits before retries
    world = World(Draw(seed, choices), root, parts)
    try:
        world.live()
    except Violation as violation:
        return Outcome(world, violation)
    except Exception as error:  # of whatever kind: batchrun must not fail here
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__} in {where.name}, line {where.lineno} of {where.filename}: {error}"
        return Outcome(world, Violation("fault", text))
    finally:
        random.setstate(before)
        world.disk.close()
    return Outcome(world, None)
