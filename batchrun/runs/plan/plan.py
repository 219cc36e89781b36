"""Plans what a run would send and cost: without sending, or by sending a random sample of the rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchrun.amounts import usd, usd_text
from batchrun.clock import milliseconds
from batchrun.engine.pricing import PriceList
from batchrun.engine.starting_balance import starting_ledger, starting_price_list
from batchrun.job.spec import Job, output_path, run_folder
from batchrun.journal import Totals, open_for_reading
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.result import FAILED, INVALID, OK
from batchrun.runs.changes import change_since_last_run
from batchrun.runs.output import check_output
from batchrun.runs.paths import check_paths
from batchrun.runs.plan.counts import Counts, RowCounter
from batchrun.runs.plan.estimates import Expected, Figure, expected_of, least_seconds
from batchrun.runs.plan.sample import BottomKSample, RandomOrder, random_order, random_runs
from batchrun.runs.plan.shown import ShownRequests
from batchrun.runs.pool import pool_left, pool_state
from batchrun.runs.run_folder import RunFolder, has_journal
from batchrun.runs.summary import Summary
from batchrun.tables.reader import Table
from batchrun.tables.trial import check_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrun.client.server import Server
    from batchrun.engine.shutdown import ShutdownRequest
    from batchrun.evaluation.sample import SampleTally
    from batchrun.runs.begin import RowSubset
    from batchrun.runs.observers.view import MakeObserver

MOST_SAMPLED = 10_000
"""Most rows of a random sample that are used: more would hardly narrow an interval."""

Plan = dict[str, Any]


@dataclass(frozen=True)
class _Survey:
    """The rows' current state. `draw` has the first rows of the random order, `left` is in nano-USD."""

    dataset: Dataset
    counts: Counts
    price_list: PriceList
    before: Totals
    order: RandomOrder | None
    draw: BottomKSample
    tally: "SampleTally | None"
    left: int | None
    notes: list[str]
    shown: ShownRequests
    pool: dict[str, Any] | None


def plan_job(
    job: Job, *, sandbox: bool = False, table: Table | None = None, wanted: int = 0, show: int = 0
) -> Plan:
    """Returns the plan as JSON-able values.

    `expected` rests on a random sample in the journal, else on the rows in it that have ended, both by the
    lengths of the requests (`intervals` are 95 %), else on a guess: `basis` says which. `worst` is what a run
    reserves at most. `wanted` is the number of sample rows requested, `show` that of random rows whose
    requests are in `shown`, besides the longest. A `table` replaces the job's input. Amounts are in USD and
    tokens, times in seconds. Raises UsageError for whatever a run would refuse.
    """
    return _plan(_survey(job, sandbox, table, wanted, show), wanted)


def plan_by_sample(
    job: Job,
    server: "Server",
    rows: int,
    *,
    table: Table | None = None,
    temporary_output: Path | None = None,
    observers: "Sequence[MakeObserver]" = (),
    shutdown: "ShutdownRequest | None" = None,
    show: int = 0,
) -> tuple[Plan | None, Summary | None]:
    """Returns the plan after sending the first `rows` rows of the random order, as a run does.

    Rows that were sent already are not sent again. Returns the summary of the run too, None if none was
    needed; the plan's `stopped` is its reason if it ended early. A second signal leaves no time for a plan:
    it is None then. `show` is as in `plan_job`. Has the parameters and exceptions of `run_job`.
    """
    from batchrun.engine.shutdown import ShutdownRequest
    from batchrun.runs.run import run_job

    shutdown = shutdown or ShutdownRequest()
    part = _part(_survey(job, server.sandbox, table, rows), rows)
    summary = None
    if part is not None:
        summary = run_job(
            job,
            server,
            table=table,
            temporary_output=temporary_output,
            part=part,
            observers=observers,
            shutdown=shutdown,
        )
    if shutdown.stop is not None and shutdown.stop.immediate:
        return None, summary
    plan = plan_job(job, sandbox=server.sandbox, table=table, wanted=rows, show=show)
    if summary is not None and summary["exit_code"]:
        plan["stopped"] = summary["reason"]
    return plan, summary


def _survey(job: Job, sandbox: bool, table: Table | None, wanted: int, show: int = 0) -> _Survey:
    check_paths(job)
    dataset = open_dataset(job, sandbox=sandbox, table=table)
    check_output(job, output_path(job))
    notes = [*dataset.notes, *check_values(output_path(job), dataset.table)]
    folder = RunFolder(run_folder(job))
    journal = open_for_reading(folder.journal) if has_journal(folder) else None
    try:
        before = journal.totals(sandbox).at_the_end if journal is not None else Totals()
        now = milliseconds()
        in_pool = pool_left(job, journal, sandbox=sandbox, now=now)
        ledger = starting_ledger(job, sandbox, journal, before, now, topped_up=False, pool_left=in_pool)
        runs = frozenset[int]() if journal is None else random_runs(dataset, journal)
        order = random_order(dataset) if wanted or runs else None
        tally = _open_tally(dataset)
        draw = BottomKSample(max(wanted, MOST_SAMPLED))
        price_list = starting_price_list(job, sandbox, before)
        shown = ShownRequests(show, job.output.seed)
        counts = RowCounter(dataset, journal, price_list, order, draw, runs, tally, shown).count()
        if journal is not None:
            change = change_since_last_run(dataset, journal, sandbox=sandbox)
            notes += [] if change is None else [str(change)]
        left, pool = ledger.left("nano_usd"), pool_state(job, journal, sandbox=sandbox)
        return _Survey(dataset, counts, price_list, before, order, draw, tally, left, notes, shown, pool)
    finally:
        if journal is not None:
            journal.close()


def _open_tally(dataset: Dataset) -> "SampleTally | None":
    if dataset.metric is None:
        return None
    from batchrun.evaluation.frame import sampling_frame
    from batchrun.evaluation.sample import SampleTally

    return SampleTally(sampling_frame(dataset), dataset.metric, classes=False)


def _part(survey: _Survey, rows: int) -> "RowSubset | None":
    """Returns the rows to send; None if all have been sent."""
    from batchrun.runs.begin import RowSubset

    if survey.order is None:
        return None
    drawn = survey.draw.rows()[:rows]
    to_ask = [row.row for row in drawn if row.spend is None]
    if not to_ask:
        return None
    note = survey.order.drawn | {"sample": rows}
    return RowSubset(to_ask, msgspec.json.encode(note).decode())


def _plan(survey: _Survey, wanted: int) -> Plan:
    job, counts, price_list = survey.dataset.job, survey.counts, survey.price_list
    drawn = survey.draw.rows()[:wanted]
    clustered = survey.order is not None and survey.order.cluster is not None
    expected = expected_of(
        counts,
        survey.before,
        price_list,
        job.limits,
        survey.draw.sample(),
        sum(not row.duplicate for row in drawn),
        clustered,
    )
    cost = None if expected.nano_usd is None else round(expected.nano_usd.value)
    tokens = expected.input_tokens.value + expected.output_tokens.value
    at_best = least_seconds(job.limits, expected.requests.value, tokens)
    return {
        "rows": _rows(counts),
        "reasons": counts.reasons,
        "expected": _expected(expected),
        "worst": _worst(counts, priced=price_list.priced),
        "budget": _budget(survey, cost),
        **({} if survey.pool is None else {"pool": survey.pool}),
        "caching": counts.cached.as_dict(price_list),
        "seconds_at_best": None if at_best is None else round(at_best, 1),
        "evaluation": _evaluation(survey, cost),
        "stopped": None,
        "notes": [*survey.notes, *counts.unsendable.lines(), *_too_little(survey)],
        "first_request": None if counts.first is None else msgspec.json.decode(counts.first.body),
        "shown": survey.shown.as_list(),
    }


def _rows(counts: Counts) -> dict[str, int]:
    return {
        "total": counts.total,
        "answered": counts.by_status[OK],
        "invalid_labels": counts.by_status[INVALID],
        "failed": counts.by_status[FAILED],
        "duplicates": counts.duplicates,
        "invalid": counts.unsendable.rows,
        "to_send": counts.to_send,
        "half_done": counts.in_progress,
    }


def _worst(counts: Counts, *, priced: bool) -> dict[str, int | float | None]:
    nano_usd = {
        "usd": counts.worst.nano_usd,
        "usd_unrepaired": counts.worst_unrepaired,
        "usd_per_row": counts.worst_row,
        "usd_per_request": counts.worst_request,
        "usd_per_row_unrepaired": counts.worst_first or counts.worst_row,
    }
    return {
        "requests": counts.requests_at_most,
        "tokens": counts.worst.tokens,
        **{key: usd(amount) if priced else None for key, amount in nano_usd.items()},
    }


def _budget(survey: _Survey, cost: int | None) -> dict[str, int | float | None]:
    cap, to_send = survey.dataset.job.budget.nano_usd, survey.counts.to_send
    left = None if cap is None else max(0, cap - survey.before.spend.committed.nano_usd)
    return {
        "usd": None if cap is None else usd(cap),
        "usd_left": None if left is None else usd(left),
        "usd_left_by_all_caps": None if survey.left is None else usd(max(0, survey.left)),
        "rows_expected": _rows_bought(survey.left, cost, to_send),
        "rows_at_worst": _rows_bought(survey.left, survey.counts.worst.nano_usd, to_send),
    }


def _too_little(survey: _Survey) -> list[str]:
    """Where a run would stop before its most expensive request, however cheap the answers are."""
    left, worst = survey.left, survey.counts.worst_request
    if left is None or worst <= left:
        return []
    least = f"the worst case of the most expensive request, {usd_text(worst)}"
    return [f"the caps leave {usd_text(left)}, less than {least}: a run stops before it"]


def _expected(expected: Expected) -> dict[str, Any]:
    cost, seconds = expected.nano_usd, expected.seconds
    intervals = None
    if expected.input_tokens.interval is not None:
        intervals = {
            "requests": _ends(expected.requests),
            "input_tokens": _ends(expected.input_tokens),
            "output_tokens": _ends(expected.output_tokens),
            "usd": None if cost is None else [usd(end) for end in _ends(cost) or ()],
            "seconds": None if seconds is None else _ends(seconds, 1),
        }
    return {
        "requests": round(expected.requests.value),
        "input_tokens": round(expected.input_tokens.value),
        "output_tokens": round(expected.output_tokens.value),
        "usd": None if cost is None else usd(round(cost.value)),
        "seconds": None if seconds is None else round(seconds.value, 1),
        "basis": expected.basis,
        "sample": expected.sample,
        "intervals": intervals,
    }


def _ends(figure: Figure, digits: int | None = None) -> list[Any] | None:
    return None if figure.interval is None else [round(end, digits) for end in figure.interval]


def _rows_bought(left: int | None, whole: int | None, rows: int) -> int | None:
    if left is None or whole is None:
        return None
    return rows if whole <= left else rows * max(0, left) // whole


def _evaluation(survey: _Survey, cost: int | None) -> dict[str, Any] | None:
    if survey.tally is None:
        return None
    from batchrun.runs.plan.forecast import outlook

    to_send = survey.counts.to_send
    per_row = None if cost is None or not to_send else cost / to_send
    worst_per_row = survey.counts.worst.nano_usd / max(to_send, 1)
    return outlook(survey.dataset, survey.tally, survey.left, per_row, worst_per_row)
