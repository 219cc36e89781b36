"""One budget for several jobs: whatever happens to them, the sum over their journals keeps its caps."""

import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchrun.amounts import NOTHING
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.accounting import MOST_TRIES, Accounting, ActiveRequest
from batchrun.engine.ledger import Ledger, Shortfall, caps_of
from batchrun.errors import EXIT_FAULT, HeldError, JournalError, MovedError, StorageError, UsageError
from batchrun.exchange import BillingStatus
from batchrun.job.budget import Budget
from batchrun.journal import create_or_open
from batchrun.journal.connection import connect
from batchrun.journal.pool import BATCHES, Pool, PoolCaps, PoolShare, make_pool, open_pool, share_of
from batchrun.journal.records import Grant
from batchrun.runs.pool import give_back, settled_share
from tests.money.fanout import NANO_USD_PER_TOKEN, TARIFF, answer, failure, request
from tests.money.journals import STARTED_AT, start_run
from tests.money.test_accounting import SteppedWriter

DAY = STARTED_AT // MILLISECONDS_PER_DAY
WORST = 40 * NANO_USD_PER_TOKEN


def pool_at(path: Path, life: int | None = 1_000, per_day: int | None = None) -> Pool:
    make_pool(path, PoolCaps(life, per_day))
    pool = open_pool(path)
    pool.connection.execute("PRAGMA synchronous = OFF")
    return pool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "team.budget"


def shares_of(pool: Pool, number: int = 2) -> list[PoolShare]:
    return [PoolShare(pool, f"/{name}/journal.sqlite", 1, sandbox=False) for name in "abcdef"[:number]]


# The file.


def test_claims_of_all_jobs_together_take_no_more_than_the_cap(path: Path) -> None:
    a, b = shares_of(pool_at(path))
    granted = [share.claim(7, DAY, 0).granted for share in (a, b) * 200]
    assert sum(granted) <= 1_000 < sum(granted) + 7
    assert granted[-1] == 0


def test_what_is_left_is_told_with_a_refusal(path: Path) -> None:
    a, b = shares_of(pool_at(path, 100))
    granted = a.claim(90, DAY, 0).granted
    assert b.claim(50, DAY, 0) == Grant(0, 100 - granted, per_day=False)
    assert b.claim(100 - granted, DAY, 0) == Grant(100 - granted, 0, per_day=False)


def test_a_claim_takes_a_small_part_more_than_it_needs(path: Path) -> None:
    """So few claims are written for many requests, and no job keeps much from the others."""
    (share,) = shares_of(pool_at(path, 10**9), 1)
    claims = needed = 0
    while (grant := share.claim(10**4, DAY, 0)).granted:
        assert grant.granted <= 10**4 + 10**9 // BATCHES
        claims, needed = claims + 1, needed + grant.granted
    assert needed > 10**9 - 10**4
    assert claims < 500, "for 100,000 requests"


def test_a_day_s_cap_counts_what_was_sent_that_day(path: Path) -> None:
    a, b = shares_of(pool_at(path, 1_000, per_day=100))
    assert a.claim(100, DAY, 0).granted == 100
    assert b.claim(1, DAY, 0) == Grant(0, 0, per_day=True)
    assert b.claim(1, DAY + 1, 0).granted
    a.settle({DAY: 40}, 0)
    assert b.claim(60, DAY, 0).granted == 60


def test_made_up_spend_and_paid_spend_have_a_budget_each(path: Path) -> None:
    pool = pool_at(path, 100)
    paid, made_up = (PoolShare(pool, "/a", 1, sandbox) for sandbox in (False, True))
    assert made_up.claim(100, DAY, 0).granted
    assert paid.claim(100, DAY, 0).granted
    assert [member.counted for member in pool.members(DAY, sandbox=True)] == [100]


def test_a_new_journal_at_the_path_of_a_deleted_one_does_not_undo_its_spend(path: Path) -> None:
    pool = pool_at(path, 100)
    PoolShare(pool, "/a", 1, sandbox=False).settle({DAY: 70}, 0)
    fresh = PoolShare(pool, "/a", 2, sandbox=False)
    fresh.settle({}, 0)
    assert fresh.left(DAY) == 30


def replaced_members(pool: Pool) -> list[tuple[int, int]]:
    return [(member.retired, member.counted) for member in pool.members(DAY, sandbox=False)]


def test_an_older_copy_of_a_journal_does_not_undo_what_the_newer_one_spent(path: Path) -> None:
    (share,) = shares_of(pool := pool_at(path, 1_000), 1)
    share.settle({DAY: 10}, 1)
    share.settle({DAY: 90, DAY + 1: 200}, 60)
    share.settle({DAY: 10}, 1)
    assert replaced_members(pool) == [(0, 10), (1, 290)]
    assert share.left(DAY) == 1_000 - 290 - 10
    share.settle({DAY: 20}, 2)
    share.settle({}, 1)
    assert replaced_members(pool) == [(1, 290), (2, 20)]
    pool.check()


def test_an_older_copy_does_not_undo_what_a_killed_run_claimed_after_it(path: Path) -> None:
    (share,) = shares_of(pool := pool_at(path, 1_000), 1)
    share.settle({DAY: 10}, 1)
    claimed = share.claim(500, DAY, 40).granted
    share.settle({DAY: 10}, 1)
    assert replaced_members(pool) == [(0, 10), (1, 10 + claimed)]


def test_a_lower_bill_lowers_what_counts_as_the_attempts_are_the_same(path: Path) -> None:
    (share,) = shares_of(pool := pool_at(path, 1_000), 1)
    share.settle({DAY: 500}, 60)
    share.settle({DAY: 20}, 60)
    assert replaced_members(pool) == [(0, 20)]


def test_a_run_after_an_older_copy_took_the_journal_s_place_counts_both(path: Path) -> None:
    make_pool(path, PoolCaps(100 * WORST, None))
    job = OneJob(path.parent, path, lambda: STARTED_AT)
    job.start()
    job.die()
    journal, copy = path.with_name("journal.sqlite"), path.with_name("copy")
    shutil.copyfile(journal, copy)
    job.start()
    job.ask()
    job.commit(1)
    job.send()
    job.end_in_order()
    spent = job.counted()[DAY]
    job.die()
    for name in ("journal.sqlite-wal", "journal.sqlite-shm"):
        path.with_name(name).unlink(missing_ok=True)
    shutil.copyfile(copy, journal)
    job.start()
    assert job.counted() == {}
    assert replaced_members(job.open_pool) == [(1, spent)]
    job.die()


def test_a_clock_that_is_set_back_does_not_make_a_journal_count_twice(path: Path) -> None:
    pool, journal = pool_at(path), create_or_open(path.with_name("journal.sqlite"))
    for started_at in (STARTED_AT, STARTED_AT - 3_600_000):
        journal.start_run("0", started_at, False, "http://localhost", "f", "{}")
        assert share_of(pool, journal.path, journal, sandbox=False).born == STARTED_AT
    journal.close()


def test_two_changes_of_the_caps_at_the_same_time_both_hold(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second may only read once the first has written."""
    pool = pool_at(path, 20, 5)
    read = Pool.caps

    def reading(self: Pool) -> PoolCaps:
        assert self.connection.in_transaction, "another process could change them now"
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "caps", reading)
        assert pool.change_caps({"life": 1}) == PoolCaps(1, 5)
        assert open_unchecked(path).change_caps({"per_day": 4}) == PoolCaps(1, 4)
    assert pool.caps() == PoolCaps(1, 4)


def open_unchecked(path: Path) -> Pool:
    return Pool(path, connect(path, "rw"))


def test_spend_above_the_cap_is_counted_in_full_and_nothing_more_is_granted(path: Path) -> None:
    a, b = shares_of(pool_at(path, 100))
    a.settle({DAY: 130}, 0)
    assert b.claim(1, DAY, 0) == Grant(0, -30, per_day=False)


def test_a_cap_that_is_lowered_or_raised_holds_from_the_next_claim_on(path: Path) -> None:
    (share,) = shares_of(pool := pool_at(path, 100), 1)
    assert share.claim(50, DAY, 0).granted
    other = open_pool(path)
    other.change_caps({"life": 40})
    assert not share.claim(1, DAY, 0).granted
    other.change_caps({"life": 200})
    assert share.claim(100, DAY, 0).granted
    pool.close()


def test_a_pool_that_is_missing_is_refused_with_the_command_that_makes_it(path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no pool .*\nNext: batchrun pool .*team.budget --usd 20"):
        open_pool(path)
    with pytest.raises(UsageError, match=r"Next: batchrun pool '.*my team.budget' --usd 20"):
        open_pool(path.with_name("my team.budget"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_text("text,label\n")


def a_journal(path: Path) -> None:
    path.unlink()
    create_or_open(path).close()


def flipped(statement: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        pool = open_pool(path)
        pool.connection.execute(statement)
        pool.close()

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        emptied,
        foreign,
        a_journal,
        flipped("UPDATE caps SET nano_usd = 2 * nano_usd"),
        flipped("UPDATE claims SET nano_usd = nano_usd - 1"),
        flipped("UPDATE claims SET day = day + 1"),
        flipped("PRAGMA user_version = 2"),
    ],
)
def test_a_damaged_pool_is_refused_and_left_as_it_is(path: Path, harm: Callable[[Path], None]) -> None:
    (share,) = shares_of(pool := pool_at(path), 1)
    share.claim(7, DAY, 0)
    pool.close()
    harm(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"The pool .*team\.budget"):
        open_pool(path)
    assert path.read_bytes() == before


def deleted(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


@pytest.mark.parametrize("harm", [deleted, moved, replaced])
def test_a_pool_that_vanishes_grants_nothing_more(path: Path, harm: Callable[[Path], None]) -> None:
    (share,) = shares_of(pool_at(path), 1)
    share.claim(7, DAY, 0)
    harm(path)
    with pytest.raises(MovedError, match="was deleted, moved or replaced"):
        share.claim(7, DAY, 0)


def test_a_claim_returns_soon_while_another_program_holds_the_pool(path: Path) -> None:
    (share,) = shares_of(pool_at(path), 1)
    began = time.monotonic()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for held in ("BEGIN IMMEDIATE", "BEGIN; SELECT * FROM caps"):  # the second one keeps a commit waiting
            other.executescript(held)
            with pytest.raises(HeldError, match="close what holds it"):
                share.claim(7, DAY, 0)
            other.execute("ROLLBACK")
    assert time.monotonic() - began < 10, "SQLite's own wait is 30 s each"
    assert share.claim(7, DAY, 0).granted >= 7


@pytest.mark.parametrize(
    ("attempt", "complete", "counted"),
    [
        (9, True, 60),  # nothing is lost: what was claimed and not spent is free
        (5, True, 100),  # the pool knows of later attempts
        (9, False, 100),
    ],
)
def test_a_salvaged_journal_counts_once_and_no_spend_is_forgotten(
    path: Path, attempt: int, complete: bool, counted: int
) -> None:
    (share,) = shares_of(pool_at(path), 1)
    share.settle({DAY: 100}, 9)
    share.settle_salvaged({DAY: 60}, attempt, complete=complete)
    assert 1_000 - share.left(DAY) == counted
    share.settle({DAY: 60}, attempt)  # the next run
    assert 1_000 - share.left(DAY) == counted


def test_a_rescued_journal_that_was_put_to_a_salvaged_one_counts_once(path: Path) -> None:
    (share,) = shares_of(pool_at(path), 1)
    share.settle({DAY: 100, DAY + 1: 7}, 9)
    share.settle({DAY: 40}, 3)  # an older copy
    assert 1_000 - share.left(DAY) == 147
    share.settle_salvaged({DAY: 125, DAY + 1: 7}, 12, complete=True)
    assert 1_000 - share.left(DAY) == 147, "one of the two may hold what the other lacks"
    share.settle_salvaged({DAY: 140, DAY + 1: 7}, 12, complete=True)
    assert 1_000 - share.left(DAY) == 147


def test_a_pool_is_made_whole_or_not_at_all_and_never_over_a_file(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(StorageError, match="can't be made: File exists"):
        make_pool(path, PoolCaps(1, None))
    assert [each.name for each in path.parent.iterdir()] == ["team.budget"]
    assert path.read_text() == "mine"


# A run.


class Refusing:
    """A pool that can't be used any more."""

    def claim(self, least: int, day: int, attempt: int) -> Grant:
        raise MovedError("The pool team.budget was deleted.\nPut it back.")


def test_a_pool_that_fails_during_a_run_stops_it_with_its_own_reason() -> None:
    ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING), pool_left=10**9)
    accounting = Accounting(1, 1, ledger, TARIFF, Silent(), pool=Refusing())
    shortfall = accounting.reserve(ActiveRequest(request(1)))
    assert isinstance(shortfall, Shortfall)
    assert not shortfall.may_pass, "what is in flight would not make room"
    assert shortfall.stop is not None
    assert (shortfall.stop.exit_code, shortfall.stop.reason) == (
        EXIT_FAULT,
        "The pool team.budget was deleted.",
    )


class Held:
    """A pool that another program holds for so many claims."""

    def __init__(self, claims: int) -> None:
        self.tried = 0
        self._claims = claims

    def claim(self, least: int, day: int, attempt: int) -> Grant:
        self.tried += 1
        if self.tried <= self._claims:
            raise HeldError("The pool team.budget can't be written: locked.")
        return Grant(least, 0, per_day=False)


def test_a_pool_that_another_program_holds_is_tried_again_and_not_at_every_turn() -> None:
    now, pool = [10_000], Held(2)
    ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING), pool_left=10**9)
    accounting = Accounting(1, 1, ledger, TARIFF, Silent(), clock=lambda: now[0], pool=pool)
    tried = []
    for now[0] in (10_000, 10_100, 9_000, 9_499, 9_500):  # the clock is set back, too
        shortfall = accounting.reserve(ActiveRequest(request(1)))
        tried.append(
            (pool.tried, shortfall and (shortfall.cap, shortfall.may_pass), accounting.seconds_to_try)
        )
    held = ("budget.pool, which another program holds", True)
    assert tried == [(1, held, 0.5), (1, held, 0.5), (2, held, 0.5), (2, held, 0.5), (3, None, math.inf)]


def test_a_pool_that_stays_held_ends_the_run() -> None:
    now, pool = [0], Held(MOST_TRIES)
    ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING), pool_left=10**9)
    accounting = Accounting(1, 1, ledger, TARIFF, Silent(), clock=lambda: now[0], pool=pool)
    for now[0] in range(0, MOST_TRIES * 500, 500):
        shortfall = accounting.reserve(ActiveRequest(request(1)))
    assert shortfall is not None
    assert shortfall.stop is not None
    assert (shortfall.may_pass, shortfall.stop.exit_code) == (False, EXIT_FAULT)


def test_without_the_pool_nothing_can_be_spent() -> None:
    ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING))
    accounting = Accounting(1, 1, ledger, TARIFF, Silent())
    assert accounting.reserve(ActiveRequest(request(1))) == Shortfall("budget.pool", may_pass=False)


class Silent:
    def write_intent(self, intent: Any) -> None: ...
    def record(self, attempt: Any) -> None: ...
    def cancel_intent(self, attempt: int) -> None: ...


# Several jobs under any interleaving.


@dataclass
class OneJob:
    """A job of the pool, run after run. `now` is the machine's clock."""

    folder: Path
    pool: Path
    now: Callable[[], int]
    uncommitted: list[ActiveRequest] = field(default_factory=list)
    durable: list[ActiveRequest] = field(default_factory=list)
    in_flight: list[ActiveRequest] = field(default_factory=list)
    asked: int = 0

    def start(self) -> None:
        self.journal = create_or_open(self.folder / "journal.sqlite")
        self.journal.connection.execute("PRAGMA synchronous = OFF")
        self.open_pool = open_pool(self.pool)
        self.open_pool.connection.execute("PRAGMA synchronous = OFF")
        self.journal.abandon_open_intents(self.now(), final=False)
        run = start_run(self.journal)
        self.share = settled_share(self.open_pool, self.journal, sandbox=False)
        self.writer = SteppedWriter(self.journal)
        self.ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING))
        self.accounting = Accounting(
            run,
            self.journal.next_attempt(),
            self.ledger,
            TARIFF,
            self.writer,
            self.journal.latest_start(),
            self.now,
            self.share,
        )
        self.uncommitted, self.durable, self.in_flight = [], [], []

    def ask(self) -> None:
        self.asked += 1
        active = ActiveRequest(request(self.asked, input_bound=30, output_bound=10))
        if self.accounting.reserve(active) is None:
            self.uncommitted.append(active)

    def commit(self, records: int) -> None:
        if self.writer.queue:
            intents, _ = self.writer.commit(records)
            for _ in range(intents):
                self.durable.append(self.uncommitted.pop(0))

    def send(self) -> None:
        if self.durable:
            self.in_flight.append(self.durable.pop(0))

    def end_one(self, tokens: int | None) -> None:
        if self.in_flight:
            active = self.in_flight.pop(0)
            if tokens is None:
                lost = failure(billing=BillingStatus.UNKNOWN)
                self.accounting.failed(active, lost, final=False)
            else:
                self.accounting.answered(active, answer(tokens - 1, 1))

    def end_in_order(self) -> None:
        while self.in_flight:
            self.end_one(3)
        self.commit(len(self.writer.queue))
        while self.durable:
            self.accounting.cancel_intent(self.durable.pop())
        self.commit(len(self.writer.queue))
        give_back(self.share, self.journal)

    def die(self) -> None:
        self.journal.close()
        self.open_pool.close()

    def counted(self) -> dict[int, int]:
        """What the journal's records say, by day of sending, read by plain SQL."""
        rows = self.journal.connection.execute(
            f"SELECT started_at / {MILLISECONDS_PER_DAY}, sum(ifnull(nano_usd, 0)) FROM"
            " (SELECT started_at, nano_usd FROM attempts UNION ALL SELECT started_at, nano_usd FROM intents)"
            " GROUP BY 1 HAVING sum(ifnull(nano_usd, 0)) > 0"
        )
        return dict(rows.fetchall())

    def claimed(self) -> dict[int, int]:
        rows = self.open_pool.connection.execute(
            "SELECT day, sum(nano_usd) FROM claims WHERE journal = ? GROUP BY day",
            (os.path.realpath(self.journal.path),),
        )
        return dict(rows.fetchall())


class PoolMachine(RuleBasedStateMachine):
    """Two jobs, killed and ended at any moment, over several days."""

    @initialize(life=st.integers(1, 25), per_day=st.integers(1, 12))
    def first_runs(self, life: int, per_day: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = STARTED_AT
        self.life, self.per_day = life * WORST, per_day * WORST
        path = Path(self.folder.name) / "team.budget"
        make_pool(path, PoolCaps(self.life, self.per_day))
        self.jobs = []
        for name in "ab":
            (Path(self.folder.name) / name).mkdir()
            self.jobs.append(OneJob(Path(self.folder.name) / name, path, lambda: self.clock))
            self.jobs[-1].start()

    @rule(job=st.integers(0, 1), many=st.integers(1, 6))
    def ask(self, job: int, many: int) -> None:
        for _ in range(many):
            self.jobs[job].ask()

    @rule(job=st.integers(0, 1), records=st.integers(1, 6))
    def commit(self, job: int, records: int) -> None:
        self.jobs[job].commit(records)

    @rule(job=st.integers(0, 1), many=st.integers(1, 6))
    def send(self, job: int, many: int) -> None:
        for _ in range(many):
            self.jobs[job].send()

    @rule(job=st.integers(0, 1), tokens=st.none() | st.integers(2, 40))
    def end_one(self, job: int, tokens: int | None) -> None:
        self.jobs[job].end_one(tokens)

    @rule(job=st.integers(0, 1))
    def kill_and_resume(self, job: int) -> None:
        self.jobs[job].die()
        self.jobs[job].start()

    @rule(job=st.integers(0, 1))
    def end_and_start_again(self, job: int) -> None:
        self.jobs[job].end_in_order()
        assert self.jobs[job].claimed() == self.jobs[job].counted(), (
            "all money is accounted for, to the nano-USD"
        )
        self.jobs[job].die()
        self.jobs[job].start()

    @rule(hours=st.integers(1, 30))
    def pass_time(self, hours: int) -> None:
        self.clock += hours * 3_600_000

    @invariant()
    def the_pool_counts_at_least_what_the_journals_do(self) -> None:
        in_all = dict[int, int]()
        for job in self.jobs:
            claimed = job.claimed()
            for day, counted in job.counted().items():
                assert claimed.get(day, 0) >= counted
                in_all[day] = in_all.get(day, 0) + counted
        assert max(in_all.values(), default=0) <= self.per_day
        assert sum(in_all.values()) <= self.life

    def teardown(self) -> None:
        for job in self.jobs:
            job.die()
        self.folder.cleanup()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=int(os.environ.get("BATCHRUN_EXAMPLES", "25")), stateful_step_count=40, deadline=None
)


def test_a_run_that_goes_on_past_midnight_claims_anew_for_the_new_day(path: Path) -> None:
    """What was left of yesterday's claims is not spent today, when it would count for nobody."""
    (share,) = shares_of(pool := pool_at(path, 10**9, 10**8), 1)
    clock = STARTED_AT
    ledger = Ledger(caps_of(Budget(pool="team.budget"), NOTHING, NOTHING), pool_left=10**9)
    accounting = Accounting(1, 1, ledger, TARIFF, Silent(), clock=lambda: clock, pool=share)
    active = ActiveRequest(request(1, input_bound=30, output_bound=10))
    assert accounting.reserve(active) is None
    accounting.answered(active, answer(2, 1))
    clock += MILLISECONDS_PER_DAY
    assert accounting.reserve(ActiveRequest(request(2, input_bound=30, output_bound=10))) is None
    claims = dict(pool.connection.execute("SELECT day, nano_usd FROM claims").fetchall())
    assert claims[DAY + 1] >= WORST
