"""Notes in the journal, each second or more, what a run knows of itself, for the charts of its pages."""

import anyio

from batchrun.engine.controls import Controls
from batchrun.journal.samples import Sample
from batchrun.runs.observers.view import View

MOST_SAMPLES = 600
"""Of one run. With more, every second one is dropped, and half as many are taken from then on."""


async def sample_now_and_then(run: int, view: View, controls: Controls) -> None:
    """Takes samples as long as the run sends."""
    second, stride = 0, 1
    while True:
        step = stride - second % stride  # after the stride has grown: to its next multiple
        await anyio.sleep(step)
        second += step
        stride = stride_at(second, stride)
        if second % stride == 0:
            controls.note(sample_of(run, second, stride, view))


def stride_at(second: int, stride: int) -> int:
    """Returns the seconds between two samples, a power of two, so that there are at most `MOST_SAMPLES`."""
    return stride if second <= MOST_SAMPLES * stride else 2 * stride


def sample_of(run: int, second: int, stride: int, view: View) -> Sample:
    ledger = view.ledger
    committed = view.before.spend.committed.plus(ledger.settled).plus(ledger.uncertain).plus(ledger.reserved)
    return Sample(
        run,
        second,
        stride,
        view.progress.in_flight,
        committed.nano_usd,
        view.limiter.pace.requests_per_minute,
        held_by(view),
    )


def held_by(view: View) -> str | None:
    """Returns what holds the next request back; None if nothing does but this machine's speed."""
    progress = view.progress
    if progress.blocked_by is not None:
        return progress.blocked_by
    if progress.waiting is not None:
        return progress.waiting.by
    return "limits.concurrency" if progress.in_flight >= view.job.limits.concurrency else None
