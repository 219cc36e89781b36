"""What a run would send and cost: without sending anything, or by asking for a random sample of the rows."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchrun.amounts import usd
from batchrun.books import milliseconds
from batchrun.job import Job, output_path, run_folder
from batchrun.journal import Totals, open_for_reading
from batchrun.opening import open_ledger, opening_tariff
from batchrun.output_columns import FAILED, INVALID, OK
from batchrun.planning.counting import Counts, RowCounter
from batchrun.planning.drawing import Draw, RandomOrder, random_order, random_runs
from batchrun.planning.estimating import Expected, Figure, expected_of, least_seconds
from batchrun.pricing import Tariff
from batchrun.run_folder import RunFolder
from batchrun.summary import Summary
from batchrun.tables.reader import Table
from batchrun.tables.writer import check_writable
from batchrun.workload import Workload, open_workload

if TYPE_CHECKING:
    from batchrun.interruption import Interruption
    from batchrun.pipeline import Part, Target, Watch
    from batchrun.sampling.sample import SampleTally

MOST_SAMPLED = 10_000
"""Rows of a random sample that are looked at: more would make an interval little narrower."""

Plan = dict[str, Any]


@dataclass(frozen=True)
class _Survey:
    """The rows as they stand. `draw` has the first rows of the random order, `left` is in nano-USD."""

    workload: Workload
    counts: Counts
    tariff: Tariff
    before: Totals
    order: RandomOrder | None
    draw: Draw
    tally: "SampleTally | None"
    left: int | None


def plan_job(job: Job, *, sandbox: bool = False, table: Table | None = None, wanted: int = 0) -> Plan:
    """The plan as JSON-able values.

    `expected` rests on a random sample in the journal (`intervals` are 95 % then), else on the answers in it,
    else on a guess: `basis` says which. `worst` is what a run reserves at most. `wanted` rows were asked for
    as a sample. A `table` takes the place of the job's input. Amounts are in USD and tokens, times in
    seconds. Raises UsageError for whatever a run would refuse.
    """
    return _plan(_survey(job, sandbox, table, wanted), wanted)


def plan_by_sample(
    job: Job,
    target: "Target",
    rows: int,
    *,
    table: Table | None = None,
    scratch: Path | None = None,
    watch: "Watch" = lambda _: nullcontext(),
    interruption: "Interruption | None" = None,
) -> tuple[Plan | None, Summary | None]:
    """The plan, after the first `rows` rows of the random order have been asked for, as a run does it.

    Those that have been asked for already are not sent again. Returns the summary of the run too, None where
    none was needed; the plan's `stopped` is its reason, where it ended early. A second signal leaves no time
    for a plan: it is None then. Parameters and what is raised are those of `run_job`.
    """
    from batchrun.interruption import Interruption
    from batchrun.pipeline import run_job

    interruption = interruption or Interruption()
    part = _part(_survey(job, target.sandbox, table, rows), rows)
    summary = None
    if part is not None:
        summary = run_job(
            job, target, table=table, scratch=scratch, part=part, watch=watch, interruption=interruption
        )
    if interruption.stop is not None and interruption.stop.at_once:
        return None, summary
    plan = plan_job(job, sandbox=target.sandbox, table=table, wanted=rows)
    if summary is not None and summary["exit_code"]:
        plan["stopped"] = summary["reason"]
    return plan, summary


def _survey(job: Job, sandbox: bool, table: Table | None, wanted: int) -> _Survey:
    workload = open_workload(job, sandbox=sandbox, table=table)
    check_writable(output_path(job), workload.schema)
    path = RunFolder(run_folder(job)).journal
    journal = open_for_reading(path) if path.exists() else None
    try:
        before = journal.totals(sandbox) if journal is not None else Totals()
        ledger = open_ledger(job, sandbox, journal, before, milliseconds(), topped_up=False)
        runs = frozenset[int]() if journal is None else random_runs(workload, journal)
        order = random_order(workload) if wanted or runs else None
        tally = _open_tally(workload)
        draw = Draw(max(wanted, MOST_SAMPLED))
        tariff = opening_tariff(job, sandbox, before)
        counts = RowCounter(workload, journal, tariff, order, draw, runs, tally).count()
        return _Survey(workload, counts, tariff, before, order, draw, tally, ledger.left("nano_usd"))
    finally:
        if journal is not None:
            journal.close()


def _open_tally(workload: Workload) -> "SampleTally | None":
    if workload.metric is None:
        return None
    from batchrun.sampling.frame import sampling_frame
    from batchrun.sampling.sample import SampleTally

    return SampleTally(sampling_frame(workload), workload.metric, classes=False)


def _part(survey: _Survey, rows: int) -> "Part | None":
    """The rows to ask for; None where all have been."""
    from batchrun.pipeline import Part

    if survey.order is None:
        return None
    drawn = survey.draw.rows()[:rows]
    to_ask = [row.row for row in drawn if row.spend is None]
    if not to_ask:
        return None
    note = survey.order.drawn | {"sample": rows}
    return Part(to_ask, msgspec.json.encode(note).decode())


def _plan(survey: _Survey, wanted: int) -> Plan:
    job, counts, tariff = survey.workload.job, survey.counts, survey.tariff
    drawn = survey.draw.rows()[:wanted]
    clustered = survey.order is not None and survey.order.cluster is not None
    expected = expected_of(
        counts,
        survey.before,
        tariff,
        job.limits,
        survey.draw.sample(),
        sum(not row.duplicate for row in drawn),
        clustered,
    )
    cost = None if expected.nano_usd is None else round(expected.nano_usd.value)
    cap = job.budget.nano_usd
    left = None if cap is None else max(0, cap - survey.before.spend.committed.nano_usd)
    tokens = expected.input_tokens.value + expected.output_tokens.value
    at_best = least_seconds(job.limits, expected.requests.value, tokens)
    return {
        "rows": {
            "total": counts.total,
            "answered": counts.by_status[OK],
            "invalid_labels": counts.by_status[INVALID],
            "failed": counts.by_status[FAILED],
            "duplicates": counts.duplicates,
            "invalid": counts.unsendable,
            "to_send": counts.to_send,
            "half_done": counts.half_done,
        },
        "expected": _expected(expected),
        "worst": {
            "requests": counts.requests_at_most,
            "tokens": counts.worst.tokens,
            "usd": usd(counts.worst.nano_usd) if tariff.priced else None,
            "usd_per_row": usd(counts.dearest_row) if tariff.priced else None,
            "usd_per_request": usd(counts.dearest_request) if tariff.priced else None,
        },
        "budget": {
            "usd": None if cap is None else usd(cap),
            "usd_left": None if left is None else usd(left),
            "rows_expected": _rows_bought(left, cost, counts.to_send),
            "rows_at_worst": _rows_bought(left, counts.worst.nano_usd, counts.to_send),
        },
        "seconds_at_best": None if at_best is None else round(at_best, 1),
        "evaluation": _evaluation(survey, cost),
        "stopped": None,
        "first_request": None if counts.first is None else msgspec.json.decode(counts.first.body),
    }


def _expected(expected: Expected) -> dict[str, Any]:
    cost, seconds = expected.nano_usd, expected.seconds
    intervals = None
    if expected.sample:
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
    return rows if whole <= left else rows * left // whole


def _evaluation(survey: _Survey, cost: int | None) -> dict[str, Any] | None:
    if survey.tally is None:
        return None
    from batchrun.planning.pilot import outlook

    to_send = survey.counts.to_send
    per_row = None if cost is None or not to_send else cost / to_send
    worst_per_row = survey.counts.worst.nano_usd / max(to_send, 1)
    return outlook(survey.workload, survey.tally, survey.left, per_row, worst_per_row)
