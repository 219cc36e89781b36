"""The state of a job, from its journal alone, also during a run."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import msgspec

from batchrun.clock import instant, milliseconds
from batchrun.errors import EXIT_DONE
from batchrun.job.spec import Job, run_folder
from batchrun.journal import Journal, Totals
from batchrun.runs.adjust.record import in_force, made_in
from batchrun.runs.pool import state_or_trouble
from batchrun.runs.run_folder import RunFolder, has_journal, open_journal_of
from batchrun.runs.run_lock import is_locked
from batchrun.runs.summary import amounts_of

SECONDS_OF_RATE = 60
RACE = "race"
"""How a race's rows are drawn, by what the journal has of it."""


def status_of(job: Job, *, sandbox: bool = False) -> dict[str, Any]:
    """Returns the status as JSON-able values: `running`, `requests` by outcome, `rows` by status, `reasons`
    of failed and invalid rows, counts of `labels`, spend, the rate of the last minute, `seconds_to_go` at
    that rate, the `last_run` with its `next_step`, and when spend was last `settled` by a bill.

    `in_race` says that a race is going on in which the job is a candidate: while another candidate's rows are
    sent, the job is not `running`. Raises UsageError if nothing has been run yet.

    `rows` belong to the last written output, or to a later run that has not written one: then `looked_at` of
    them have been compared with the journal, the counts may be a second old, and `ok` has all answers of
    earlier runs.
    """
    with closing(open_journal_of(job)) as journal:
        return read_status(job, journal, lambda instant: journal.answers_since(instant, sandbox), sandbox)


def read_status(
    job: Job, journal: Journal, answers_since: Callable[[int], int], sandbox: bool
) -> dict[str, Any]:
    """Returns the status from an open journal. `answers_since` counts the answers since an instant."""
    life = journal.totals(sandbox)
    last, other = journal.last_run(sandbox), journal.last_run(not sandbox)
    a_minute_ago = milliseconds() - SECONDS_OF_RATE * 1000
    lately = of_last = answers_since(a_minute_ago)
    is_newest = last is not None and (other is None or other["run"] < last["run"])
    running = last is not None and is_newest and last["finished_at"] is None and is_locked(job)
    if last is not None and running and last["started_at"] > a_minute_ago:
        of_last = answers_since(last["started_at"])
    settled = journal.last_run(sandbox, settlement=True)
    pool = state_or_trouble(job, journal, sandbox=sandbox)
    adjustments = [] if last is None else made_in(journal, last["run"])
    has_noted = last is not None and last["rows"] is not None
    rows = _rows_known(journal.row_counts(sandbox), goes_on=running and has_noted)
    reasons, labels = ({} if rows is None else rows.pop(key, {}) for key in ("reasons", "labels"))
    if running:
        job = in_force(job, adjustments)
    spend = amounts_of(life, job.budget.nano_usd)
    spend["usd"]["reserved"] = life.open.nano_usd / 10**9
    spend["usd"]["left"] = _left(job, life)
    return {
        "running": running,
        "in_race": last is not None and is_newest and _is_of_a_race(last) and (running or is_locked(job)),
        "last_run": None if last is None else _run_of(last) | {"next_step": _next_step(job, last)},
        "settled": None if settled is None else _run_of(settled),
        "adjustments": adjustments,
        "rows": rows,
        "reasons": reasons,
        "labels": labels,
        "answered": life.answered,
        "failed": life.failed,
        "uncertain": life.uncertain,
        "in_flight": life.open_intents,
        **spend,
        **({} if pool is None else {"pool": pool}),
        "answers_per_minute": lately,
        "seconds_to_go": _seconds_to_go(last["started_at"], rows, of_last) if running and last else None,
    }


def _rows_known(counts: Sequence[str], *, goes_on: bool) -> dict[str, Any] | None:
    """Returns the row counts that say most; `counts` are those of runs, the newest first.

    A run that was killed, or that sent some rows only, has looked at a part of the rows: an earlier run may
    have known more. Of one that goes on, the counts grow.
    """
    known: list[dict[str, Any]] = []
    for rows in map(msgspec.json.decode, counts):
        known.append(rows)
        if goes_on or rows.get("looked_at", rows["total"]) == rows["total"]:
            break
    return max(known, key=lambda rows: (rows["ok"] or 0) + (rows["invalid"] or 0), default=None)


def _seconds_to_go(started_at: int, rows: dict[str, Any] | None, lately: int) -> float | None:
    """Returns the time for the pending rows at the rate of the last minute, None where that is unknown."""
    if not lately or rows is None or None in (rows["total"], rows["ok"]):
        return None
    seconds = min(SECONDS_OF_RATE, (milliseconds() - started_at) / 1000)
    left = int(rows["total"]) - rows["ok"] - rows["invalid"] - rows["failed"]
    return float(round(left * seconds / lately, 1))


def _is_of_a_race(last: dict[str, Any]) -> bool:
    sampling = last["sampling"]
    return sampling is not None and msgspec.json.decode(sampling).get("drawn") == RACE


def has_run(job: Job) -> bool:
    """Returns whether the job has a journal."""
    return has_journal(RunFolder(run_folder(job)))


def goes_on(status: dict[str, Any]) -> bool:
    """Returns whether a run is going on, or a race in which the job waits for its turn."""
    return bool(status["running"] or status["in_race"])


def state_of(status: dict[str, Any]) -> str:
    """Returns a job's state in a few words."""
    code = status["last_run"]["exit_code"]
    if goes_on(status):
        return "running" if status["running"] else "in a race"
    if code is None:
        return "ended abruptly"
    if code == EXIT_DONE and not status["last_run"]["output_written"]:
        return "a part was sent"
    return f"ended with {code}"


def _run_of(last: dict[str, Any]) -> dict[str, Any]:
    finished = last["finished_at"]
    return {
        "started_at": instant(last["started_at"]),
        "finished_at": None if finished is None else instant(finished),
        "exit_code": last["exit_code"],
        "reason": last["reason"],
        "output_written": last["rows"] is not None and "looked_at" not in msgspec.json.decode(last["rows"]),
    }


def _next_step(job: Job, last: dict[str, Any]) -> str | None:
    """Returns what the run's summary says to do next; None if it isn't this run's, or says nothing."""
    try:
        summary = msgspec.json.decode(RunFolder(run_folder(job)).summary.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    is_its = isinstance(summary, dict) and summary.get("started_at") == instant(last["started_at"])
    return summary.get("next_step") if is_its and last["finished_at"] is not None else None


def _left(job: Job, life: Totals) -> float | None:
    cap = job.budget.nano_usd
    if cap is None:
        return None
    return max(0, cap - life.spend.committed.nano_usd - life.open.nano_usd) / 10**9
