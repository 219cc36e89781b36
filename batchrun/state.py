"""Where a job stands, from its journal alone, also while a run is going on."""

from typing import Any

import msgspec

from batchrun.books import milliseconds
from batchrun.job import Job
from batchrun.journal import Totals
from batchrun.run_folder import is_locked, open_journal_of
from batchrun.summary import amounts_of, instant

SECONDS_OF_RATE = 60


def status_of(job: Job, *, sandbox: bool = False) -> dict[str, Any]:
    """The status as JSON-able values: `running`, `requests` by outcome, `rows` by status, spend, and the rate
    of the last minute. Raises UsageError where nothing has been run yet.

    `rows` are those of the output that was written last, or of a run that has written none yet: then
    `looked_at` of them have been compared with the journal, and a second may have passed since.
    """
    journal = open_journal_of(job)
    try:
        life = journal.totals(sandbox)
        lately = journal.answers_since(milliseconds() - SECONDS_OF_RATE * 1000)
        last = journal.last_run(sandbox)
        rows = journal.last_row_counts(sandbox)
    finally:
        journal.close()
    spend = amounts_of(life, job.budget.nano_usd)
    spend["usd"]["reserved"] = life.open.nano_usd / 10**9
    spend["usd"]["left"] = _left(job, life)
    return {
        "running": last is not None and last["finished_at"] is None and is_locked(job),
        "last_run": None if last is None else _run_of(last),
        "rows": None if rows is None else msgspec.json.decode(rows),
        "answered": life.answered,
        "failed": life.failed,
        "uncertain": life.uncertain,
        "in_flight": life.open_intents,
        **spend,
        "answers_per_minute": lately,
    }


def status_lines(status: dict[str, Any]) -> list[str]:
    """The status for people."""
    usd, last, rows = status["usd"], status["last_run"], status["rows"]
    cap = "" if usd["budget"] is None else f" of {usd['budget']:g} USD, {usd['left']:.6g} left"
    lately = f"{status['answers_per_minute']:,} answered in the last minute"
    counts = f"{status['answered']:,} answered, {status['failed']:,} failed"
    reserved = f" + {usd['reserved']:.6g} reserved" if usd["reserved"] else ""
    uncertain = f" + {usd['uncertain']:.6g} uncertain" if usd["uncertain"] else ""
    lines = [
        f"requests  {counts}, {status['in_flight']:,} in flight, {lately}",
        f"spent     {usd['settled']:.6g} USD{reserved}{uncertain}{cap}",
    ]
    if rows is not None:
        lines.insert(0, _rows_line(rows))
    errors = status["requests"]["by_error"]
    if errors:
        lines.append("errors    " + ", ".join(f"{code} x{n:,}" for code, n in sorted(errors.items())))
    if last is None:
        lines = ["no run of this kind yet; --sandbox shows the runs with the sandbox"]
    else:
        end = last["reason"] or (
            "going on" if status["running"] else "ended without a word; what was in flight is in doubt"
        )
        lines.append(f"last run  {last['started_at'][:19].replace('T', ' ')} UTC: {end}")
    return lines


def _rows_line(rows: dict[str, int | None]) -> str:
    keys = ("ok", "invalid", "failed", "pending")
    counts = ", ".join(f"{rows[key]:,} {key}" for key in keys if rows[key] is not None)
    shared = f", {rows['shared']:,} that share another row's answer" if rows["shared"] else ""
    if "looked_at" not in rows:
        return f"rows      {counts} of {rows['total']:,} when the output was last written"
    if rows["looked_at"] == rows["total"]:
        return f"rows      {counts} of {rows['total']:,} so far{shared}"
    total = "" if rows["total"] is None else f" of {rows['total']:,}"
    return f"rows      {counts} so far{shared}; {rows['looked_at']:,}{total} rows looked at"


def _run_of(last: dict[str, Any]) -> dict[str, Any]:
    finished = last["finished_at"]
    return {
        "started_at": instant(last["started_at"]),
        "finished_at": None if finished is None else instant(finished),
        "exit_code": last["exit_code"],
        "reason": last["reason"],
    }


def _left(job: Job, life: Totals) -> float | None:
    cap = job.budget.nano_usd
    if cap is None:
        return None
    return max(0, cap - life.spend.committed.nano_usd - life.open.nano_usd) / 10**9
