"""What the journal keeps of new caps and limits, as values for summary, status and report."""

from collections.abc import Sequence
from typing import Any

import msgspec

from batchrun.clock import instant
from batchrun.job.adjusting import read_adjustments, with_values
from batchrun.job.spec import Job
from batchrun.journal import Journal
from batchrun.journal.adjustments import Adjustment, adjustments_of


def made_in(journal: Journal, run: int | None) -> list[dict[str, Any]]:
    """Returns what was asked of a run, of all runs with None, in its order, as JSON-able values.

    `settings` have the old and the new value by key, `refused` is why the run didn't take them, or None.
    Raises JournalError.
    """
    return [as_values(each) for each in adjustments_of(journal) if run is None or each.run == run]


def as_values(adjustment: Adjustment) -> dict[str, Any]:
    return {
        "run": adjustment.run,
        "at": instant(adjustment.at),
        "author": adjustment.author,
        "settings": msgspec.json.decode(adjustment.settings),
        "refused": adjustment.refused,
    }


def in_force(job: Job, made: Sequence[dict[str, Any]]) -> Job:
    """Returns the job with the caps and limits that a run has after the adjustments that it took."""
    texts = [
        f"{key}={new}"
        for each in made
        if each["refused"] is None
        for key, (_, new) in each["settings"].items()
        if key != "stop"
    ]
    return with_values(job, read_adjustments(texts))
