"""Begins a run: closes a dead one, notes the new one in the journal, and counts what was spent before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from batchrun.client.server import Server
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.ledger import Cap, Ledger, caps_of
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.session import OpenSender, own_connections
from batchrun.engine.starting_balance import (
    committed_spend,
    spent_on_the_day,
    starting_ledger,
    starting_price_list,
)
from batchrun.job.budget import Budget
from batchrun.job.spec import fingerprint, public_job
from batchrun.journal import Journal, Totals
from batchrun.journal.pool import Pool, PoolShare
from batchrun.journal.writer import OpenCommits, commits_here
from batchrun.rows.dataset import Dataset, endpoint_identity
from batchrun.runs.observers.progress import Progress
from batchrun.runs.observers.view import View
from batchrun.runs.pool import settled_share
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.timed_commits import timed
from batchrun.tables.locations import InputState, input_state
from batchrun.version import __version__


@dataclass(frozen=True, slots=True)
class RowSubset:
    """Some of a job's rows: their indexes in sending order, and how they were drawn, as JSON.

    `holds_usd` says that budget.usd is a race's, which other jobs spend from too, and so can't change.
    """

    rows: Sequence[int]
    drawn: str
    holds_usd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has begun. `number` is the journal's, `before` its totals at the beginning.

    Rows that failed in a run before `retry_failed_before` are sent again. `input_state` is the input's at the
    beginning. `view` is what observers see; its `job` has the caps and limits in force. `caps_of` returns the
    ledger's caps for a budget, what earlier runs have spent counted. `share` is the journal's part of the
    pool, if the budget has one.
    """

    dataset: Dataset
    server: Server
    folder: RunFolder
    temporary_output: Path | None
    journal: Journal
    number: int
    started_at: int
    before: Totals
    abandoned_requests: int
    part: RowSubset | None
    retry_failed_before: int
    ledger: Ledger
    limiter: Limiter
    progress: Progress
    input_state: InputState
    concurrency: int
    view: View
    caps_of: Callable[[Budget], tuple[Cap, ...]]
    open_sender: OpenSender = own_connections
    open_commits: OpenCommits = commits_here
    share: PoolShare | None = None


def begin(
    dataset: Dataset,
    server: Server,
    folder: RunFolder,
    *,
    journal: Journal,
    started_at: int,
    temporary_output: Path | None,
    topped_up: bool,
    part: RowSubset | None,
    retry_failed: bool,
    concurrency: int,
    open_sender: OpenSender = own_connections,
    open_commits: OpenCommits = commits_here,
    pool: Pool | None = None,
) -> Run:
    """Returns a run that the journal knows as begun. Only the holder of the lock may call this."""
    job, sandbox = dataset.job, server.sandbox
    abandoned_requests = journal.abandon_open_intents(started_at, final=job.retry.in_doubt == "leave")
    before = journal.totals(sandbox)
    identity = endpoint_identity(job, sandbox=sandbox)
    number = journal.start_run(
        __version__,
        started_at,
        sandbox,
        identity,
        fingerprint(job),
        msgspec.json.encode(public_job(job)).decode(),
    )
    share = settled_share(pool, journal, sandbox=sandbox)
    left = None if share is None else share.left(started_at // MILLISECONDS_PER_DAY)
    ledger = starting_ledger(job, sandbox, journal, before, started_at, topped_up=topped_up, pool_left=left)
    limiter = Limiter(job.limits.requests_per_minute, job.limits.tokens_per_minute)
    progress = Progress(rows=dataset.table.row_count)
    return Run(
        dataset=dataset,
        server=server,
        folder=folder,
        temporary_output=temporary_output,
        journal=journal,
        number=number,
        started_at=started_at,
        before=before,
        abandoned_requests=abandoned_requests,
        part=part,
        retry_failed_before=number if retry_failed else 0,
        ledger=ledger,
        limiter=limiter,
        progress=progress,
        input_state=input_state(dataset.table.files),
        concurrency=concurrency,
        view=View(job, server, ledger, progress, limiter, before),
        caps_of=partial(
            caps_of,
            spent=committed_spend(before, starting_price_list(job, sandbox, before)),
            spent_today=spent_on_the_day(journal, sandbox, started_at),
        ),
        open_sender=open_sender,
        open_commits=timed(open_commits, progress),
        share=share,
    )
