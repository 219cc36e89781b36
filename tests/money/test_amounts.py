"""Prices and amounts: a worst case is an upper bound, and rounding never makes it less than one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from batchrun.amounts import NOTHING, Amount, usd_text
from batchrun.exchange import Answer
from batchrun.pricing import MILLION, Tariff, credits_rate

PRICES = st.integers(0, 10**12)
TOKENS = st.integers(0, 10**7)
AMOUNTS = st.builds(Amount, *[st.integers(0, 10**15)] * 4)


def answer(
    input_tokens: int | None, output_tokens: int | None, nano_usd: int | None = None, used: int | None = None
) -> Answer:
    return Answer(b"{}", input_tokens, output_tokens, nano_usd, used)


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


def after(tariff: Tariff, given_answer: Answer, cost: Amount, input_bound: int, output_bound: int) -> Tariff:
    raised = tariff.raised_by(cost.nano_usd, cost.tokens, input_bound, output_bound)
    return raised.at_rate_of(given_answer, cost.tokens)


@given(PRICES, PRICES, TOKENS, TOKENS, st.data())
def test_no_answer_within_its_bounds_costs_more_than_the_worst_case(
    input_price: int, output_price: int, input_bound: int, output_bound: int, data: st.DataObject
) -> None:
    tariff = Tariff(input_price, output_price, Fraction(data.draw(st.integers(0, 10**6)), MILLION))
    worst = tariff.worst_case(input_bound, output_bound)
    given_answer = answer(data.draw(st.integers(0, input_bound)), data.draw(st.integers(0, output_bound)))
    cost = tariff.cost(given_answer, worst)
    assert all(part <= most for part, most in zip(astuple(cost), astuple(worst), strict=True))
    assert after(tariff, given_answer, cost, input_bound, output_bound) == tariff


@given(PRICES, PRICES, TOKENS, TOKENS)
def test_a_worst_case_is_rounded_up(
    input_price: int, output_price: int, input_bound: int, output_bound: int
) -> None:
    exact = Fraction(input_bound * input_price + output_bound * output_price, MILLION)
    worst = Tariff(input_price, output_price).worst_case(input_bound, output_bound)
    assert exact <= worst.nano_usd < exact + 1


@given(PRICES, PRICES, st.integers(1, 10**6), TOKENS, st.integers(0, 10**15), st.integers(0, 10**6))
def test_an_answer_above_its_worst_case_raises_the_bound_to_it(
    input_price: int, output_price: int, input_bound: int, output_bound: int, nano_usd: int, used: int
) -> None:
    """And none lowers it."""
    tariff = Tariff(input_price, output_price, credits_rate(7))
    dear = answer(input_bound, output_bound, nano_usd, used)
    before = tariff.worst_case(input_bound, output_bound)
    dearer = after(tariff, dear, tariff.cost(dear, before), input_bound, output_bound).worst_case(
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
    tariff = after(Tariff(), shown, Tariff().cost(shown, NOTHING), tokens, 0)
    assert tariff.credit_bound(more_tokens) >= more_tokens * true_rate


def test_a_free_answer_does_not_prove_that_the_next_is_free() -> None:
    free = answer(100, 0, 0, 0)
    tariff = after(Tariff(), free, Amount(0, 0, 100, 1), 100, 10)
    assert tariff.credit_bound(100) == 1


def test_a_rate_of_zero_credits_is_believed_as_long_as_answers_agree() -> None:
    tariff = Tariff(credits_per_token=credits_rate(0))
    free = answer(100, 0, 0, 0)
    assert after(tariff, free, Amount(0, 0, 100, 1), 100, 10) == tariff
    paid = answer(100, 0, 0, 2)
    assert after(tariff, paid, Amount(0, 2, 100, 1), 100, 10).credit_bound(100) == 2


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
    given_answer: Answer, expected: Amount
) -> None:
    tariff = Tariff(10**9, 10**9, Fraction(1))
    assert tariff.cost(given_answer, tariff.worst_case(800, 100)) == expected
