"""What a request may cost at worst, and what an answer did cost.

Every bound is rounded up, so that integer arithmetic can only reserve too much.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from batchrun.amounts import Amount
from batchrun.exchange import Answer

MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices and what answers have taught about them; a new value whenever an answer teaches more.

    Prices are nano-USD per million tokens, None where unknown. `credits_per_token` is the highest
    rate known or seen, None before the first. `usd_surcharge` is the highest ratio of an
    answer's cost to its worst case by price, 1 as long as the prices are a true upper bound;
    `token_surcharge` that of its tokens to their bounds.
    """

    input_price: int | None = None
    output_price: int | None = None
    credits_per_token: Fraction | None = None
    usd_surcharge: Fraction = Fraction(1)
    token_surcharge: Fraction = Fraction(1)

    @property
    def priced(self) -> bool:
        return self.input_price is not None and self.output_price is not None

    def worst_case(self, input_bound: int, output_bound: int) -> Amount:
        """The most that one request can cost, given upper bounds of its tokens.

        The unit that has no price or rate is 0: whoever caps it has to refuse to go on without one.
        """
        tokens = input_bound + output_bound
        nano_usd = self._price(input_bound, output_bound) or 0
        if self.usd_surcharge != 1:
            nano_usd = ceil(nano_usd * self.usd_surcharge)
        if self.token_surcharge != 1:
            tokens = ceil(tokens * self.token_surcharge)
        return Amount(nano_usd, self.credit_bound(tokens), tokens, 1)

    def credit_bound(self, tokens: int) -> int:
        """The most credits that so many tokens can cost; 0 as long as no rate is known."""
        rate = self.credits_per_token
        return 0 if rate is None else -(-tokens * rate.numerator // rate.denominator)

    def cost(self, answer: Answer, reserved: Amount) -> Amount:
        """What an answer is booked at: what it says, else tokens times prices, else all that was reserved."""
        if answer.input_tokens is None or answer.output_tokens is None:
            computed = reserved
        else:
            tokens = answer.input_tokens + answer.output_tokens
            by_price = self._price(answer.input_tokens, answer.output_tokens) or 0
            computed = Amount(by_price, self.credit_bound(tokens), tokens)
        return Amount(
            computed.nano_usd if answer.cost_nano_usd is None else answer.cost_nano_usd,
            computed.credits if answer.credits_used is None else answer.credits_used,
            computed.tokens,
            1,
        )

    def raised_by(self, nano_usd: int, tokens: int, input_bound: int, output_bound: int) -> "Tariff":
        """The tariff after an answer of this cost, the same object where its worst case was one."""
        tariff, bound = self, input_bound + output_bound
        by_price = self._price(input_bound, output_bound)
        if by_price == 0 and nano_usd > 0:
            price = -(-nano_usd * MILLION // bound)
            tariff = replace(tariff, input_price=price, output_price=price)
        elif by_price and _passes(nano_usd, by_price, self.usd_surcharge):
            tariff = replace(tariff, usd_surcharge=Fraction(nano_usd, by_price))
        if bound and _passes(tokens, bound, self.token_surcharge):
            tariff = replace(tariff, token_surcharge=Fraction(tokens, bound))
        return tariff

    def at_rate_of(self, answer: Answer, tokens: int) -> "Tariff":
        """The tariff after an answer for so many tokens has shown what it cost in credits."""
        if answer.credits_used is None or not tokens:
            return self
        known = self.credits_per_token
        # An answer for nothing doesn't prove that the next one is free.
        used = answer.credits_used if known is not None else max(answer.credits_used, 1)
        if known is not None and used <= self.credit_bound(tokens):
            return self
        return replace(self, credits_per_token=Fraction(used, tokens))

    def _price(self, input_tokens: int, output_tokens: int) -> int | None:
        if self.input_price is None or self.output_price is None:
            return None
        return -(-(input_tokens * self.input_price + output_tokens * self.output_price) // MILLION)


def _passes(amount: int, bound: int, surcharge: Fraction) -> bool:
    """Whether an amount is above its bound with the surcharge, rounded up.

    By integers: a product with a Fraction takes a microsecond more.
    """
    return (amount - 1) * surcharge.denominator >= bound * surcharge.numerator


def credits_rate(per_million_tokens: int | None) -> Fraction | None:
    """Credits per token."""
    return None if per_million_tokens is None else Fraction(per_million_tokens, MILLION)
