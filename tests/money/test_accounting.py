"""Ledger and journal under any interleaving of requests, commits, lost answers, kills and new caps."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import astuple

from batchrun.amounts import Amount
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Cap, Ledger
from batchrun.exchange import BillingStatus, FailureAction
from batchrun.journal import Attempt, Intent, Journal, create_or_open
from batchrun.journal.checking import check_whole
from batchrun.journal.commits import Commits, Record, Withdrawal
from tests.money.fanout import NANO_USD_PER_TOKEN, TARIFF, answer, failure, request
from tests.money.journals import start_run

ROWS = 12
INPUT_BOUND, OUTPUT_BOUND = 30, 10
WORST = (INPUT_BOUND + OUTPUT_BOUND) * NANO_USD_PER_TOKEN


class SteppedWriter:
    """Commits with the writer's own statements, but when and as much as the test says."""

    def __init__(self, journal: Journal) -> None:
        self._commits = Commits(journal.connection, journal.path)
        self.queue: list[Record] = []

    def write_intent(self, intent: Intent) -> None:
        self.queue.append(intent)

    def record(self, attempt: Attempt) -> None:
        self.queue.append(attempt)

    def cancel_intent(self, attempt: int) -> None:
        self.queue.append(Withdrawal(attempt))

    def commit(self, records: int) -> tuple[int, frozenset[int]]:
        batch, self.queue = self.queue[:records], self.queue[records:]
        not_needed = self._commits.write(batch)
        return sum(type(record) is Intent for record in batch), not_needed


@dataclass
class Sent:
    """A request at the provider: what it will charge if it does, and whether it has."""

    tokens: int
    charged: bool = False


class MoneyMachine(RuleBasedStateMachine):
    """The provider charges for a request at any time after it was sent, also when the client is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.sqlite"
        self.bill = 0
        self.at_provider: dict[int, Sent] = {}
        self.sent_while_answered = 0

    @initialize(rows=st.integers(1, 15))
    def first_run(self, rows: int) -> None:
        self.cap = rows * WORST
        self.bound = self.cap
        self.resume()

    def resume(self) -> None:
        self.journal = create_or_open(self.path)
        self.journal.connection.execute("PRAGMA synchronous = OFF")
        self.journal.abandon_open_intents(0, final=False)
        spent = self.journal.totals(sandbox=False).spend.committed.nano_usd
        # A cap may be set below what is spent: then nothing more may be.
        self.bound = max(self.cap, spent)
        self.ledger = Ledger((Cap("budget.usd", "nano_usd", self.cap, before=spent),))
        self.before = spent
        self.writer = SteppedWriter(self.journal)
        run = start_run(self.journal)
        self.accounting = Accounting(run, self.journal.next_attempt(), self.ledger, TARIFF, self.writer)
        self.uncommitted: list[ActiveRequest] = []
        self.durable: list[ActiveRequest] = []
        self.in_flight: list[ActiveRequest] = []
        self.answered = self.answered_rows()
        # The journal refuses these in their own run alone: rows.selection leaves them out of the others.
        settled = self.journal.settled_digests([request(number).digest for number in range(ROWS)])
        self.failed_before = {digest for digest, failed in settled.items() if failed}

    def answered_rows(self) -> set[bytes]:
        return set(self.journal.settled_digests([request(number).digest for number in range(ROWS)]))

    # The client.

    @rule(number=st.integers(0, ROWS - 1))
    def ask(self, number: int) -> None:
        """Also for rows that have been answered in the meantime, as for a duplicate further down."""
        asked = request(number, input_bound=INPUT_BOUND, output_bound=OUTPUT_BOUND)
        open_rows = [active.request.digest for active in (*self.uncommitted, *self.durable, *self.in_flight)]
        if asked.digest not in open_rows and asked.digest not in self.failed_before:
            active = ActiveRequest(asked)
            shortfall = self.accounting.reserve(active)
            if shortfall is None:
                self.uncommitted.append(active)
            else:
                assert shortfall.may_pass == (self.ledger.in_flight > 0)

    @precondition(lambda self: self.writer.queue)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        records = data.draw(st.integers(1, len(self.writer.queue)))
        intents, not_needed = self.writer.commit(records)
        for _ in range(intents):
            active = self.uncommitted.pop(0)
            if active.attempt in not_needed:
                self.accounting.not_needed(active)
            else:
                self.durable.append(active)

    @precondition(lambda self: self.durable)
    @rule(tokens=st.integers(2, INPUT_BOUND + OUTPUT_BOUND))
    def send(self, tokens: int) -> None:
        active = self.durable.pop(0)
        assert active.request.digest not in self.answered, "what is answered is never asked again"
        self.in_flight.append(active)
        self.at_provider[active.attempt] = Sent(tokens)

    @precondition(lambda self: self.durable)
    @rule()
    def cancel_intent(self) -> None:
        self.accounting.cancel_intent(self.durable.pop())

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def take_answer(self, data: st.DataObject) -> None:
        active = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        tokens = self.at_provider[active.attempt].tokens
        self.charge(active.attempt)
        self.accounting.answered(active, answer(tokens - 1, 1))
        self.answered.add(active.request.digest)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def lose_answer(self, data: st.DataObject) -> None:
        active = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.accounting.failed(active, failure(billing=BillingStatus.UNKNOWN), final=False)

    @precondition(lambda self: self.in_flight)
    @rule(final=st.booleans())
    def take_refusal(self, final: bool) -> None:
        """Only what was not charged is refused."""
        active = self.in_flight[0]
        if not self.at_provider[active.attempt].charged:
            del self.in_flight[0], self.at_provider[active.attempt]
            self.accounting.failed(active, failure(FailureAction.FAIL_ROW, status=400), final)
            if final:
                self.answered.add(active.request.digest)

    @rule(rows=st.integers(0, 20))
    def kill_and_resume(self, rows: int) -> None:
        """Nothing that was not committed is left. The next run may have another cap."""
        self.journal.close()
        self.cap = max(rows * WORST, 1)
        self.resume()

    # The provider.

    @precondition(lambda self: self.at_provider)
    @rule(data=st.data())
    def charge_at_any_time(self, data: st.DataObject) -> None:
        self.charge(data.draw(st.sampled_from(sorted(self.at_provider))))

    def charge(self, attempt: int) -> None:
        sent = self.at_provider[attempt]
        if not sent.charged:
            sent.charged = True
            self.bill += sent.tokens * NANO_USD_PER_TOKEN

    # What always holds.

    @invariant()
    def the_budget_holds(self) -> None:
        ledger = self.ledger
        counted = ledger.settled.plus(ledger.uncertain).plus(ledger.reserved).nano_usd
        assert self.before + counted <= self.bound
        sums = (ledger.settled, ledger.uncertain, ledger.reserved)
        assert min(ledger.in_flight, *(part for amount in sums for part in astuple(amount))) >= 0
        assert ledger.in_flight == len(self.uncommitted) + len(self.durable) + len(self.in_flight)
        totals = self.journal.totals(sandbox=False)
        settled, uncertain = totals.spend.settled.nano_usd, totals.spend.uncertain.nano_usd
        assert settled + uncertain + totals.open.nano_usd <= self.bound
        assert settled <= self.bill <= settled + uncertain + totals.open.nano_usd
        assert self.bill <= self.bound

    @invariant()
    def no_answer_is_lost(self) -> None:
        """What the journal has answered once, it has for good; nothing was ever answered twice."""
        kept = self.answered_rows()
        assert kept <= self.answered
        ((answers, rows),) = self.journal.connection.execute(
            "SELECT count(*), count(DISTINCT digest) FROM attempts WHERE outcome = 'answered'"
        )
        assert answers == rows

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.writer.commit(len(self.writer.queue))
            check_whole(self.journal)
            self.journal.close()
        self.folder.cleanup()


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(
    max_examples=int(os.environ.get("BATCHRUN_EXAMPLES", "40")), stateful_step_count=40, deadline=None
)


def test_the_reservation_of_a_dead_run_counts_at_its_worst_case(tmp_path: Path) -> None:
    """Given up, it is uncertain spend of the same amount; not a nano-USD more or less."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    writer = SteppedWriter(journal)
    accounting = Accounting(start_run(journal), 1, Ledger(()), TARIFF, writer)
    for number in range(3):
        accounting.reserve(ActiveRequest(request(number)))
    writer.commit(3)
    reserved = journal.totals(sandbox=False).open
    assert journal.abandon_open_intents(5, final=False) == 3
    totals = journal.totals(sandbox=False)
    assert totals.open == Amount()
    assert totals.spend.uncertain == reserved == Amount(3 * 120 * NANO_USD_PER_TOKEN, 0, 360)
    journal.close()
