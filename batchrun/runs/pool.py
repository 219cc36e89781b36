"""The pool of a job's budget, for the commands that use or show it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from batchrun.amounts import usd
from batchrun.clock import MILLISECONDS_PER_DAY, milliseconds
from batchrun.errors import BatchrunError, UsageError
from batchrun.job.caps import POOL, cap_named
from batchrun.job.spec import Job, run_folder
from batchrun.journal import Journal
from batchrun.journal.pool import Pool, PoolCaps, PoolMember, PoolShare, make_pool, open_pool, share_of
from batchrun.runs.run_folder import RunFolder
from batchrun.stops import Stop
from batchrun.text import first_line


def pool_file(job: Job) -> Path | None:
    """Returns the file of the budget that the job shares with others."""
    return None if job.budget.pool is None else job.base / Path(job.budget.pool).expanduser()


WITHOUT_POOL = "try the job without its pool: --set budget.pool=null"


@contextmanager
def pool_of(job: Job, *, sandbox: bool) -> Iterator[Pool | None]:
    """Opens the pool of a job's budget; None without one. Raises UsageError where the file doesn't exist."""
    path = pool_file(job)
    if sandbox and path is not None and not path.exists():
        raise UsageError(f"There is no pool {path}.\nNext: as nothing is paid here, {WITHOUT_POOL}")
    pool = None if path is None else open_pool(path)
    try:
        yield pool
    finally:
        if pool is not None:
            pool.close()


def in_sandbox(stop: Stop | None) -> Stop | None:
    """Returns the stop of a run that pays nothing: nobody has to raise a real pool's cap for it."""
    if stop is None or stop.next_step != cap_named(POOL).next_step:
        return stop
    return replace(stop, next_step=f"as nothing is paid here, {WITHOUT_POOL}")


def settled_share(pool: Pool | None, journal: Journal, *, sandbox: bool) -> PoolShare | None:
    """Returns a journal's share after the pool has what the journal counts, with no request in flight."""
    if pool is None:
        return None
    share = share_of(pool, journal.path, journal, sandbox=sandbox)
    share.settle(journal.counted_by_day(sandbox), journal.next_attempt() - 1)
    return share


def give_back(share: PoolShare | None, journal: Journal) -> None:
    """Gives back what a run has not used. Where that fails it stays counted until the job's next run."""
    if share is not None:
        with suppress(BatchrunError):
            share.settle(journal.counted_by_day(share.sandbox), journal.next_attempt() - 1)


def pool_part(share: PoolShare | None) -> dict[str, Any]:
    """Returns the pool's part of a run's summary; nothing without a pool, or where it can't be read."""
    if share is not None:
        with suppress(BatchrunError):
            return {"pool": _state(share.pool, share.sandbox)[0]}
    return {}


def state_or_trouble(job: Job, journal: Journal | None, *, sandbox: bool) -> dict[str, Any] | None:
    """Returns what `pool_state` does; for a pool that can't be read its `path`, and why as `error`."""
    try:
        return pool_state(job, journal, sandbox=sandbox)
    except BatchrunError as error:
        return {"path": str(pool_file(job)), "error": first_line(error)}


def pool_state(job: Job, journal: Journal | None, *, sandbox: bool) -> dict[str, Any] | None:
    """Returns what the pool of a job counts, in USD, as JSON-able values; None without a pool.

    `of_this_job` is counted for this journal, `held` the part of that which the journal itself doesn't count:
    claimed by its current run, or by one that was killed, until the next run settles it. Raises UsageError,
    JournalError, StorageError.
    """
    with pool_of(job, sandbox=sandbox) as pool:
        if pool is None:
            return None
        own = 0 if journal is None else sum(journal.counted_by_day(sandbox).values())
        share = share_of(pool, RunFolder(run_folder(job)).journal, journal, sandbox=sandbox)
        state, members = _state(pool, sandbox)
    of_this_job = sum(
        member.counted
        for member in members
        if (member.journal, member.born, member.retired) == (share.journal, share.born, 0)
    )
    return {**state, "of_this_job": usd(of_this_job), "held": usd(max(0, of_this_job - own))}


def pool_left(job: Job, journal: Journal | None, *, sandbox: bool, now: int) -> int | None:
    """Returns the nano-USD that the pool would leave a run that starts `now`; None without a pool."""
    with pool_of(job, sandbox=sandbox) as pool:
        if pool is None:
            return None
        share = share_of(pool, RunFolder(run_folder(job)).journal, journal, sandbox=sandbox)
        own = {} if journal is None else journal.counted_by_day(sandbox)
        return share.left_after(own, now // MILLISECONDS_PER_DAY)


def change_pool(path: Path, changes: dict[str, int | None]) -> None:
    """Sets caps, in nano-USD by the fields of `PoolCaps`, None to remove one; makes the pool if it is new.

    Raises UsageError where no cap is left.
    """
    is_new = not path.exists()
    if is_new:
        caps = PoolCaps(None, None)._replace(**changes)
    else:
        with closing(open_pool(path)) as pool:
            caps = pool.change_caps(changes)
    if caps == PoolCaps(None, None):
        raise UsageError(f"The pool {path} needs a cap.\nNext: batchrun pool {quote(str(path))} --usd 20")
    if is_new:
        make_pool(path, caps)


def pool_report(path: Path, *, sandbox: bool) -> dict[str, Any]:
    """Returns a pool's caps and what it counts, in USD, as JSON-able values."""
    with closing(open_pool(path)) as pool:
        state, members = _state(pool, sandbox)
    jobs = [
        {
            "journal": member.journal,
            "replaced": member.retired > 0,
            "counted": usd(member.counted),
            "counted_today": usd(member.today),
        }
        for member in members
    ]
    return {**state, "jobs": jobs}


def _state(pool: Pool, sandbox: bool) -> tuple[dict[str, Any], list[PoolMember]]:
    day = milliseconds() // MILLISECONDS_PER_DAY
    caps, members = pool.caps(), pool.members(day, sandbox=sandbox)
    counted, today = sum(member.counted for member in members), sum(member.today for member in members)
    state = {
        "path": str(pool.path),
        "usd": None if caps.life is None else usd(caps.life),
        "usd_per_day": None if caps.per_day is None else usd(caps.per_day),
        "sandbox": sandbox,
        "counted": usd(counted),
        "counted_today": usd(today),
        "left": usd(max(0, caps.left(counted, today)[0])),
    }
    return state, members
