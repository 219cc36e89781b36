"""Prices by kind of input token: a cap holds with cache writes, and what was read from a cache costs less."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.builder import RequestBuilder
from batchrun.client.messages.response import read_completion, read_response
from batchrun.client.request import Request
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Cap, Ledger
from batchrun.engine.pricing import PriceList
from batchrun.exchange import NO_CACHE, CacheLifetime, CacheUsage, Response
from batchrun.job.file import load_job, make_job
from batchrun.job.prices import CachePrices, cache_prices
from batchrun.journal.records import Attempt, Intent

PER_TOKEN = 5_000
INPUT = PER_TOKEN * 10**6
ANTHROPIC = CachePrices(INPUT // 10, INPUT * 5 // 4, INPUT * 2, INPUT)
PRICES = PriceList(INPUT, INPUT, cache=ANTHROPIC)
LIFETIMES: st.SearchStrategy[CacheLifetime | None] = st.sampled_from([None, "5m", "1h"])
ONE_USD = 10**9


class _Log:
    def write_intent(self, intent: Intent) -> None: ...
    def record(self, attempt: Attempt) -> None: ...
    def cancel_intent(self, attempt: int) -> None: ...


def body(usage: dict[str, Any]) -> bytes:
    message = {"type": "message", "content": [{"type": "text", "text": "yes"}], "stop_reason": "end_turn"}
    return msgspec.json.encode({**message, "usage": usage})


def response(plain: int, read: int = 0, write_5m: int = 0, write_1h: int = 0, output: int = 5) -> Response:
    by_lifetime = {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h}
    usage = {"input_tokens": plain, "cache_read_input_tokens": read, "output_tokens": output}
    written = {"cache_creation_input_tokens": write_5m + write_1h, "cache_creation": by_lifetime}
    return read_response(body({**usage, **written}), 0.1)


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Request, Response, int]:
    """A request, its response without a cost, and what Anthropic bills for it in nano-USD."""
    cached = draw(LIFETIMES)
    kinds = draw(st.lists(st.integers(0, 30_000), min_size=4, max_size=4))
    if cached is None:
        kinds[1:] = [0, 0, 0]
    elif cached == "5m":
        kinds[3] = 0
    kinds[0] += 1
    plain, read, write_5m, write_1h = kinds
    output = draw(st.integers(1, 500))
    true_bill = PER_TOKEN * (plain + output) + 500 * read + 6_250 * write_5m + 10_000 * write_1h
    bound = sum(kinds) + draw(st.integers(0, 100))
    request = Request(b"{}", draw(st.binary(min_size=16, max_size=16)), bound, 500, cached=cached)
    return request, response(plain, read, write_5m, write_1h, output), true_bill


@given(st.lists(exchanges(), min_size=1, max_size=40), st.integers(1, 8))
def test_a_cap_of_one_usd_holds_with_cache_writes(
    queue: list[tuple[Request, Response, int]], most_in_flight: int
) -> None:
    ledger = Ledger((Cap("usd", "nano_usd", ONE_USD),))
    accounting = Accounting(1, 1, ledger, PRICES, _Log())
    in_flight: list[tuple[ActiveRequest, Response, int]] = []
    billed = 0
    for request, its_response, true_bill in queue:
        active = ActiveRequest(request)
        if accounting.reserve(active) is None:
            in_flight.append((active, its_response, true_bill))
            billed += true_bill  # as soon as it is sent
        assert billed <= ONE_USD
        if len(in_flight) >= most_in_flight:
            accounting.answered(*in_flight.pop(0)[:2])
    for active, its_response, _ in in_flight:
        accounting.answered(active, its_response)
    assert ledger.settled.nano_usd == billed
    assert ledger.overruns == 0


@given(st.lists(exchanges(), min_size=1, max_size=40), st.integers(1, 8))
def test_a_cap_in_credits_holds_where_cached_tokens_count_as_any(
    queue: list[tuple[Request, Response, int]], most_in_flight: int
) -> None:
    """A credit for each 1,000 tokens begun. The rate is unknown before the first response."""
    ledger = Ledger((Cap("credits", "credits", 200),))
    accounting = Accounting(1, 1, ledger, PRICES, _Log())
    in_flight: list[tuple[ActiveRequest, Response]] = []
    billed = 0
    for request, its_response, _ in queue:
        active = ActiveRequest(request)
        tokens = (its_response.input_tokens or 0) + (its_response.output_tokens or 0)
        used = -(-tokens // 1_000)
        if accounting.reserve(active) is None:
            in_flight.append((active, msgspec.structs.replace(its_response, credits_used=used)))
            billed += used
        if in_flight and len(in_flight) >= most_in_flight:
            accounting.answered(*in_flight.pop(0))
    for active, its_response in in_flight:
        accounting.answered(active, its_response)
    assert ledger.settled.credits == billed
    assert billed <= 200


def test_credits_are_booked_as_stated_and_else_by_all_tokens_cached_or_not() -> None:
    prices = replace(PRICES, credits_per_token=Fraction(1, 1_000))
    worst = prices.worst_case(10_200, 5, "5m")
    cached = response(100, read=10_000)
    assert worst.credits == 11
    assert prices.cost(cached, worst, "5m").credits == 11
    assert prices.cost(msgspec.structs.replace(cached, credits_used=3), worst, "5m").credits == 3
    learned = replace(PRICES, credits_per_token=None).at_rate_of(
        msgspec.structs.replace(cached, credits_used=3), 10_105
    )
    assert learned.credits_per_token == Fraction(3, 10_105)


@given(LIFETIMES, st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    cached: CacheLifetime | None, plain: int, read: int, write: int
) -> None:
    """Also where the response doesn't state the lifetime of what was written."""
    usage = {"input_tokens": plain, "cache_read_input_tokens": read, "cache_creation_input_tokens": write}
    worst = PRICES.worst_case(plain + read + write, 5, cached)
    cost = PRICES.cost(read_response(body({**usage, "output_tokens": 5}), 0.1), worst, cached)
    assert cost.nano_usd <= worst.nano_usd
    price = {None: PER_TOKEN, "5m": 6_250, "1h": 10_000}[cached]
    assert cost.nano_usd == PER_TOKEN * (plain + 5) + 500 * read + price * write


def test_cache_reads_settle_at_less_than_input() -> None:
    worst = PRICES.worst_case(1_100, 5, "5m")
    assert worst.nano_usd == 1_100 * 6_250 + 5 * PER_TOKEN
    cost = PRICES.cost(response(100, read=1_000), worst, "5m")
    assert cost.nano_usd == 100 * PER_TOKEN + 1_000 * 500 + 5 * PER_TOKEN
    assert cost.tokens == 1_105


@pytest.mark.parametrize(
    ("usage", "expected", "input_tokens"),
    [
        ({"cache_read_input_tokens": 30}, CacheUsage(30), 40),
        ({"cache_creation_input_tokens": 20}, CacheUsage(0, 20), 30),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 7}}, CacheUsage(0, 7, 0, 7), 17),
        (
            {"cache_creation_input_tokens": 20.0, "cache_creation": {"ephemeral_5m_input_tokens": "20"}},
            CacheUsage(0, 20, 20),
            30,
        ),
        ({"cache_creation": None, "cache_read_input_tokens": None}, NO_CACHE, 10),
        ({"cache_creation": "none", "cache_creation_input_tokens": 5}, CacheUsage(0, 5), 15),
        ({"cache_creation": {"ephemeral_5m_input_tokens": -1}}, NO_CACHE, 10),
        ({"cache_read_input_tokens": "hit"}, NO_CACHE, None),
    ],
)
def test_what_a_response_says_of_the_cache(
    usage: dict[str, Any], expected: CacheUsage, input_tokens: int | None
) -> None:
    raw = body({"input_tokens": 10, "output_tokens": 5, **usage})
    assert read_completion(raw, 1).cache == expected
    assert read_response(raw, 0.1).input_tokens == input_tokens


MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def system(mark: dict[str, Any] | None) -> dict[str, Any]:
    block = {"type": "text", "text": "Be brief."}
    return {
        "prompt": {
            "template": "{{ x }}",
            "system": [block if mark is None else {**block, "cache_control": mark}],
        }
    }


def extra(**fields: Any) -> dict[str, Any]:
    return {"request": {"model": "m", "max_tokens": 5, "extra": fields}}


TOOL = {"name": "t", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("tables", "cell", "expected"),
    [
        (system(None), "cache_control", None),
        (system(None), '"cache_control": {"ttl": "1h"}', None),
        (system(MARK), "a", "5m"),
        (system({**MARK, "ttl": "5m"}), "a", "5m"),
        (system(HOUR), "a", "1h"),
        (system({**MARK, "ttl": "24h"}), "a", "1h"),
        (extra(cache_control=HOUR), "a", "1h"),
        (extra(tools=[TOOL, {**TOOL, "cache_control": MARK}]), "a", "5m"),
        ({**system(MARK), **extra(tools=[{**TOOL, "cache_control": HOUR}])}, "a", "1h"),
    ],
)
def test_the_most_expensive_lifetime_that_a_body_marks(
    tables: dict[str, Any], cell: str, expected: str | None
) -> None:
    whole = {
        "input": {"path": "in.csv"},
        "output": {"path": "out.parquet"},
        "prompt": {"template": "{{ x }}"},
        "request": {"model": "m", "max_tokens": 5},
        **tables,
    }
    built = RequestBuilder(make_job(whole, Path()), ["x"], "").build({"x": cell})
    assert isinstance(built, Request)
    assert built.cached == expected


def test_marks_in_messages_of_a_column_and_in_results_of_tools() -> None:
    whole = {
        "input": {"path": "in.csv"},
        "output": {"path": "out.parquet"},
        "prompt": {"messages": "x"},
        "request": {"model": "m", "max_tokens": 5},
    }
    inner = {"type": "text", "text": "a", "cache_control": HOUR}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [inner]}
    built = RequestBuilder(make_job(whole, Path()), ["x"], "").build(
        {"x": [{"role": "user", "content": [result]}]}
    )
    assert isinstance(built, Request)
    assert built.cached == "1h"


GIVEN = ("pricing.input_usd_per_million=4", "pricing.output_usd_per_million=8")
ELSEWHERE = "endpoint.base_url=https://llm.example.com"
USD = 10**9


@pytest.mark.parametrize(
    ("overrides", "sandbox", "expected"),
    [
        ((), False, (0.5, 6.25, 10, 5)),
        ((ELSEWHERE, *GIVEN), False, (4, 5, 8, 4)),
        ((ELSEWHERE, *GIVEN), True, (0.4, 5, 8, 4)),
        ((ELSEWHERE, "endpoint.preset=anthropic", *GIVEN), False, (0.4, 5, 8, 4)),
        (("endpoint.preset=local",), False, (0, 0, 0, 0)),
        ((ELSEWHERE, *GIVEN, "pricing.cache_read_usd_per_million=1"), False, (1, 5, 8, 4)),
        ((ELSEWHERE, *GIVEN, "pricing.cache_write_usd_per_million=9"), False, (4, 9, 9, 9)),
        ((ELSEWHERE, *GIVEN, "pricing.cache_write_usd_per_million=0"), False, (4, 0, 8, 4)),
        ((ELSEWHERE, *GIVEN, "pricing.cache_write_1h_usd_per_million=6"), False, (4, 5, 6, 6)),
    ],
)
def test_prices_of_cached_tokens_that_a_job_leaves_out_are_bounded(
    tmp_path: Path, overrides: tuple[str, ...], sandbox: bool, expected: tuple[float, ...]
) -> None:
    tables = ("input.path=in.csv", "output.path=o.parquet", "prompt.template=a", "request.model=m")
    job = load_job(None, [*tables, *overrides], sandbox=sandbox)
    assert cache_prices(job, sandbox) == CachePrices(*(int(Decimal(str(usd)) * USD) for usd in expected))


def test_without_prices_of_input_and_output_there_are_none_of_the_cache() -> None:
    tables = ("input.path=in.csv", "output.path=o.parquet", "prompt.template=a", "request.model=m")
    assert cache_prices(load_job(None, [*tables, ELSEWHERE])) is None


def test_a_server_that_writes_to_its_cache_without_being_told_to_is_reserved_for_where_that_has_a_price() -> (
    None
):
    prices = PriceList(INPUT, INPUT, cache=CachePrices(INPUT, 2 * INPUT, 3 * INPUT, 3 * INPUT))
    worst = prices.worst_case(100, 5)
    assert prices.cost(response(0, write_1h=100), worst).nano_usd == worst.nano_usd
    assert prices.cost(response(0, write_5m=100), worst).nano_usd == (2 * 100 + 5) * PER_TOKEN
