"""The asking side: new caps and limits for a run in another process, and what it answers."""

import getpass
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

from batchrun.errors import LockedError, UsageError
from batchrun.job.adjusting import read_adjustments
from batchrun.journal import Journal, open_for_reading
from batchrun.journal.adjustments import Adjustment, adjustments_of
from batchrun.runs.adjust.record import as_values
from batchrun.runs.adjust.request import STOP, Request, ask, is_taken, withdraw
from batchrun.runs.run_folder import RunFolder, has_journal
from batchrun.runs.run_lock import is_active

PATIENCE = 5.0
"""Seconds for which a run may take no notice: it takes requests as long as it sends."""
_SECONDS_TO_JOURNAL = 5.0
"""After it has taken a request."""
_SECONDS_BETWEEN_LOOKS = 0.05


def adjust_run(
    folder: RunFolder, assignments: Sequence[str], *, author: str | None = None, patience: float = PATIENCE
) -> dict[str, Any]:
    """Sets caps and limits of the run that is going on; returns what it did, once the journal has it.

    `assignments` are texts such as `budget.usd=5`, and `stop=true` to let the run drain and end. `author` is
    who sets them, by default this user. The result has `run`, `at`, `author` and `settings`: old and new
    value by key.

    Raises JobError for keys and values that can't be set, UsageError if no run is going on or it refuses,
    LockedError if the run takes no notice for `patience` seconds.
    """
    given = tuple(assignment.strip() for assignment in assignments)
    read_adjustments([each for each in given if each != STOP])
    if not has_journal(folder) or not is_active(folder):
        raise _no_run(folder)
    request = ask(folder, author or this_user(), given)
    try:
        taken = _within(patience, lambda: is_taken(folder, request))
    except BaseException:  # as Ctrl-C: nobody waits for the answer any more
        withdraw(folder, request)
        raise
    if not taken and withdraw(folder, request):
        raise _takes_nothing() if is_active(folder) else _no_run(folder)
    answer = _answer(folder, request)
    if answer["refused"] is not None:
        raise UsageError(f"Run {answer['run']} refused: {answer['refused']}")
    return answer


def this_user() -> str:
    """Returns such as "ann@host"."""
    with suppress(OSError, KeyError, ImportError):  # as in a container without this user
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return "somebody"


def _answer(folder: RunFolder, request: Request) -> dict[str, Any]:
    """Returns what the journal has of a request that the run has taken. Raises LockedError."""
    with closing(open_for_reading(folder.journal)) as journal:
        if _within(_SECONDS_TO_JOURNAL, lambda: _journaled(journal, request)):
            return as_values(*_journaled(journal, request))
    if is_active(folder):
        raise LockedError(
            f"The run's journal doesn't have it after {_SECONDS_TO_JOURNAL:g} seconds, so it may not hold.\n"
            "Next: batchrun status JOB shows what was set."
        )
    raise LockedError("The run has taken it, but ended before its journal had it. Next: batchrun status JOB")


def _journaled(journal: Journal, request: Request) -> list[Adjustment]:
    return [each for each in adjustments_of(journal) if each.id == request.id]


def _within(seconds: float, holds: Callable[[], object]) -> bool:
    """Waits until something holds; returns False if it doesn't within `seconds`."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= until:
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return True


def _no_run(folder: RunFolder) -> UsageError:
    return UsageError(
        f"No run is going on in {folder.path}, so nothing was set.\n"
        "Next: change the job file, or give the values to the next run: batchrun run JOB --set KEY=VALUE"
    )


def _takes_nothing() -> LockedError:
    return LockedError(
        "The run takes nothing now: it has not begun to send, or writes its output. Nothing was set.\n"
        "Next: try again, or set the values when it has ended."
    )
