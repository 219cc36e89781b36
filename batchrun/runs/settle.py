"""Books a job's uncertain spend at the amount of the provider's bill."""

from contextlib import closing
from decimal import Decimal
from typing import Any

import msgspec

from batchrun.amounts import usd, usd_text
from batchrun.clock import milliseconds
from batchrun.errors import EXIT_DONE, UsageError
from batchrun.job.budget import nano_usd
from batchrun.job.spec import Job, fingerprint, public_job, run_folder
from batchrun.journal import create_or_open
from batchrun.journal.checking import check_at_start
from batchrun.rows.dataset import endpoint_identity
from batchrun.runs.pool import pool_of, settled_share
from batchrun.runs.run_folder import RunFolder, has_journal, refuse_half_salvaged, refuse_rescued
from batchrun.runs.run_lock import locked
from batchrun.version import __version__


def settle_job(job: Job, uncertain: str, *, sandbox: bool = False) -> dict[str, Any]:
    """Books `uncertain`, an amount in USD, for all requests with an unknown outcome; returns the booking.

    A killed run is closed first: its requests in flight are uncertain too. The journal notes the booking as a
    run without requests. Raises UsageError for an invalid amount or if nothing is uncertain, LockedError
    while a run is active, JournalError, StorageError.
    """
    amount = _amount(uncertain)
    folder = RunFolder(run_folder(job))
    if not has_journal(folder):
        raise UsageError(f"Nothing has been run yet: there is no journal {folder.journal}")
    with locked(folder), pool_of(job, sandbox=sandbox) as pool:
        refuse_half_salvaged(folder)
        refuse_rescued(folder)
        with closing(create_or_open(folder.journal)) as journal:
            now = milliseconds()
            check_at_start(journal, now)
            journal.abandon_open_intents(now, final=job.retry.in_doubt == "leave")
            before = journal.totals(sandbox)
            if not before.uncertain:
                raise UsageError("No spend is uncertain, so there is nothing to settle")
            reason = (
                f"Booked {usd_text(amount)} for {before.uncertain:,} uncertain requests,"
                f" by the provider's bill; before, {usd_text(before.spend.uncertain.nano_usd)}."
            )
            identity, tables = endpoint_identity(job, sandbox=sandbox), msgspec.json.encode(public_job(job))
            requests, booked_before = journal.settle(sandbox, amount)  # first, since it may be refused
            run = journal.start_run(__version__, now, sandbox, identity, fingerprint(job), tables.decode())
            journal.finish_run(run, now, None, EXIT_DONE, reason)
            settled_share(pool, journal, sandbox=sandbox)
            settled = journal.totals(sandbox).spend.settled.nano_usd
    return {
        "requests": requests,
        "reason": reason,
        "usd": {
            "settled": usd(settled),
            "uncertain": usd(amount),
            "uncertain_before": usd(booked_before),
            "budget": None if job.budget.nano_usd is None else usd(job.budget.nano_usd),
        },
    }


def _amount(text: str) -> int:
    try:
        return nano_usd(Decimal(text))
    except (ArithmeticError, ValueError):
        raise UsageError(
            f"--uncertain: expected USD such as 0.12, from 0 on with at most 9 decimals, got {text[:40]!r}"
        ) from None
