"""The table [budget] of a job file."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

from batchrun.amounts import MOST_COUNTED
from batchrun.job.caps import CAPS, CapKind


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Caps. Each may be left out; the first one reached stops the run. With 0, nothing is sent."""

    # `batchrun.job.caps` says what each key limits.

    usd: Annotated[
        Decimal | None, Meta(description="USD over the life of this output's journal, all runs together.")
    ] = None
    usd_per_run: Annotated[Decimal | None, Meta(description="USD in this run.")] = None
    usd_per_day: Annotated[Decimal | None, Meta(description="USD in one UTC day, from the journal.")] = None
    credits: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_COUNTED)] | None,
        Meta(description="Credits over the life of the journal."),
    ] = None
    keep_credits: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_COUNTED)] | None,
        Meta(description="Stop when the account's remaining credits fall to this."),
    ] = None
    tokens: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_COUNTED)] | None,
        Meta(description="Tokens over the life of the journal, input and output together."),
    ] = None
    rows: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_COUNTED)] | None,
        Meta(description="Rows that this run sends for, answered or not: it answers at most as many."),
    ] = None
    seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MOST_COUNTED)] | None, Meta(description="Wall time of this run.")
    ] = None
    pool: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="File with one budget for several jobs on this machine, made by `batchrun pool`. "
            "Its caps in USD hold for all journals of these jobs together.",
        ),
    ] = None

    @property
    def nano_usd(self) -> int | None:
        """`usd` in nano-USD (10^-9 USD)."""
        return None if self.usd is None else nano_usd(self.usd)

    def given(self) -> list[CapKind]:
        """The caps that are set."""
        return [cap for cap in CAPS if getattr(self, cap.key) is not None]

    def limit(self, cap: CapKind) -> int:
        """Returns the limit of a cap that is set, in the cap's unit. A pool has its caps in its file: without
        a claim there, nothing may be spent."""
        if cap.span == "pool":
            return 0
        value = getattr(self, cap.key)
        return nano_usd(value) if cap.unit == "nano_usd" else value

    @property
    def needs_worst_case(self) -> bool:
        """Whether a request may only be sent if its cost has an upper bound."""
        return any(cap.needs_worst_case for cap in self.given())


def nano_usd(usd: Decimal) -> int:
    """Converts USD to whole nano-USD (10^-9 USD). Raises ValueError below 0, above 10^9, past 9 decimals."""
    if not usd.is_finite() or not 0 <= usd <= 10**9:
        raise ValueError("expected an amount from 0 to 1000000000 USD")
    if usd != usd.quantize(Decimal("1e-9")):
        raise ValueError("expected at most 9 decimals")
    return int(usd.scaleb(9))
