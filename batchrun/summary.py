"""The summary of a run: `summary.json`, the file's metadata, and what the last line says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batchrun.amounts import usd
from batchrun.errors import EXIT_DONE, EXIT_FAULT, EXIT_ROWS_FAILED, BatchrunError
from batchrun.journal import Totals
from batchrun.stops import FREE_REQUEST_USED, Stop, interrupted

Summary = dict[str, Any]

_REASONS = {"error": "failed", "label_error": "invalid"}
"""Columns that say why, and of which rows."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the exit code, a sentence why, and what to do next (None: nothing is left).

    `goes_on_by_itself`: the next run of the same command does what is left, with no help from anybody.
    """

    exit_code: int
    reason: str
    go_on: str | None
    goes_on_by_itself: bool = False


def ending_of(stop: Stop | None, rows: Mapping[str, int], *, free_tier: bool = False) -> Ending:
    """A stop counts only while it has left rows without an answer."""
    if stop is None and rows["pending"] and free_tier:
        stop = FREE_REQUEST_USED
    if stop is not None and rows["pending"]:
        reason = f"{_sentence(stop.reason)} {_count(rows['pending'], 'row')} pending."
        return Ending(stop.exit_code, reason, stop.go_on, stop.renews)
    without_answer = rows["failed"] + rows["invalid"]
    if rows["pending"]:
        reason = f"{_count(rows['pending'], 'row')} pending that came while the run was going on."
        return Ending(EXIT_ROWS_FAILED, reason, "run the same command again", goes_on_by_itself=True)
    if without_answer:
        reason = f"Finished, but {_count(without_answer, 'row')} of {rows['total']:,} failed or are invalid."
        columns = " and ".join(name for name, kind in _REASONS.items() if rows[kind])
        return Ending(
            EXIT_ROWS_FAILED, reason, f"see the column {columns}; --retry-failed asks for them again"
        )
    if not rows["total"]:
        return Ending(EXIT_DONE, "The input has no rows, so nothing was asked.", None)
    return Ending(EXIT_DONE, f"Every row has an answer ({_count(rows['total'], 'row')}).", None)


def ending_of_part(stop: Stop | None) -> Ending:
    """The ending of a run that was to ask for a sample alone, and to write no output."""
    if stop is not None:
        return Ending(stop.exit_code, _sentence(stop.reason), stop.go_on, stop.renews)
    return Ending(EXIT_DONE, "The sample has been asked for.", "batchrun run asks for the other rows")


def without_output(stop: Stop | None) -> Ending:
    """The ending of a run that was ended before its output was written."""
    stop = stop or interrupted(by_sigterm=False)
    return Ending(
        stop.exit_code,
        f"{_sentence(stop.reason)} The output was not written.",
        f"{stop.go_on}; batchrun export writes the output as it stands",
    )


def ending_of_fault(error: Exception) -> Ending:
    """The ending of a run that a fault has broken off."""
    if isinstance(error, BatchrunError):
        reason = " ".join(str(error).splitlines())
    else:
        reason = f"batchrun itself failed ({type(error).__name__})."
    return Ending(EXIT_FAULT, _sentence(reason), "mend the cause, then run the same command")


def counted_rows(rows_so_far: Mapping[str, int | None]) -> dict[str, int | None]:
    """The counts of rows in the summary of a run that has written no output: None where they aren't known."""
    total = rows_so_far["total"]
    known = rows_so_far["looked_at"] == total and not rows_so_far["shared"]
    keys = ("total", "ok", "invalid", "failed", "pending", "shared")
    return {key: rows_so_far[key] if known or key == "total" else None for key in keys}


def as_it_stands(rows: Mapping[str, int]) -> Ending:
    """The ending that an export states, beside or between runs."""
    if not rows["pending"]:
        return ending_of(None, rows)
    reason = f"Exported with {_count(rows['pending'], 'row')} pending."
    return Ending(EXIT_ROWS_FAILED, reason, "batchrun run asks for them")


def summary_of(
    ending: Ending,
    rows: Mapping[str, int | None],
    life: Totals,
    this_run: Totals,
    *,
    budget_nano_usd: int | None,
    started_at: int,
    finished_at: int,
    **more: Any,
) -> Summary:
    """The summary as JSON-able values. Times are in milliseconds since 1970 UTC; `more` is added as it is."""
    return {
        "exit_code": ending.exit_code,
        "reason": ending.reason,
        "go_on": ending.go_on,
        "rows": dict(rows),
        **amounts_of(life, budget_nano_usd),
        "seconds": round((finished_at - started_at) / 1000, 3),
        "started_at": instant(started_at),
        "finished_at": instant(finished_at),
        "this_run": amounts_of(this_run, None),
        **more,
    }


def instant(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def amounts_of(totals: Totals, budget_nano_usd: int | None) -> dict[str, Any]:
    """Requests, tokens, USD and credits of some totals, as JSON-able values."""
    spend = totals.spend
    return {
        "requests": {"sent": totals.requests, "retried": totals.retried, "by_error": totals.by_error},
        "tokens": {"input": totals.input_tokens, "output": totals.output_tokens},
        "usd": {
            "settled": usd(spend.settled.nano_usd),
            "uncertain": usd(spend.uncertain.nano_usd),
            "budget": None if budget_nano_usd is None else usd(budget_nano_usd),
        },
        "credits": {
            "used": spend.settled.credits,
            "uncertain": spend.uncertain.credits,
            "remaining": totals.remaining_credits,
        },
    }


def _sentence(text: str) -> str:
    """With its full stop, which an endpoint's message often lacks."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
