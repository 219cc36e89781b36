"""What a proof measured, and the table that shows it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Say = Callable[[str], object]
"""Takes a line about how far a proof has come."""


class Result(NamedTuple):
    """One measured quantity. `promise` says what it has to be, and is empty for what is only reported."""

    proof: str
    quantity: str
    value: str
    promise: str = ""
    kept: bool = True


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    rows = [("proof", "quantity", "measured", "promised", "")]
    rows += [
        (*result[:4], "" if not result.promise else "kept" if result.kept else "BROKEN") for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "| " + " | ".join("-" * max(width, 3) for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def usd(nano_usd: int) -> str:
    return f"{nano_usd / 10**9:.6f} USD"
