"""The summary of a run: `summary.json`, the file's metadata, and the last printed line."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from signal import SIGINT
from typing import Any

from batchrun.amounts import usd
from batchrun.clock import instant
from batchrun.errors import EXIT_DONE, EXIT_FAULT, EXIT_ROWS_FAILED, BatchrunError
from batchrun.journal import Totals
from batchrun.stops import FREE_REQUEST_USED, Stop, interrupted

Summary = dict[str, Any]

FORMER_KEYS = {"next_step": "go_on", "needs_attention": "needs_person", "abandoned_requests": "given_up"}
"""Keys of the summary, and their first names, kept for programs that read these."""

Reasons = Mapping[str, Mapping[str, Any]]
"""Failed and invalid rows by `error_code`: the number of `rows`, and the row number of an `example`.

Where some of them have no valid request, `unsendable` is their number, and `error` the message of the first.
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the exit code, a sentence why, and what to do next (None: nothing).

    `goes_on_by_itself`: the next run of the same command does the rest without help.
    """

    exit_code: int
    reason: str
    next_step: str | None
    goes_on_by_itself: bool = False


def ending_of(
    stop: Stop | None,
    rows: Mapping[str, int],
    reasons: Reasons,
    *,
    free_tier: bool = False,
    retry_failed: bool = False,
    rest: str = "",
) -> Ending:
    """Returns the ending. A stop counts only if it has left rows without an answer.

    `reasons` say why rows failed or are invalid. With `retry_failed` these rows were to be sent again, too.
    `rest` says what the pending rows need.
    """
    if stop is None and rows["pending"] and free_tier:
        stop = FREE_REQUEST_USED
    if stop is not None and rows["pending"]:
        reason = f"{_sentence(stop.reason)} {_count(rows['pending'], 'row')} pending. {rest}".rstrip()
        return Ending(stop.exit_code, reason, stop.next_step, stop.self_clearing)
    without_answer = rows["failed"] + rows["invalid"]
    if stop is not None and retry_failed and without_answer:
        reason = f"{_sentence(stop.reason)} Not all failed and invalid rows were sent again: "
        reason += f"{without_answer:,} of {_count(rows['total'], 'row')} are left."
        return Ending(stop.exit_code, reason, stop.next_step, stop.self_clearing)
    if rows["pending"]:
        reason = f"{_count(rows['pending'], 'row')} pending that came while the run was going on."
        return Ending(EXIT_ROWS_FAILED, reason, "run the same command again", goes_on_by_itself=True)
    if without_answer:
        are = "is" if without_answer == 1 else "are"
        reason = f"Finished, but {_count(without_answer, 'row')} of {rows['total']:,} failed or {are} invalid"
        return Ending(
            EXIT_ROWS_FAILED, f"{reason} ({reasons_text(reasons)}).", _after_failures(rows, reasons)
        )
    if not rows["total"]:
        return Ending(EXIT_DONE, "The input has no rows, so nothing was sent.", None)
    return Ending(EXIT_DONE, f"Every row has an answer ({_count(rows['total'], 'row')}).", None)


def ending_of_changed_input(
    ending: Ending, rows: Mapping[str, int], answered: int, rows_before: int | None
) -> Ending:
    """Returns the ending for an input that changed meanwhile: a fault if answered rows are missing."""
    gone = answered - rows["ok"] - rows["invalid"]
    if gone > 0:
        return Ending(
            EXIT_FAULT,
            f"The input was replaced while the run was going on: {_count(gone, 'row')} that have a response"
            " are not in the output.",
            "the responses are in the journal: put the rows back into the input, then run the same command",
        )
    if rows_before in (None, rows["total"]):
        return ending
    reason = (
        f"{ending.reason} The input was changed meanwhile: {rows['total']:,} rows, before {rows_before:,}."
    )
    return replace(ending, reason=reason)


def reasons_text(reasons: Reasons) -> str:
    """Returns how many rows failed or are invalid for each reason, the commonest first."""
    by_number = sorted(reasons.items(), key=lambda item: -item[1]["rows"])
    return ", ".join(f"{reason['rows']:,} {code}" for code, reason in by_number)


def reason_lines(reasons: Reasons) -> list[str]:
    """Returns why rows failed or are invalid, the commonest reason first, each with its first row.

    A running run knows no examples. A line more for each reason why rows have no valid request.
    """
    by_number = sorted(reasons.items(), key=lambda item: -item[1]["rows"])
    counts = [
        f"{reason['rows']:,} {code}" + (f" (first: row {reason['example']:,})" if "example" in reason else "")
        for code, reason in by_number
        if reason.get("unsendable", 0) < reason["rows"]
    ]
    return [*([f"reasons   {', '.join(counts)}"] if counts else []), *unsendable_lines(reasons)]


def unsendable_lines(reasons: Reasons) -> list[str]:
    """Returns a line for each reason why rows have no valid request."""
    return [
        f"unsent    {reason['unsendable']:,} {code}: {reason['error'].rstrip('.')}, first in row "
        f"{reason['example']:,}"
        for code, reason in reasons.items()
        if "unsendable" in reason
    ]


def _after_failures(rows: Mapping[str, int], reasons: Reasons) -> str:
    of_labels = rows["invalid"] and not reasons.keys().isdisjoint(("invalid_label", "tie"))
    columns = (
        "error and label_error" if of_labels and rows["failed"] else "label_error" if of_labels else "error"
    )
    advice = [f"see the column {columns}"]
    unsendable = sum(reason.get("unsendable", 0) for reason in reasons.values())
    if unsendable:
        advice.append(f"{_count(unsendable, 'row')} can't be sent before the template or the input is fixed")
    ties, cut = (reasons.get(code, {}).get("rows", 0) for code in ("tie", "truncated"))
    if cut:
        advice.append("raise request.max_tokens, and the same command sends only the cut rows again")
    if ties:
        advice.append(f"more labels.votes can decide the {_count(ties, 'row')} with a tie")
    explained = unsendable + ties + cut
    if explained < rows["failed"] + rows["invalid"]:
        advice.append(f"--retry-failed sends {'the others' if explained else 'them'} again")
    return "; ".join(advice)


def ending_of_part(stop: Stop | None) -> Ending:
    """Returns the ending of a run that sends only a sample, and writes no output."""
    if stop is not None:
        return Ending(stop.exit_code, _sentence(stop.reason), stop.next_step, stop.self_clearing)
    return Ending(EXIT_DONE, "The sample has been sent.", "batchrun run sends the other rows")


def without_output(stop: Stop | None) -> Ending:
    """Returns the ending of a run that ended before its output was written."""
    stop = stop or interrupted(SIGINT)
    return Ending(
        stop.exit_code,
        f"{_sentence(stop.reason)} The output was not written.",
        f"{stop.next_step}; batchrun export writes the output as it stands",
    )


def ending_of_fault(error: Exception) -> Ending:
    """Returns the ending of a run that a fault has ended."""
    if isinstance(error, BatchrunError):
        reason = " ".join(str(error).splitlines())
    else:
        reason = f"batchrun itself failed ({type(error).__name__})."
    return Ending(EXIT_FAULT, _sentence(reason), "fix the cause, then run the same command")


def counted_rows(rows_so_far: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns the row counts for the summary of a run without an output: None for unknown ones."""
    total = rows_so_far["total"]
    known = rows_so_far["looked_at"] == total and not rows_so_far["shared"]
    keys = ("total", "ok", "invalid", "failed", "pending", "shared")
    return {key: rows_so_far[key] if known or key == "total" else None for key in keys}


def as_it_stands(rows: Mapping[str, int], reasons: Reasons) -> Ending:
    """Returns the ending that an export states, during or between runs."""
    if not rows["pending"]:
        return ending_of(None, rows, reasons)
    reason = f"Exported with {_count(rows['pending'], 'row')} pending."
    return Ending(EXIT_ROWS_FAILED, reason, "batchrun run sends them")


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
    """Returns the summary as JSON-able values. Times are in milliseconds since 1970 UTC; adds `more`."""
    summary = {
        "exit_code": ending.exit_code,
        "reason": ending.reason,
        "next_step": ending.next_step,
        "rows": dict(rows),
        **amounts_of(life, budget_nano_usd),
        "seconds": round((finished_at - started_at) / 1000, 3),
        "started_at": instant(started_at),
        "finished_at": instant(finished_at),
        "this_run": amounts_of(this_run, None),
        **more,
    }
    return with_former_keys(summary)


def with_former_keys(summary: Summary) -> Summary:
    return summary | {FORMER_KEYS[key]: value for key, value in summary.items() if key in FORMER_KEYS}


def amounts_of(totals: Totals, budget_nano_usd: int | None) -> dict[str, Any]:
    """Returns requests, tokens, USD and credits of totals as JSON-able values."""
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
    """Returns the text with a full stop, which an endpoint's message often lacks."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
