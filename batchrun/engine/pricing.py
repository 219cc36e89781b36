"""The worst-case cost of a request, and the cost of a response.

Every bound is rounded up, so that integer arithmetic can only reserve too much.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from batchrun.amounts import Amount
from batchrun.exchange import NO_CACHE, CacheLifetime, CacheUsage, Response
from batchrun.job.prices import CachePrices

MILLION = 10**6
_NO_SURCHARGE = Fraction(1)


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices and the corrections learned from responses; each correction makes a new value.

    Prices are nano-USD per million tokens, None if unknown. `credits_per_token` is the highest rate known or
    seen, None before the first. `usd_overrun_factor` is the highest ratio of a response's cost to its worst
    case by price, 1 as long as the prices are a true upper bound; `token_surcharge` the highest ratio of its
    tokens to their bounds. `free`: a cost of 0 is believed although there are prices. `cache` has the prices
    of cached input tokens; None: they cost as much as others.
    """

    input_price: int | None = None
    output_price: int | None = None
    credits_per_token: Fraction | None = None
    usd_overrun_factor: Fraction = _NO_SURCHARGE
    token_surcharge: Fraction = _NO_SURCHARGE
    free: bool = False
    cache: CachePrices | None = None

    @property
    def priced(self) -> bool:
        return self.input_price is not None and self.output_price is not None

    def worst_case(self, input_bound: int, output_bound: int, cached: CacheLifetime | None = None) -> Amount:
        """Returns the most that one request can cost, given upper bounds of its tokens.

        `cached` is the most expensive lifetime among the marks in its prompt: all of its input may be written
        to the cache.

        A unit without a price or rate is 0: a caller that caps it has to refuse to continue without one.
        """
        tokens = input_bound + output_bound
        nano_usd = self._price(input_bound, output_bound, cached) or 0
        if self.usd_overrun_factor is not _NO_SURCHARGE:
            nano_usd = ceil(nano_usd * self.usd_overrun_factor)
        if self.token_surcharge is not _NO_SURCHARGE:
            tokens = ceil(tokens * self.token_surcharge)
        return Amount(nano_usd, self.credit_bound(tokens), tokens, 1)

    def credit_bound(self, tokens: int) -> int:
        """Returns the most credits that `tokens` can cost; 0 as long as no rate is known."""
        rate = self.credits_per_token
        return 0 if rate is None else -(-tokens * rate.numerator // rate.denominator)

    def cost(self, response: Response, reserved: Amount, cached: CacheLifetime | None = None) -> Amount:
        """Returns a response's booked cost: as stated, else tokens times prices, else its whole reservation.

        A cost of 0 is ignored if the tokens have prices. `cached` is the request's, as in `worst_case`.
        """
        nano_usd, credits_used = response.cost_nano_usd, response.credits_used
        if nano_usd == 0 and not self.free:
            nano_usd = None
        if response.input_tokens is None or response.output_tokens is None:
            return Amount(
                reserved.nano_usd if nano_usd is None else nano_usd,
                reserved.credits if credits_used is None else credits_used,
                reserved.tokens,
                1,
            )
        tokens = response.input_tokens + response.output_tokens
        if nano_usd is None:
            usage = response.completion.cache
            nano_usd = self.price(response.input_tokens, response.output_tokens, usage, cached) or 0
        if credits_used is None:
            credits_used = self.credit_bound(tokens)
        return Amount(nano_usd, credits_used, tokens, 1)

    def raised_by(
        self,
        nano_usd: int,
        tokens: int,
        input_bound: int,
        output_bound: int,
        cached: CacheLifetime | None = None,
    ) -> "PriceList":
        """Returns the prices after a response of this cost, the same object if its worst case held.

        The journal keeps the bounds of such a response but not `cached`: without it, the worst case is raised
        by more than necessary.
        """
        price_list, bound = self, input_bound + output_bound
        by_price = self._price(input_bound, output_bound, cached)
        if by_price == 0 and nano_usd > 0:
            price = -(-nano_usd * MILLION // bound)
            price_list = replace(price_list, input_price=price, output_price=price, cache=None)
        elif by_price and _passes(nano_usd, by_price, self.usd_overrun_factor):
            price_list = replace(price_list, usd_overrun_factor=Fraction(nano_usd, by_price))
        if bound and _passes(tokens, bound, self.token_surcharge):
            price_list = replace(price_list, token_surcharge=Fraction(tokens, bound))
        return price_list

    def at_rate_of(self, response: Response, tokens: int) -> "PriceList":
        """Returns the prices after a response for `tokens` has shown its cost in credits."""
        if response.credits_used is None or not tokens:
            return self
        known = self.credits_per_token
        # A response that cost nothing doesn't prove that the next one is free.
        used = response.credits_used if known is not None else max(response.credits_used, 1)
        if known is not None and used <= self.credit_bound(tokens):
            return self
        return replace(self, credits_per_token=Fraction(used, tokens))

    def price(
        self,
        input_tokens: int,
        output_tokens: int,
        usage: CacheUsage = NO_CACHE,
        cached: CacheLifetime | None = None,
    ) -> int | None:
        """Returns the cost of these tokens in nano-USD, rounded up; None without prices.

        `usage` counts the input tokens read from or written to the cache. Writes whose lifetime the response
        doesn't state count as the most expensive that the request allows.
        """
        if self.input_price is None or self.output_price is None:
            return None
        total = input_tokens * self.input_price + output_tokens * self.output_price
        if self.cache is not None and (usage.read or usage.write):
            write, write_1h = self.cache.write, self.cache.write_1h
            if cached is None:
                write, write_1h = min(write, self.cache.unmarked), min(write_1h, self.cache.unmarked)
            unstated = usage.write - usage.write_5m - usage.write_1h
            total += usage.read * (self.cache.read - self.input_price)
            total += usage.write_5m * (write - self.input_price)
            total += usage.write_1h * (write_1h - self.input_price)
            total += unstated * ((max(write, write_1h) if cached == "1h" else write) - self.input_price)
        return -(-total // MILLION)

    def _price(self, input_bound: int, output_bound: int, cached: CacheLifetime | None) -> int | None:
        """Prices each input token at the most that it can cost."""
        if self.input_price is None or self.output_price is None:
            return None
        highest = self.input_price
        if self.cache is not None:
            highest = _highest_input_price(highest, self.cache, cached)
        return -(-(input_bound * highest + output_bound * self.output_price) // MILLION)


def _highest_input_price(plain: int, prices: CachePrices, cached: CacheLifetime | None) -> int:
    if cached is None:
        return max(plain, prices.read, prices.unmarked)
    written = prices.write if cached == "5m" else max(prices.write, prices.write_1h)
    return max(plain, prices.read, written)


def _passes(amount: int, bound: int, surcharge: Fraction) -> bool:
    """Returns whether an amount exceeds its bound with the surcharge, rounded up.

    Uses integers: a product with a Fraction takes a microsecond more. No surcharge is below 1.
    """
    return amount > bound and (amount - 1) * surcharge.denominator >= bound * surcharge.numerator


def credits_rate(per_million_tokens: int | None) -> Fraction | None:
    """Returns the credits per token."""
    return None if per_million_tokens is None else Fraction(per_million_tokens, MILLION)
