"""The part "Comparison": two jobs on the rows that both have sent."""

from typing import Any

from batchrun.runs.report.blocks import Block, significant, table, text, usd
from batchrun.runs.report.charts import number

MOST_PAIRS = 30


def comparison_blocks(comparison: dict[str, Any], names: tuple[str, str]) -> list[Block]:
    """Returns the verdict, and each quantity of both with the difference and its interval."""
    a, b, score = comparison["a"], comparison["b"], comparison["score"]
    rows = [
        [score, *(_score(side["estimate"]) for side in (a, b)), *_difference(_of_scores(comparison))],
        [
            "USD a row",
            *(None if side["usd_per_row"] is None else significant(side["usd_per_row"]) for side in (a, b)),
            *_difference(comparison["usd_difference"]),
        ],
        ["latency, s", None, None, *_difference(comparison["seconds_difference"])],
    ]
    rows_of_both = f"{number(comparison['n'])} rows that both have scored, of {number(comparison['of'])}"
    paid = f"A paid {usd(a['usd'])} for its rows, B {usd(b['usd'])}."
    lines = [comparison["verdict"], f"A is {names[0]}, B is {names[1]}: {rows_of_both}. {paid}"]
    cautions = [f"Caution: {warning}." for warning in comparison["warnings"]]
    return [
        text("Which is better", *lines, *cautions),
        table("Differences, row by row", ["", "A", "B", "A - B", "95 % interval"], rows),
    ]


def _of_scores(comparison: dict[str, Any]) -> list[float] | None:
    value = comparison["difference"]
    return None if value is None else [value, *comparison["interval"]]


def _difference(found: list[float] | None) -> list[str | None]:
    if found is None:
        return [None, None]
    value, low, high = (f"{each:+z.3g}" for each in found)
    return [value, f"{low} to {high}"]


def _score(estimate: float | None) -> str | None:
    return None if estimate is None else f"{estimate:.3f}"
