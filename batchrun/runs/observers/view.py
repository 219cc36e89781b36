"""The values that an observer of a run may read, besides its events."""

from collections.abc import Callable
from dataclasses import dataclass

from batchrun.client.server import Server
from batchrun.engine.ledger import Ledger
from batchrun.engine.limits.limiter import Limiter
from batchrun.job.spec import Job
from batchrun.journal import Totals
from batchrun.rows.observer import Observer
from batchrun.runs.observers.progress import Progress


@dataclass(slots=True)
class View:
    """A run in progress: `ledger`, `progress` and `limiter` are current. `before` is the spend of earlier
    runs. `job` has the caps and limits in force: it is replaced when somebody changes them."""

    job: Job
    server: Server
    ledger: Ledger
    progress: Progress
    limiter: Limiter
    before: Totals


MakeObserver = Callable[[View], Observer]
"""Returns an observer of one run."""
