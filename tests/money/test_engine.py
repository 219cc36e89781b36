"""The engine with real books and a real journal: the budget holds and is used, every run comes to an end."""

import random
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from batchrun.amounts import Amount
from batchrun.client.retry import RetryPolicy
from batchrun.engine.dispatcher import Rules
from batchrun.engine.ledger import Cap
from batchrun.engine.local import Engine
from batchrun.engine.pricing import credits_rate
from batchrun.errors import InputError
from batchrun.exchange import BillingStatus, FailureAction
from batchrun.journal.checking import check_whole
from batchrun.stops import Stop
from tests.money.fanout import (
    NANO_USD_PER_TOKEN,
    TARIFF,
    Provider,
    Run,
    SendResult,
    answer,
    failure,
    request,
)
from tests.money.journals import digest_of

pytestmark = pytest.mark.anyio

RETRY = RetryPolicy(max_attempts=3, max_wait_seconds=0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "journal.sqlite")


async def answers_at_once(number: int, attempt: int) -> SendResult:
    await anyio.lowlevel.checkpoint()
    return answer()


def life_cap(nano_usd: int) -> tuple[Cap, ...]:
    return (Cap("budget.usd", "nano_usd", nano_usd),)


# The budget.


@pytest.mark.parametrize(("concurrency", "rows"), [(1, 400), (64, 1_500), (1_000, 3_000)])
async def test_the_budget_holds_and_is_used(run: Run, concurrency: int, rows: int) -> None:
    """Mixed lengths, retries, lost answers: overshoot 0, and 99 % used; a row's worst case is under 1 %."""
    draw = random.Random(concurrency)
    lengths = {number: draw.randrange(20, 400) for number in range(1, rows + 1)}
    worst_row = (400 + 60) * NANO_USD_PER_TOKEN
    cap = max(101 * worst_row, rows * 130 * NANO_USD_PER_TOKEN // 2)

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(draw.random() * 0.004)
        fate = draw.random()
        if fate < 0.05:
            return failure()
        reply = answer(lengths[number] - draw.randrange(20), draw.randrange(1, 61))
        if fate < 0.08:
            provider.bill += (reply.cost_nano_usd or 0) * (fate < 0.07)
            return failure(billing=BillingStatus.UNKNOWN)
        return reply

    provider = Provider(serve)
    run.caps = life_cap(cap)
    run.rules = Rules(concurrency, RETRY)
    requests = [request(number, input_bound=length, output_bound=60) for number, length in lengths.items()]
    with anyio.fail_after(40):
        stop = await run.asked(provider, requests)
    assert stop is not None
    assert "budget.usd" in stop.reason
    totals = run.journal().totals(sandbox=False)
    used = totals.spend.committed.nano_usd
    assert provider.bill <= used <= cap
    assert totals.spend.settled.nano_usd <= provider.bill
    assert used >= cap * 0.99
    assert totals.open_intents == 0
    assert run.ledger.reserved == Amount()
    if concurrency > 1:
        assert provider.most_in_flight > concurrency / 10


async def test_the_cap_on_rows_counts_each_row_that_is_sent_for(run: Run) -> None:
    """A row counts once, whether it is answered, fails, or takes several attempts."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.001)
        if number % 5 == 0 and attempt == 1:
            return failure(FailureAction.RETRY, status=500)
        return failure(FailureAction.FAIL_ROW, status=400) if number % 3 == 0 else answer()

    run.caps = (Cap("budget.rows", "rows", 37),)
    with anyio.fail_after(20):
        stop = await run.asked(Provider(serve), [request(number) for number in range(1, 200)])
    assert stop is not None
    assert "budget.rows" in stop.reason
    totals = run.journal().totals(sandbox=False)
    assert (totals.answered, totals.failed) == (25, 12)


async def test_the_cap_on_tokens_holds(run: Run) -> None:
    run.caps = (Cap("budget.tokens", "tokens", 12_100),)
    with anyio.fail_after(20):
        await run.asked(Provider(answers_at_once), [request(number) for number in range(1, 400)])
    assert 12_100 * 0.99 <= run.journal().totals(sandbox=False).spend.committed.tokens <= 12_100


async def test_without_a_rate_of_credits_one_request_goes_out_until_it_is_answered(run: Run) -> None:
    first_answered = False

    async def serve(number: int, attempt: int) -> SendResult:
        nonlocal first_answered
        assert first_answered or provider.in_flight == 1
        await anyio.sleep(0.005)
        first_answered = True
        return answer(60, 15, credits_used=3)

    provider = Provider(serve)
    run.caps = (Cap("budget.credits", "credits", 600),)
    with anyio.fail_after(20):
        await run.asked(provider, [request(number) for number in range(1, 400)])
    assert provider.most_in_flight > 1
    assert 590 <= run.journal().totals(sandbox=False).spend.settled.credits <= 600


async def test_a_cap_of_no_credits_lets_nothing_through(run: Run) -> None:
    provider = Provider(answers_at_once)
    run.caps = (Cap("budget.credits", "credits", 0),)
    with anyio.fail_after(20):
        stop = await run.asked(provider, [request(1)])
    assert stop is not None
    assert "budget.credits" in stop.reason
    assert not provider.attempts


async def test_lost_answers_use_up_credits_before_any_rate_is_known(run: Run) -> None:
    """Nobody knows what they used: it is at least one credit each, so the run ends."""

    async def serve(number: int, attempt: int) -> SendResult:
        return failure(billing=BillingStatus.UNKNOWN)

    provider = Provider(serve)
    run.caps = (Cap("budget.credits", "credits", 5),)
    with anyio.fail_after(20):
        await run.asked(provider, [request(number) for number in range(1, 100)])
    assert provider.attempts.total() == 5
    assert provider.most_in_flight == 1


async def test_the_first_rate_puts_a_value_on_the_answers_that_were_lost_before(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        return failure(billing=BillingStatus.UNKNOWN) if number == 1 else answer(60, 15, credits_used=75)

    run.caps = (Cap("budget.credits", "credits", 10_000),)
    run.rules = replace(run.rules, leave_in_doubt=True)
    with anyio.fail_after(20):
        await run.asked(Provider(serve), [request(1), request(2)])
    assert run.ledger.uncertain.credits == 120  # 120 tokens at a credit each


async def test_answers_that_name_no_credits_end_a_run_with_a_cap_on_them(run: Run) -> None:
    provider = Provider(answers_at_once)
    run.caps = (Cap("budget.credits", "credits", 50),)
    with anyio.fail_after(20):
        stop = await run.asked(provider, [request(number) for number in range(1, 9)])
    assert stop is not None
    assert "credits" in stop.reason
    assert "pricing.credits_per_million_tokens" in stop.next_step
    assert provider.attempts.total() == 1


@pytest.mark.parametrize("lost", [0.0, 0.2])
async def test_the_account_never_falls_below_keep_credits(run: Run, lost: float) -> None:
    """Not with lost answers either, whose charge no report shows in time."""
    balance = 500
    draw = random.Random(11)

    async def serve(number: int, attempt: int) -> SendResult:
        nonlocal balance
        await anyio.sleep(draw.random() * 0.003)
        balance -= 6
        left = balance
        await anyio.sleep(draw.random() * 0.003)
        if number > 1 and draw.random() < lost:
            return failure(billing=BillingStatus.UNKNOWN)
        return answer(60, 15, credits_used=6, remaining_credits=left)

    run.keep_credits = 100
    run.price_list = replace(TARIFF, credits_per_token=credits_rate(80_000))
    with anyio.fail_after(20):
        stop = await run.asked(Provider(serve), [request(number) for number in range(1, 400)])
    assert stop is not None
    assert "budget.keep_credits" in stop.reason
    assert 100 <= balance <= 130


async def test_answers_that_name_no_balance_end_a_run_with_a_floor_under_it(run: Run) -> None:
    provider = Provider(answers_at_once)
    run.keep_credits = 100
    run.price_list = replace(TARIFF, credits_per_token=credits_rate(80_000))
    with anyio.fail_after(20):
        stop = await run.asked(provider, [request(number) for number in range(1, 9)])
    assert stop is not None
    assert "budget.keep_credits" in stop.reason
    assert provider.attempts.total() == 1


async def test_an_answer_above_its_worst_case_raises_the_bound_for_what_follows(run: Run) -> None:
    """The price was set at a tenth of the real one: only what was in flight by then passes the cap."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002)
        return answer(100, 20, nano_usd=1_200 * NANO_USD_PER_TOKEN)

    provider = Provider(serve)
    worst = 120 * NANO_USD_PER_TOKEN
    run.caps = life_cap(1_000 * worst)
    with anyio.fail_after(20):
        await run.asked(provider, [request(number) for number in range(1, 2_000)])
    assert run.ledger.overruns > 0
    assert 990 * worst <= provider.bill <= 1_000 * worst
    assert run.journal().totals(sandbox=False).spend.settled.nano_usd == provider.bill


async def test_tokens_above_their_bound_raise_it_for_what_follows(run: Run) -> None:
    """A cap on tokens is passed by no more than what was in flight before the first answer."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002)
        return answer(1_000, 200, nano_usd=NANO_USD_PER_TOKEN)

    provider = Provider(serve)
    run.caps = (Cap("budget.tokens", "tokens", 120_000),)
    with anyio.fail_after(20):
        await run.asked(provider, [request(number) for number in range(1, 2_000)])
    assert run.ledger.overruns > 0
    assert 118_800 <= run.ledger.settled.tokens <= 120_000
    (overrun,) = run.journal().totals(sandbox=False).overruns
    assert TARIFF.raised_by(*overrun).worst_case(100, 20).tokens >= 1_200


# Ends of a run.


@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_a_refusing_endpoint_stops_the_run_and_keeps_what_is_in_flight(run: Run, status: int) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.001 if number == 40 else 0.02)
        return failure(FailureAction.STOP_RUN, status=status) if number == 40 else answer()

    provider = Provider(serve)
    with anyio.fail_after(20):
        stop = await run.asked(provider, [request(number) for number in range(1, 300)])
    assert stop is not None
    assert stop.exit_code == 5
    assert provider.attempts.total() < 100
    totals = run.journal().totals(sandbox=False)
    assert totals.answered == provider.attempts.total() - 1
    assert totals.failed == 0, "the refused row is pending, not failed"


async def test_a_drain_keeps_the_answers_that_come_in_time(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.1 if number % 2 else 60)
        return answer()

    async def interrupt(engine: Engine) -> None:
        await anyio.sleep(0.05)
        engine.stop(Stop(130, "Interrupted.", "go on"), drain_seconds=0.4)

    run.meddle = interrupt
    provider = Provider(serve)
    with anyio.fail_after(10):
        stop = await run.asked(provider, [request(number) for number in range(1, 100)])
    assert stop is not None
    assert stop.exit_code == 130
    totals = run.journal().totals(sandbox=False)
    assert totals.answered == sum(number % 2 for number in provider.attempts)
    assert totals.uncertain == provider.attempts.total() - totals.answered
    assert totals.open_intents == 0, "what was not sent is taken back"


async def test_an_abort_ends_at_once_and_books_what_is_in_flight_as_uncertain(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        if number > 5:
            await anyio.sleep(60)
        return answer()

    async def interrupt_twice(engine: Engine) -> None:
        await anyio.sleep(0.1)
        engine.stop(Stop(130, "Interrupted.", "go on"), drain_seconds=30)
        engine.abort()

    run.meddle = interrupt_twice
    provider = Provider(serve)
    with anyio.fail_after(5):
        await run.asked(provider, [request(number) for number in range(1, 100)])
    totals = run.journal().totals(sandbox=False)
    assert totals.answered == 5
    assert totals.uncertain == provider.attempts.total() - 5
    assert totals.open_intents == 0
    assert totals.failed == 0, "the rows are asked again"


async def test_an_abort_under_leave_ends_the_rows_in_flight(run: Run) -> None:
    """in_doubt = "leave": a row that may have been billed isn't asked again, whoever lost its answer."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(60)
        return answer()

    async def interrupt(engine: Engine) -> None:
        await anyio.sleep(0.05)
        engine.abort()

    run.meddle = interrupt
    run.rules = replace(run.rules, leave_in_doubt=True)
    provider = Provider(serve)
    with anyio.fail_after(5):
        await run.asked(provider, [request(number) for number in range(1, 5)])
    digests = [digest_of(number) for number in provider.attempts]
    assert run.journal().settled_digests(digests) == dict.fromkeys(digests, True)


@pytest.mark.parametrize("after", [0.0, 0.001, 0.003, 0.01])
async def test_a_stop_leaves_nothing_behind_that_was_not_sent(run: Run, after: float) -> None:
    """Whether intents were uncommitted, durable or withdrawn already at that moment."""

    async def interrupt(engine: Engine) -> None:
        await anyio.sleep(after)
        engine.stop(Stop(130, "Interrupted.", "go on"), drain_seconds=5)

    run.meddle = interrupt
    provider = Provider(answers_at_once)
    with anyio.fail_after(10):
        await run.asked(provider, [request(number) for number in range(1, 3_000)])
    totals = run.journal().totals(sandbox=False)
    assert totals.requests == totals.answered == provider.attempts.total()
    assert totals.open_intents == 0
    assert run.ledger.in_flight == 0


@pytest.mark.parametrize("commits", [0, 1, 20])
async def test_a_journal_that_breaks_ends_the_run_with_its_error(run: Run, commits: int) -> None:
    run.broken_commit = commits
    provider = Provider(answers_at_once)
    with anyio.fail_after(10), pytest.raises(OSError, match="the disk is gone"):
        await run.asked(provider, [request(number) for number in range(1, 5_000)])
    assert provider.attempts.total() < 5_000
    journal = run.journal()
    check_whole(journal)
    journal.close()


async def test_an_input_that_breaks_off_loses_no_answer_in_flight(run: Run) -> None:
    """The error comes through as it is, after what is in flight has been answered."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.1)
        return answer()

    provider = Provider(serve)
    run.broken_input = InputError("row 51 can't be read")
    run.rules = replace(run.rules, concurrency=64)
    with anyio.fail_after(10), pytest.raises(InputError, match="row 51"):
        await run.asked(provider, [request(number) for number in range(1, 100)])
    totals = run.journal().totals(sandbox=False)
    assert totals.answered == provider.attempts.total() > 0
    assert totals.uncertain == 0


async def test_a_fault_of_batchruns_own_ends_the_run_and_loses_no_other_answer(run: Run) -> None:
    """The request at which it happened may have been sent: it counts as uncertain."""

    async def serve(number: int, attempt: int) -> SendResult:
        if number == 5:
            raise AttributeError("a mistake")
        await anyio.sleep(0.1)
        return answer()

    provider = Provider(serve)
    run.rules = replace(run.rules, concurrency=64)
    with anyio.fail_after(10), pytest.raises(AttributeError, match="a mistake"):
        await run.asked(provider, [request(number) for number in range(1, 2_000)])
    totals = run.journal().totals(sandbox=False)
    assert totals.answered == provider.attempts.total() - 1 > 0
    assert (totals.uncertain, totals.open_intents) == (1, 0)


# Attempts.


async def test_rows_with_the_same_request_ask_once(run: Run) -> None:
    """Whether the first is in flight, or answered but not yet looked up."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002 * (number % 3))
        return answer()

    provider = Provider(serve)
    requests = [request(1 + position * 7 % 20) for position in range(600)]
    with anyio.fail_after(10):
        assert await run.asked(provider, requests) is None
    assert set(provider.attempts.values()) == {1}
    assert len(provider.attempts) == 20
    assert run.journal().totals(sandbox=False).open_intents == 0


async def test_attempts_come_to_an_end(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        return failure() if number == 3 else answer()

    provider = Provider(serve)
    with anyio.fail_after(20):
        assert await run.asked(provider, [request(number) for number in range(1, 10)]) is None
    assert provider.attempts[3] == 3
    totals = run.journal().totals(sandbox=False)
    assert (totals.answered, totals.failed) == (8, 1)


async def test_rate_limits_use_up_no_attempts(run: Run) -> None:
    """Four of them, and a failure, for a row that has three attempts."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.001)
        if number != 150:
            return answer()
        if attempt <= 4:
            return failure(FailureAction.SLOW_DOWN, status=429, retry_after=0.002)
        return failure() if attempt == 5 else answer()

    provider = Provider(serve)
    with anyio.fail_after(30):
        assert await run.asked(provider, [request(number) for number in range(1, 301)]) is None
    assert provider.attempts[150] == 6
    assert run.journal().totals(sandbox=False).answered == 300


async def test_an_endpoint_that_lets_nothing_through_ends_the_run(run: Run) -> None:
    """429s use up no attempts, so patience is what ends them."""

    async def refuse(number: int, attempt: int) -> SendResult:
        await anyio.lowlevel.checkpoint()
        return failure(FailureAction.SLOW_DOWN, BillingStatus.NO)

    run.rules = replace(run.rules, outage_seconds=0.2)
    with anyio.fail_after(20):
        stop = await run.asked(Provider(refuse), [request(1)])
    assert stop is not None
    assert stop.exit_code == 5


async def test_a_wait_longer_than_patience_ends_the_run(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        return failure(FailureAction.SLOW_DOWN, status=429, retry_after=3_600)

    provider = Provider(serve)
    with anyio.fail_after(10):
        stop = await run.asked(provider, [request(number) for number in range(1, 50)])
    assert stop is not None
    assert stop.exit_code == 5
    assert "3600 s" in stop.reason
    assert run.journal().totals(sandbox=False).failed == 0


async def test_leave_in_doubt_asks_no_row_again_that_may_have_been_billed(run: Run) -> None:
    async def serve(number: int, attempt: int) -> SendResult:
        return (
            failure(billing=BillingStatus.UNKNOWN if number % 2 else BillingStatus.NO)
            if attempt == 1
            else answer()
        )

    provider = Provider(serve)
    run.rules = replace(run.rules, leave_in_doubt=True)
    with anyio.fail_after(20):
        await run.asked(provider, [request(number) for number in range(1, 11)])
    assert {number: provider.attempts[number] for number in range(1, 11)} == {
        number: 1 if number % 2 else 2 for number in range(1, 11)
    }
    totals = run.journal().totals(sandbox=False)
    assert (totals.answered, totals.failed, totals.uncertain) == (5, 5, 5)


async def test_the_next_run_goes_on_where_this_one_stopped(run: Run) -> None:
    """Under one cap over the journal's life, and no answered row is asked again."""
    cap = 60 * 120 * NANO_USD_PER_TOKEN
    provider = Provider(answers_at_once)
    requests = [request(number) for number in range(1, 200)]
    for _ in range(3):
        spent = run.journal().totals(sandbox=False).spend.committed.nano_usd
        run.caps = (Cap("budget.usd", "nano_usd", cap, before=spent),)
        with anyio.fail_after(20):
            await run.asked(provider, requests)
    assert set(provider.attempts.values()) == {1}
    assert cap - 120 * NANO_USD_PER_TOKEN < provider.bill <= cap
