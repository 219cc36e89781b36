"""Costs of requests, in integers that add up exactly."""

import msgspec

NANO = 10**9
"""Nano-USD in a USD."""
MOST_COUNTED = 10**15
"""The bound of every count in a job: sums of many such numbers still fit SQLite's 64 bits."""


class Amount(msgspec.Struct, frozen=True, gc=False):
    """Spend in every unit that a budget can cap.

    `nano_usd` is 10^-9 USD, `credits` the provider's credits, `tokens` input and output together,
    `rows` the rows sent for.
    """

    nano_usd: int = 0
    credits: int = 0
    tokens: int = 0
    rows: int = 0

    def plus(self, other: "Amount") -> "Amount":
        return Amount(
            self.nano_usd + other.nano_usd,
            self.credits + other.credits,
            self.tokens + other.tokens,
            self.rows + other.rows,
        )

    def minus(self, other: "Amount") -> "Amount":
        return Amount(
            self.nano_usd - other.nano_usd,
            self.credits - other.credits,
            self.tokens - other.tokens,
            self.rows - other.rows,
        )

    def times(self, count: int) -> "Amount":
        return Amount(count * self.nano_usd, count * self.credits, count * self.tokens, count * self.rows)


NOTHING = Amount()


def usd(nano_usd: int) -> float:
    return nano_usd / NANO


def usd_text(nano_usd: int) -> str:
    """Formats an amount for people: two decimals from a dollar up, four significant digits below."""
    amount = nano_usd / NANO
    if nano_usd == 0 or abs(amount) >= 1:
        return f"{amount:,.2f} USD"
    return f"{usd_figure(amount, 4)} USD"


def usd_figure(amount: float, digits: int = 6) -> str:
    """Formats USD for people, without the unit: so many significant digits, but every whole dollar and cent.

    >>> usd_figure(75500.0749), usd_figure(0.0910351), usd_figure(2.5), usd_figure(0.00001234)
    ('75,500.07', '0.0910351', '2.5', '0.00001234')
    """
    if abs(amount) >= 1000:
        return f"{amount:,.2f}"
    return f"{float(f'{amount:.{digits}g}'):.10f}".rstrip("0").rstrip(".")
