"""The run's side: takes requests for new caps and limits, puts them into force and journals them."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from batchrun.client.descriptors import possible_concurrency
from batchrun.clock import milliseconds
from batchrun.engine.controls import Controls
from batchrun.errors import BatchrunError, UsageError
from batchrun.job.adjusting import adjusted, read_adjustments, value_text
from batchrun.job.spec import Job
from batchrun.journal.adjustments import Adjustment
from batchrun.rows.observer import Observer, RunAdjusted
from batchrun.runs.adjust.request import STOP, Request, take_requests
from batchrun.runs.begin import Run
from batchrun.runs.workers import files_of_a_request
from batchrun.stops import by_request

SECONDS_BETWEEN_LOOKS = 0.4
"""A request is taken within a second."""

Settings = Mapping[str, tuple[str | None, str | None]]
"""Old and new value by key."""


def taking(run: Run, observer: Observer) -> Callable[[Controls], Coroutine[Any, Any, None]]:
    """Returns what takes requests for `run` as long as it sends."""

    async def take_now_and_then(controls: Controls) -> None:
        while True:
            await anyio.sleep(SECONDS_BETWEEN_LOOKS)
            for request in await anyio.to_thread.run_sync(take_requests, run.folder):
                take(run, request, controls, observer)

    return take_now_and_then


def take(run: Run, request: Request, controls: Controls, observer: Observer) -> None:
    """Does what a request asks for, or notes why it can't be done."""
    refused = None
    try:
        settings = _done(run, request, controls)
    except BatchrunError as error:
        settings, refused = _asked(request), str(error)
    record = msgspec.json.encode(settings).decode()
    controls.note(Adjustment(request.id, run.number, milliseconds(), request.author, record, refused))
    observer.adjusted(RunAdjusted(request.author, settings, refused))


def _done(run: Run, request: Request, controls: Controls) -> Settings:
    """Raises UsageError where the run can't do it."""
    if run.progress.stopping_for is not None:
        why = run.progress.stopping_for
        raise UsageError(f"It is ending: {why}\nNext: change the job file, then run it again.")
    former = run.view.job
    values = read_adjustments([each for each in request.assignments if each != STOP])
    if "budget.usd" in values and run.part is not None and run.part.holds_usd:
        raise UsageError(
            "budget.usd can't change: a race holds this cap for all its jobs together.\n"
            "Next: end the race, then start it again with another --usd."
        )
    job = adjusted(former, values, sandbox=run.server.sandbox)
    if job != former:
        concurrency = _new_concurrency(run, job)
        controls.adjust(job.budget, run.caps_of(job.budget), job.limits, concurrency)
        run.view.job = job
    settings = {key: (value_text(former, key), value_text(job, key)) for key in values}
    if STOP in request.assignments:
        controls.stop(by_request(request.author))
        settings["stop"] = (None, "true")
    return settings


def _new_concurrency(run: Run, job: Job) -> int | None:
    """Returns the requests that may be in flight from now on; None if that hasn't changed.

    Raises UsageError if this process may not open the files for a higher number.
    """
    wanted, before = job.limits.concurrency, run.view.job.limits.concurrency
    if wanted == before:
        return None
    trouble: list[str] = []
    possible = possible_concurrency(wanted, trouble.append, each=files_of_a_request(job, run.server))
    if trouble and wanted > before:
        raise UsageError(f"{trouble[0][:1].upper()}{trouble[0][1:]}.")
    return possible


def _asked(request: Request) -> Settings:
    pairs = (assignment.partition("=") for assignment in request.assignments)
    return {key: (None, value) for key, _, value in pairs}
