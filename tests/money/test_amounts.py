"""Prices and amounts: a worst case is an upper bound, and rounding never makes it less than one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from batchrun.amounts import NOTHING, Amount, usd_figure, usd_text
from batchrun.engine.pricing import MILLION, PriceList, credits_rate
from batchrun.exchange import Response

PRICES = st.integers(0, 10**12)
TOKENS = st.integers(0, 10**7)
AMOUNTS = st.builds(Amount, *[st.integers(0, 10**15)] * 4)


def answer(
    input_tokens: int | None, output_tokens: int | None, nano_usd: int | None = None, used: int | None = None
) -> Response:
    return Response(b"{}", input_tokens, output_tokens, nano_usd, used)


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_amounts_add_up_exactly(a: Amount, b: Amount, c: Amount) -> None:
    assert a.plus(b).minus(b) == a
    assert a.plus(b).plus(c) == c.plus(a).plus(b)
    assert a.minus(a) == NOTHING


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0.00 USD"),
        (1, "0.000000001 USD"),
        (230_000, "0.00023 USD"),
        (123_456_789, "0.1235 USD"),
        (1_000_000_000, "1.00 USD"),
        (12_345_678_901, "12.35 USD"),
    ],
)
def test_amounts_for_people(nano_usd: int, text: str) -> None:
    assert usd_text(nano_usd) == text


def after(
    price_list: PriceList, given_answer: Response, cost: Amount, input_bound: int, output_bound: int
) -> PriceList:
    raised = price_list.raised_by(cost.nano_usd, cost.tokens, input_bound, output_bound)
    return raised.at_rate_of(given_answer, cost.tokens)


@given(PRICES, PRICES, TOKENS, TOKENS, st.data())
def test_no_answer_within_its_bounds_costs_more_than_the_worst_case(
    input_price: int, output_price: int, input_bound: int, output_bound: int, data: st.DataObject
) -> None:
    price_list = PriceList(input_price, output_price, Fraction(data.draw(st.integers(0, 10**6)), MILLION))
    worst = price_list.worst_case(input_bound, output_bound)
    given_answer = answer(data.draw(st.integers(0, input_bound)), data.draw(st.integers(0, output_bound)))
    cost = price_list.cost(given_answer, worst)
    assert all(part <= most for part, most in zip(astuple(cost), astuple(worst), strict=True))
    assert after(price_list, given_answer, cost, input_bound, output_bound) == price_list


@given(PRICES, PRICES, TOKENS, TOKENS)
def test_a_worst_case_is_rounded_up(
    input_price: int, output_price: int, input_bound: int, output_bound: int
) -> None:
    exact = Fraction(input_bound * input_price + output_bound * output_price, MILLION)
    worst = PriceList(input_price, output_price).worst_case(input_bound, output_bound)
    assert exact <= worst.nano_usd < exact + 1


@given(PRICES, PRICES, st.integers(1, 10**6), TOKENS, st.integers(0, 10**15), st.integers(0, 10**6))
def test_an_answer_above_its_worst_case_raises_the_bound_to_it(
    input_price: int, output_price: int, input_bound: int, output_bound: int, nano_usd: int, used: int
) -> None:
    """And none lowers it."""
    price_list = PriceList(input_price, output_price, credits_rate(7))
    dear = answer(input_bound, output_bound, nano_usd, used)
    before = price_list.worst_case(input_bound, output_bound)
    dearer = after(price_list, dear, price_list.cost(dear, before), input_bound, output_bound).worst_case(
        input_bound, output_bound
    )
    assert dearer.nano_usd >= max(nano_usd, before.nano_usd)
    assert dearer.credits >= max(used, before.credits)
    assert dearer.nano_usd <= max(nano_usd + 1, before.nano_usd) or input_price + output_price == 0


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**4))
def test_the_first_answer_shows_the_rate_of_credits(
    tokens: int, more_tokens: int, per_million: int, surplus: int
) -> None:
    """A rate found from an amount that was rounded up to whole credits is never too low."""
    true_rate = Fraction(per_million, MILLION)
    used = -(-tokens * true_rate.numerator // true_rate.denominator)
    shown = answer(tokens, 0, 0, used)
    price_list = after(PriceList(), shown, PriceList().cost(shown, NOTHING), tokens, 0)
    assert price_list.credit_bound(more_tokens) >= more_tokens * true_rate


def test_a_free_answer_does_not_prove_that_the_next_is_free() -> None:
    free = answer(100, 0, 0, 0)
    price_list = after(PriceList(), free, Amount(0, 0, 100, 1), 100, 10)
    assert price_list.credit_bound(100) == 1


def test_a_rate_of_zero_credits_is_believed_as_long_as_answers_agree() -> None:
    price_list = PriceList(credits_per_token=credits_rate(0))
    free = answer(100, 0, 0, 0)
    assert after(price_list, free, Amount(0, 0, 100, 1), 100, 10) == price_list
    paid = answer(100, 0, 0, 2)
    assert after(price_list, paid, Amount(0, 2, 100, 1), 100, 10).credit_bound(100) == 2


@pytest.mark.parametrize(
    ("given_answer", "expected"),
    [
        (answer(10, 20, 777, 3), Amount(777, 3, 30, 1)),
        (answer(10, 20), Amount(30_000, 30, 30, 1)),
        (answer(None, 20), Amount(900_000, 900, 900, 1)),
        (answer(None, None, 777, 0), Amount(777, 0, 900, 1)),
    ],
)
def test_an_answer_costs_what_it_says_else_tokens_times_prices_else_the_whole_reservation(
    given_answer: Response, expected: Amount
) -> None:
    price_list = PriceList(10**9, 10**9, Fraction(1))
    assert price_list.cost(given_answer, price_list.worst_case(800, 100)) == expected


@pytest.mark.parametrize(
    ("price_list", "booked"),
    [
        (PriceList(MILLION, MILLION), 15),
        (PriceList(MILLION, MILLION, free=True), 0),
        (PriceList(0, 0), 0),
        (PriceList(), 0),
    ],
)
def test_a_cost_of_zero_is_believed_where_nothing_has_a_price(price_list: PriceList, booked: int) -> None:
    worst = price_list.worst_case(20, 10)
    assert price_list.cost(answer(10, 5, nano_usd=0), worst).nano_usd == booked
    assert price_list.cost(answer(None, 5, nano_usd=0), worst).nano_usd == (booked and worst.nano_usd)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (75500.0749, "75,500.07"),
        (1234567.0, "1,234,567.00"),
        (999.5, "999.5"),
        (2.5, "2.5"),
        (0.0, "0"),
        (0.09103512, "0.0910351"),
        (0.00001234, "0.00001234"),
    ],
)
def test_figures_have_separators_and_no_exponents(amount: float, text: str) -> None:
    assert usd_figure(amount) == text


def test_large_amounts_have_separators() -> None:
    assert usd_text(75_500_070_000_000) == "75,500.07 USD"
