"""Rows in words, for `batchrun show` and `batchrun compare --rows`."""

from collections.abc import Iterator
from typing import Any

from batchrun.amounts import usd_figure
from batchrun.cli.lines import INDENT

MOST_CHARACTERS = 1_000
"""A longer text is cut, unless a row was named."""


def row_lines(row: dict[str, Any], *, whole: bool) -> Iterator[str]:
    """Yields a row's prompt, answer, label, reasons and cost, each line under its name.

    `whole`: long texts are not cut.
    """
    yield f"{_number(row)} {', '.join(_facts(row))}"
    if row["input"]:
        yield f"input     {', '.join(f'{name}={_short(cell)}' for name, cell in row['input'].items())}"
    for role, text in row["prompt"]:
        yield from named_text(role, text, whole=whole)
    if row["answer"] is not None:
        yield from named_text("answer", row["answer"], whole=whole)
    if row["label"] is not None or row["expected"]:
        yield f"label     {label_text(row)}"
    for reason in dict.fromkeys((row["label_error"], row["error"])):
        if reason:
            yield f"reason    {reason}"
    yield from _attempt_lines(row["attempts"])


def pair_lines(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """Yields a row of two jobs: what is expected, and both answers."""
    cells = ", ".join(f"{name}={_short(cell)}" for name, cell in a["input"].items())
    yield f"{_number(a)} {cells}" if cells else _number(a).rstrip()
    if a["prompt"]:
        yield from named_text("prompt", a["prompt"][-1][1], whole=False)
    yield f"expected  {_short(a['expected'])}"
    for side, row in (("A", a), ("B", b)):
        shown = row["answer"] if row["label"] is None else row["label"]
        yield from named_text(side, f"{'' if shown is None else shown} (score {row['score']:g})", whole=False)


def _number(row: dict[str, Any]) -> str:
    return f"row {row['row']:,}".ljust(9)


def named_text(name: str, text: str, *, whole: bool) -> Iterator[str]:
    """Yields the lines of a text, the first one after its name."""
    shown = text if whole else text[:MOST_CHARACTERS]
    for place, line in enumerate(shown.splitlines() or [""]):
        yield f"{name:<9} {line}" if place == 0 else f"{INDENT}{line}"
    if more := len(text) - len(shown):
        yield f"{INDENT}... {more:,} more characters, which --row N or --json shows"


def label_text(row: dict[str, Any]) -> str:
    """Returns the label, its agreement and what is expected."""
    parts = [] if row["label"] is None else [row["label"]]
    if row["agreement"] is not None:
        votes = ", ".join(vote or "(invalid)" for vote in row["samples"])
        parts.append(f"agreement {row['agreement']:.2f} ({votes})")
    if row["expected"]:
        parts.append(f"expected {_short(row['expected'])}")
    if row["score"] is not None:
        parts.append(f"score {row['score']:g}")
    return ", ".join(parts)


def _facts(row: dict[str, Any]) -> Iterator[str]:
    yield row["status"] if row["error_code"] is None else f"{row['status']} ({row['error_code']})"
    if row["shared"]:
        yield "shares an earlier row's answer"
    if row["attempts"] and row["cost_usd"] is not None:
        yield f"{usd_figure(row['cost_usd'], 4)} USD"
    if row["uncertain_usd"]:
        yield f"{usd_figure(row['uncertain_usd'], 4)} USD uncertain"
    if row["input_tokens"]:
        yield f"{row['input_tokens']:,} + {row['output_tokens'] or 0:,} tokens"
    if row["latency_ms"] is not None:
        yield f"{row['latency_ms'] / 1000:.2f} s"


def _attempt_lines(attempts: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each attempt, unless all were answered."""
    if all(made["outcome"] == "answered" for made in attempts):
        return
    for number, made in enumerate(attempts, start=1):
        at = made["at"][:19].replace("T", " ")
        reason = "" if made["error_code"] is None else f", {made['error_code']}: {made['error']}"
        name = "attempts" if number == 1 else ""
        yield f"{name:<9} {number}. {at} UTC, run {made['run']}, {made['outcome']}{reason}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
