"""What requests cost, in integers that add up exactly."""

import msgspec

NANO = 10**9
"""Nano-USD in a USD."""


class Amount(msgspec.Struct, frozen=True, gc=False):
    """Spend in every unit that a budget can cap.

    `nano_usd` is 10^-9 USD, `credits` the provider's credits, `tokens` input and output together,
    `rows` the rows answered.
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


NOTHING = Amount()


def usd(nano_usd: int) -> float:
    return nano_usd / NANO


def usd_text(nano_usd: int) -> str:
    """An amount for people: two decimals from a dollar up, four significant digits below."""
    amount = nano_usd / NANO
    if nano_usd == 0 or abs(amount) >= 1:
        return f"{amount:.2f} USD"
    return f"{float(f'{amount:.4g}'):.10f}".rstrip("0") + " USD"
