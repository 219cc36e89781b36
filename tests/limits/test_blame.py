"""The real engine tells bad rows from a bad endpoint: rows that fail permanently, and rows that are kept."""

from pathlib import Path

import anyio
import pytest

from batchrun.client.retry import RetryPolicy
from batchrun.engine.dispatcher import Rules
from tests.money.fanout import Provider, Run, SendResult, answer, failure, request

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "journal.sqlite", rules=rules(max_outage=900.0))


def rules(max_outage: float) -> Rules:
    return Rules(8, RetryPolicy(max_attempts=3, max_wait_seconds=0.05), outage_seconds=max_outage)


def bad(*numbers: int) -> Provider:
    """Answers all requests but these."""

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002)
        return failure() if number in numbers else answer()

    return Provider(serve)


def counts(run: Run) -> tuple[int, int]:
    totals = run.journal().totals(sandbox=False)
    return totals.answered, totals.failed


async def test_bad_rows_among_good_ones_get_their_attempts_and_no_more(run: Run) -> None:
    provider = bad(*range(10, 200, 10))
    with anyio.fail_after(40):
        assert await run.asked(provider, [request(number) for number in range(1, 301)]) is None
    assert counts(run) == (281, 19)
    assert {provider.attempts[number] for number in range(10, 200, 10)} == {3}


@pytest.mark.parametrize(("rows", "failing"), [(40, 1), (300, 10)])
async def test_a_few_bad_rows_at_the_very_end_fail(run: Run, rows: int, failing: int) -> None:
    """Ten of them too, after the whole patience, and the run doesn't end with 5 on their account."""
    run.rules = rules(max_outage=1.0)
    provider = bad(*range(rows - failing + 1, rows + 1))
    with anyio.fail_after(50):
        assert await run.asked(provider, [request(number) for number in range(1, rows + 1)]) is None
    assert counts(run) == (rows - failing, failing)


async def test_a_run_in_which_nothing_works_fails_no_row(run: Run) -> None:
    """One row or three: whether they or the endpoint are bad, nothing tells."""
    run.rules = rules(max_outage=0.7)
    with anyio.fail_after(30):
        stop = await run.asked(bad(1, 2, 3), [request(number) for number in range(1, 4)])
    assert stop is not None
    assert stop.exit_code == 5
    assert counts(run) == (0, 0)


async def test_an_outage_that_only_the_last_rows_meet_costs_none_of_them(run: Run) -> None:
    """They have 3 attempts, and waits of 0.05 s at most between them."""
    up_again = False

    async def serve(number: int, attempt: int) -> SendResult:
        await anyio.sleep(0.002)
        return failure() if number > 297 and not up_again else answer()

    async def end_outage(_: object) -> None:
        nonlocal up_again
        await anyio.sleep(1.5)
        up_again = True

    run.meddle = end_outage
    with anyio.fail_after(40):
        assert await run.asked(Provider(serve), [request(number) for number in range(1, 301)]) is None
    assert counts(run) == (300, 0)
