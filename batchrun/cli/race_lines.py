"""A race in words: a line a candidate, what was spent, and which one is best."""

from collections.abc import Iterator
from typing import Any

from batchrun.amounts import usd_figure
from batchrun.text import aligned


def race_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yields the table of the candidates, the spend, the verdict and why the race has ended."""
    yield from _table(report)
    if report["not_scorable"]:
        yield f"left out  {report['not_scorable']:,} rows without an expected answer: they decide nothing"
    usd = report["usd"]
    yield f"spent     {usd_figure(usd['spent'])} USD of {usd_figure(usd['budget'])}"
    if report["sandbox"]:
        yield "sandbox   No model answered, and nothing was paid: the answers are made up."
    yield report["verdict"]
    yield ending_line(report)


def ending_line(report: dict[str, Any]) -> str:
    """Returns why the race has ended and how it goes on."""
    next_step = f" To go on: {report['next_step']}." if report["next_step"] else ""
    return f"{report['reason']}{next_step}"


def _table(report: dict[str, Any]) -> Iterator[str]:
    heading = ("candidate", "rows", f"{report['score']} (95 %)", "USD", "USD per right answer", "")
    rows = [heading, *(_row(candidate, report["of"]) for candidate in report["candidates"])]
    yield from aligned(rows)


def _row(candidate: dict[str, Any], population: int) -> tuple[str, ...]:
    estimate, given_up, a_right = (candidate[key] for key in ("estimate", "given_up", "usd_per_correct"))
    score, note = "-", ""
    if estimate is not None:
        low, high = candidate["interval"]
        score = f"{estimate:.3f} ({low:.3f} to {high:.3f})"
    if given_up is not None:
        note = f"given up after {given_up['after']:,}: worse than {given_up['worse_than']}"
    return (
        candidate["job"],
        f"{candidate['rows']:,} of {population:,}",
        score,
        usd_figure(candidate["usd"]),
        "-" if a_right is None else usd_figure(a_right, 4),
        note,
    )
