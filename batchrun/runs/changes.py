"""Answers that no longer apply: found before anything is sent, with what changed since the last run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from batchrun.amounts import usd_text
from batchrun.errors import UsageError
from batchrun.job.spec import Job, public_job
from batchrun.journal import Journal
from batchrun.rows.dataset import Dataset
from batchrun.rows.result import INVALID, OK
from batchrun.rows.selection import SettledDigests

_LATEST = 2**63 - 1
_NOT_IN_IDENTITY = frozenset({"stream", "free_tier"})


@dataclass(frozen=True, slots=True)
class Change:
    """`lost` of the `answers` that the last run had no longer apply; sending their rows again costs about
    `nano_usd`, None where that is unknown."""

    what: tuple[str, ...]
    lost: int
    answers: int
    nano_usd: int | None

    def __str__(self) -> str:
        cost = "" if self.nano_usd is None else f", which costs about {usd_text(self.nano_usd)}"
        return (
            f"{self.lost:,} of {self.answers:,} answers of the last run no longer apply, since these have "
            f"changed: {', '.join(self.what)}. Their rows are sent again{cost}"
        )


def change_since_last_run(dataset: Dataset, journal: Journal, *, sandbox: bool) -> Change | None:
    """Returns what changed if most rows of the last run would be sent again; None if they wouldn't.

    Reads the input as far as it takes to know. Raises InputError, JournalError.
    """
    last = journal.last_run(sandbox)
    # A run that was killed at its beginning knows of no answers.
    answers = next(filter(None, map(_answers, journal.row_counts(sandbox))), 0)
    if last is None or not answers:
        return None
    again = _sent_again(dataset, journal, answers)
    if 2 * again <= answers:
        return None
    totals = journal.totals(sandbox)
    cost = None if not totals.answered else totals.spend.settled.nano_usd * again // totals.answered
    what = tuple(_differences(msgspec.json.decode(last["job"]), dataset.job)) or ("the text of rows",)
    return Change(what, again, answers, cost)


def _answers(counts: str) -> int:
    rows = msgspec.json.decode(counts)
    return int((rows.get(OK) or 0) + (rows.get(INVALID) or 0))


def _sent_again(dataset: Dataset, journal: Journal, answers: int) -> int:
    """Returns how many rows of the last run are not in the journal in their current form."""
    settled = SettledDigests(journal)
    known = unknown = 0
    for chunk in dataset.chunks([], journal):
        digests = chunk.sendable_digests
        distinct = set(digests)
        found = set(settled.among(distinct))
        found |= journal.attempted_before(_LATEST, tuple(distinct - found))
        here = sum(digest in found for digest in digests)
        known, unknown = known + here, unknown + len(digests) - here
        if 2 * known >= answers:
            return 0
    return min(unknown, answers - known)


def _differences(last: dict[str, Any], job: Job) -> Iterator[str]:
    """Yields the changed settings that affect requests, by the names of the job file."""
    yield from changed_settings(last, _as_json(public_job(job)))


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yields the same for two jobs as the journal keeps them."""
    for table in ("prompt", "request"):
        former, keys = before.get(table, {}), now.get(table, {})
        changed = (key for key in keys if former.get(key) != keys[key])
        yield from (f"{table}.{key}" for key in changed if key not in _NOT_IN_IDENTITY)
    if before.get("endpoint", {}).get("base_url") != now.get("endpoint", {}).get("base_url"):
        yield "endpoint.base_url"


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def accept_change(change: Change, job: Job, confirm: Callable[[str], bool] | None) -> None:
    """Raises UsageError if the job or the user doesn't want rows to be sent again."""
    if confirm is None:
        agreed = job.output.on_change == "ask-again"
        advice = 'Undo the change, give the job another output, or set output.on_change = "ask-again"'
    else:
        agreed = confirm(str(change))
        advice = "Undo the change, or give the job another output"
    if not agreed:
        raise UsageError(f"{change}.\nNothing was sent, and the output is as it was. {advice}.")
