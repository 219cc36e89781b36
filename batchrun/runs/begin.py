"""Begins a run: closes a dead one, notes the new one in the journal, and counts what was spent before."""

from functools import partial
from pathlib import Path

from batchrun.client.server import Server
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.engine.ledger import caps_of
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.session import OpenSender, own_connections
from batchrun.engine.starting_balance import (
    committed_spend,
    spent_on_the_day,
    starting_ledger,
    starting_price_list,
)
from batchrun.job.spec import fingerprint, public_job
from batchrun.journal import Journal
from batchrun.journal.pool import Pool
from batchrun.rows.dataset import Dataset, endpoint_identity
from batchrun.runs.observers.progress import Progress
from batchrun.runs.observers.view import View
from batchrun.runs.pool import settled_share
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.sending import RowSubset, Run, as_json
from batchrun.tables.locations import input_state
from batchrun.version import __version__


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
    pool: Pool | None = None,
) -> Run:
    """Returns a run that the journal knows as begun. Only the holder of the lock may call this."""
    job, sandbox = dataset.job, server.sandbox
    abandoned_requests = journal.abandon_open_intents(started_at, final=job.retry.in_doubt == "leave")
    before = journal.totals(sandbox)
    identity = endpoint_identity(job, sandbox=sandbox)
    number = journal.start_run(
        __version__, started_at, sandbox, identity, fingerprint(job), as_json(public_job(job))
    )
    share = settled_share(pool, journal, sandbox=sandbox)
    left = None if share is None else share.left(started_at // MILLISECONDS_PER_DAY)
    ledger = starting_ledger(job, sandbox, journal, before, started_at, topped_up=topped_up, pool_left=left)
    limiter = Limiter(job.limits.requests_per_minute, job.limits.tokens_per_minute)
    progress = Progress(rows=dataset.table.row_count)
    return Run(
        dataset,
        server,
        folder,
        temporary_output,
        journal,
        number,
        started_at,
        before,
        abandoned_requests,
        part,
        number if retry_failed else 0,
        ledger,
        limiter,
        progress,
        input_state(dataset.table.files),
        concurrency,
        View(job, server, ledger, progress, limiter, before),
        partial(
            caps_of,
            spent=committed_spend(before, starting_price_list(job, sandbox, before)),
            spent_today=spent_on_the_day(journal, sandbox, started_at),
        ),
        open_sender,
        share,
    )
