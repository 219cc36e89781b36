"""The sending half of a run: which rows, in which order, with which rules."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from batchrun.client.address import messages_address
from batchrun.client.retry import RetryPolicy
from batchrun.engine.dispatcher import Rules
from batchrun.engine.ledger import Ledger
from batchrun.engine.session import Session, endpoint_settings, run_engine
from batchrun.engine.shutdown import ShutdownRequest
from batchrun.engine.starting_balance import starting_price_list
from batchrun.job.credentials import without_key
from batchrun.job.spec import asks_in_random_order
from batchrun.journal import Journal, open_for_reading
from batchrun.rows.active import Row
from batchrun.rows.history import with_caps_seen
from batchrun.rows.labelling import Labelling
from batchrun.rows.observer import Observer, combined
from batchrun.rows.scratch import scratch_folder
from batchrun.rows.selection import (
    Scanned,
    in_given_order,
    in_random_order,
    random_order_of,
    reported,
    scan,
)
from batchrun.runs.adjust.take import taking
from batchrun.runs.begin import Run
from batchrun.runs.observers.progress import Progress
from batchrun.runs.sampler import sample_now_and_then
from batchrun.runs.workers import seconds_to_start
from batchrun.stops import Stop
from batchrun.workers.reader import Reader, Task, pays, reader_process, seen

if TYPE_CHECKING:
    from batchrun.evaluation.monitor import Spending
    from batchrun.rows.metrics import Metric


def send_rows(run: Run, observer: Observer, shutdown: ShutdownRequest) -> Stop | None:
    """Sends the requests of the pending rows; returns why it was stopped, None if it wasn't.

    Raises JournalError, StorageError, and InputError if the input breaks meanwhile.
    """
    stop = _sent(run, session_of(run, observer), shutdown)
    if stop is not None and stop.reopens_failures:
        in_doubt = run.dataset.job.retry.in_doubt == "ask"
        run.journal.reopen_failures(run.number, in_doubt=in_doubt)
    return stop


def _sent(run: Run, session: Session, shutdown: ShutdownRequest) -> Stop | None:
    reader = open_for_reading(run.journal.path)
    try:
        if run.dataset.metric is not None and run.part is None:
            return _run_sample(run, session, run.dataset.metric, reader, shutdown)
        with _scanned(run, reader, session.rules.labelling, shutdown) as scanned:
            pending = reported(scanned, session.observer)
            return run_engine(session, run.journal, in_sending_order(run, pending), shutdown)
    finally:
        reader.close()


@contextmanager
def _scanned(
    run: Run, journal: Journal, labelling: Labelling, shutdown: ShutdownRequest
) -> Iterator[Iterator[Scanned]]:
    """Yields the scanned rows, which a process of its own reads where that pays and can be started."""
    here = partial(scan, run.dataset, journal, labelling)
    with ExitStack() as elsewhere:
        reader = _reader(run, elsewhere) if pays(run.dataset) else None
        if reader is None:
            yield here()
            return
        dataset = run.dataset
        task = Task(
            dataset.job, run.server.sandbox, seen(dataset), run.journal.path, labelling.asks_again_before
        )
        with shutdown.notifying(lambda _: reader.interrupt()):
            yield reader.scan(task, here)


def _reader(run: Run, elsewhere: ExitStack) -> Reader | None:
    environment = without_key(os.environ, run.dataset.job, run.server.api_key)
    try:
        return elsewhere.enter_context(reader_process(environment, run.folder.workers_log))
    except OSError:  # no memory for another process: this one reads, as without workers
        return None


def session_of(run: Run, observer: Observer) -> Session:
    job = run.dataset.job
    rules = Rules(
        concurrency=run.concurrency,
        retry=RetryPolicy(1 if job.request.free_tier else job.retry.max_attempts, job.retry.max_wait_seconds),
        leave_in_doubt=job.retry.in_doubt == "leave",
        outage_seconds=job.retry.outage_seconds,
        useless_rows=job.retry.useless_rows,
        address=messages_address(run.server.base_url).shown,
        labelling=replace(
            with_caps_seen(run.dataset.labelling, run.journal), asks_again_before=run.retry_failed_before
        ),
    )
    return Session(
        run.number,
        rules,
        run.ledger,
        starting_price_list(job, run.server.sandbox, run.before),
        run.limiter,
        endpoint_settings(job, run.server),
        job.budget.seconds,
        observer,
        lambda: msgspec.json.encode(run.progress.rows_so_far()).decode(),
        beside=(taking(run, observer), partial(sample_now_and_then, run.number, run.view)),
        open_sender=run.open_sender,
        open_commits=run.open_commits,
        pool=run.share,
        start_seconds=seconds_to_start(job),
    )


def _run_sample(
    run: Run, session: Session, metric: "Metric", reader: Journal, shutdown: ShutdownRequest
) -> Stop | None:
    from batchrun.evaluation.sampled_rows import drawn_rows

    rows, monitor = drawn_rows(
        run.dataset,
        metric,
        run.journal,
        reader,
        run.number,
        session.observer,
        _mean_cost(run.ledger, run.before.spend.committed.nano_usd, run.progress),
        session.rules.labelling,
    )
    followed = replace(
        session,
        observer=combined([session.observer, monitor]),
        enough=lambda: monitor.enough,
        may_begin=monitor.may_begin if monitor.decides else None,
    )
    return run_engine(followed, run.journal, rows, shutdown)


def in_sending_order(run: Run, chunks: Generator[list[Row], None, None]) -> Generator[list[Row], None, None]:
    """Yields the rows in sending order; only the first request under the free tier."""
    job, immediate = run.dataset.job, run.dataset.rows_in_a_chunk
    if run.part is not None:
        run.journal.note_sampling(run.number, run.part.drawn)
        chunks = in_given_order(chunks, run.part.rows, immediate, scratch_folder(job))
    elif asks_in_random_order(job):
        run.journal.note_sampling(run.number, msgspec.json.encode(random_order_of(job)).decode())
        chunks = in_random_order(chunks, job.output.seed, immediate, scratch_folder(job))
    if job.request.free_tier:
        return _first_request(chunks)
    return chunks


def _first_request(chunks: Iterator[list[Row]]) -> Generator[list[Row], None, None]:
    for chunk in chunks:
        yield chunk[:1]
        if chunk:
            return


def _mean_cost(ledger: Ledger, before_nano_usd: int, progress: Progress) -> "Spending":
    """Computes the mean cost from this run's ledger, earlier spend, and the rows answered before."""

    def spending() -> tuple[float, float] | None:
        left = ledger.left("nano_usd")
        rows = progress.answered_before + ledger.settled.rows
        if left is None or not rows:
            return None
        spent = before_nano_usd + ledger.settled.nano_usd + ledger.uncertain.nano_usd
        return spent / rows, spent + left + ledger.reserved.nano_usd

    return spending
