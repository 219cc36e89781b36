"""The lines that `batchrun status` prints."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from batchrun.amounts import usd_figure
from batchrun.cli.pool_lines import pool_line
from batchrun.labels.counting import count_lines
from batchrun.rows.observer import RunAdjusted
from batchrun.runs.observers.adjusted_text import adjusted_text
from batchrun.runs.status import goes_on, state_of
from batchrun.runs.summary import reason_lines
from batchrun.text import aligned


def status_lines(status: dict[str, Any]) -> list[str]:
    """Returns the status for people."""
    usd, last, rows = status["usd"], status["last_run"], status["rows"]
    cap = (
        ""
        if usd["budget"] is None
        else f" of {usd_figure(usd['budget'])} USD, {usd_figure(usd['left'])} left"
    )
    lately = f"{status['answers_per_minute']:,} answered in the last minute"
    counts = f"{status['answered']:,} answered, {status['failed']:,} failed"
    reserved = f" + {usd_figure(usd['reserved'])} reserved" if usd["reserved"] else ""
    uncertain = f" + {usd_figure(usd['uncertain'])} uncertain" if usd["uncertain"] else ""
    lines = [
        f"requests  {counts}, {status['in_flight']:,} in flight, {lately}",
        f"spent     {usd_figure(usd['settled'])} USD{reserved}{uncertain}{cap}",
    ]
    if rows is not None:
        lines.insert(0, _rows_line(rows))
    lines[1:1] = [*count_lines(status["labels"]), *reason_lines(status["reasons"])]
    if "pool" in status:
        lines.append(pool_line(status["pool"]))
    errors = status["requests"]["by_error"]
    if errors:
        lines.append("errors    " + ", ".join(f"{code} x{n:,}" for code, n in sorted(errors.items())))
    if last is None:
        lines = ["no run of this kind yet; --sandbox shows the runs with the sandbox"]
    else:
        end, next_step = _end(status), last["next_step"]
        next_step = f" To go on: {next_step}." if next_step and not goes_on(status) else ""
        lines += [f"set       {_set_text(each)}" for each in status["adjustments"]]
        lines.append(f"last run  {_at(last)}: {end}{next_step}")
    if status["settled"] is not None:
        lines.insert(-1, f"settled   {_at(status['settled'])}: {status['settled']['reason']}")
    return lines


def _end(status: dict[str, Any]) -> str:
    if goes_on(status):
        return "going on" if status["running"] else "in a race that is going on; another job has its turn"
    return status["last_run"]["reason"] or "ended without a record; requests in flight are uncertain"


def _at(run: dict[str, Any]) -> str:
    return f"{run['started_at'][:19].replace('T', ' ')} UTC"


def _set_text(adjustment: dict[str, Any]) -> str:
    """Returns such as "17:04:12 UTC by ann@host: budget.usd = 5 (was 2)"."""
    made = RunAdjusted(adjustment["author"], adjustment["settings"], adjustment["refused"])
    return f"{adjustment['at'][11:19]} UTC: {adjusted_text(made)}"


def table_lines(names: Sequence[str], found: Sequence[dict[str, Any] | None]) -> list[str]:
    """Returns a line for each job, under its heading; None is a job that was never run."""
    return aligned([_HEADING, *map(_table_row, names, found)])


_HEADING = ("job", "state", "rows", "spent", "answers/min", "time to go")


def _table_row(name: str, status: dict[str, Any] | None) -> tuple[str, ...]:
    if status is None or status["last_run"] is None:
        return (name, "not run yet", "", "", "", "")
    usd = status["usd"]
    cap = "" if usd["budget"] is None else f" of {usd_figure(usd['budget'])}"
    spent = f"{usd_figure(usd['settled'] + usd['uncertain'], 4)}{cap} USD"
    rate = f"{status['answers_per_minute']:,}" if status["running"] else ""
    left = status["seconds_to_go"]
    to_go = "" if left is None else str(timedelta(seconds=round(left)))
    return (name, state_of(status), _rows_cell(status["rows"]), spent, rate, to_go)


def _rows_cell(rows: dict[str, Any] | None) -> str:
    if rows is None or rows["ok"] is None:
        return ""
    counts = [count for count in _counts(rows, ("failed",)) if not count.startswith("0 ")]
    return f"{', '.join(counts) or '0'} of {'?' if rows['total'] is None else format(rows['total'], ',')}"


def _rows_line(rows: dict[str, int | None]) -> str:
    counts = ", ".join(_counts(rows, ("failed", "pending")))
    shared = f", {rows['shared']:,} that share another row's answer" if rows["shared"] else ""
    if "looked_at" not in rows:
        return f"rows      {counts} of {rows['total']:,} when the output was last written"
    if rows["looked_at"] == rows["total"]:
        return f"rows      {counts} of {rows['total']:,} so far{shared}"
    total = "" if rows["total"] is None else f" of {rows['total']:,}"
    return f"rows      {counts} so far{shared}; {rows['looked_at']:,}{total} rows looked at"


def _counts(rows: dict[str, Any], others: Sequence[str]) -> list[str]:
    """Returns the counts by status. A run that is going on doesn't know which earlier answers are invalid."""
    more = [f"{rows[status]:,} {status}" for status in others if rows[status] is not None]
    if rows["ok"] is None:
        return more
    if "looked_at" not in rows:
        return [f"{rows['ok']:,} ok", f"{rows['invalid']:,} invalid", *more]
    invalid = [f"{rows['invalid']:,} of them invalid in this run"] if rows["invalid"] else []
    return [f"{rows['ok'] + rows['invalid']:,} answered", *invalid, *more]
