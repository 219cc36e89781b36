"""The part "Run": how it ended, rows by status, spend and pace over time, failures of attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchrun.amounts import NANO
from batchrun.clock import instant
from batchrun.journal.timeline import RunRecord
from batchrun.rows.result import STATUSES
from batchrun.runs.report.blocks import Block, bars, chart, percent, significant, table, usd
from batchrun.runs.report.charts import Axes, Level, Series, number, time_scale, up_to
from batchrun.runs.report.facts import Facts, RunFacts
from batchrun.runs.report.timeline import Timeline
from batchrun.runs.summary import as_it_stands

FAR = 10
"""A cap of more than this many times the spend is not in the chart: it would make a flat line of the rest."""


def banner(facts: RunFacts) -> dict[str, str | None]:
    """Returns why the last run ended and what to do next, with a level for its color."""
    last = facts.status["last_run"]
    stands = as_it_stands(facts.rows, facts.findings["reasons"])
    if facts.status["running"]:
        return {"level": "note", "reason": "A run is going on.", "next_step": None}
    reason = (last and last["reason"]) or "The last run ended without a record."
    level = "good" if stands.exit_code == 0 else "warning"
    return {"level": level, "reason": reason, "next_step": facts.next_step or stands.next_step}


def tiles(facts: RunFacts) -> list[dict[str, str]]:
    """Returns the few numbers at the top."""
    rows, spent, requests = facts.rows, facts.status["usd"], facts.status["requests"]
    budget = (facts.shown_job or facts.job).budget.nano_usd
    cap = "" if budget is None else f" of {number(budget / NANO)}"
    found = [
        (number(rows["ok"]), f"of {number(rows['total'])} rows ok"),
        (usd(spent["settled"]), f"settled{cap}"),
    ]
    if spent["uncertain"]:
        found.append((usd(spent["uncertain"]), "uncertain"))
    if spent["reserved"]:
        found.append((usd(spent["reserved"]), "reserved"))
    evaluation = facts.findings.get("evaluation")
    if evaluation and evaluation["estimate"] is not None:
        low, high = evaluation["interval"]
        found.append((f"{evaluation['estimate']:.3f}", f"{evaluation['score']}, {low:.3f}–{high:.3f}"))
    found.append((number(requests["retried"]), f"retries in {number(requests['sent'])} requests"))
    return [{"value": value, "name": name} for value, name in found]


def run_blocks(facts: RunFacts) -> list[Block]:
    """Returns the part's blocks."""
    return [*_row_blocks(facts), *_charts(facts), *_adjustments(facts), *_failures(facts)]


def _row_blocks(facts: RunFacts) -> Iterator[Block]:
    rows = facts.rows
    shared = f"{number(rows['shared'])} rows share another row's answer." if rows["shared"] else None
    counts = [
        (status, rows[status], [rows[status], percent(rows[status] / (rows["total"] or 1))])
        for status in STATUSES
    ]
    yield bars("Rows by status", ["status", "rows", "share"], counts, shared)
    reasons = sorted(facts.findings["reasons"].items(), key=lambda item: -item[1]["rows"])
    if reasons:
        yield bars(
            "Rows by reason",
            ["reason", "rows", "first row"],
            [(code, reason["rows"], [reason["rows"], reason.get("example")]) for code, reason in reasons],
        )


def _charts(facts: RunFacts) -> Iterator[Block]:
    series, run = facts.timeline, facts.shown_run
    if series is None or run is None:
        return
    unit, scaled = time_scale(series.ends[-1])
    xs = [scaled(end) for end in series.ends]
    name = f"{unit} of run {run.run}"
    yield _spend(facts, series, xs, name)
    yield _pace(facts, series, xs, name)
    yield _in_flight(facts, series, xs, name)
    if facts.course is not None and facts.course.held:
        yield bars(
            "What held the next request back",
            ["cause", "share of the time"],
            [(cause, share, [percent(share)]) for cause, share in facts.course.held.items()],
        )


def _in_flight(facts: RunFacts, series: Timeline, xs: list[float], name: str) -> Block:
    axes = Axes((0, xs[-1]), (0, up_to(series.in_flight, 1)), name)
    most = (facts.shown_job or facts.job).limits.concurrency
    levels = [Level("concurrency", "c-cap", most)] if most <= axes.y[1] else []
    lines = [Series("reserved for", "c-4", [*map(float, series.in_flight)])]
    if facts.course is not None:
        lines.append(Series("on the wire", "c-3", facts.course.on_wire))
    note = "Reserved for: in the journal, so that some of them still wait for their turn."
    return chart("Requests in flight", xs, lines, axes, levels, note)


def _spend(facts: RunFacts, series: Timeline, xs: list[float], name: str) -> Block:
    settled = series.settled
    committed = [a + b for a, b in zip(settled, series.uncertain, strict=True)]
    lines = [Series("settled", "c-1", settled, [0.0] * len(xs))]
    if series.uncertain[-1]:
        lines.append(Series("+ uncertain", "c-2", committed, settled))
    reserved = _reserved(facts, series, committed)
    if reserved is not None:
        lines.append(reserved)
    highest = max([*committed, *(value for each in lines for value in each.values if value is not None)])
    caps = [Level("cap", "c-cap", cap) for cap in _caps(facts) if cap <= FAR * max(highest, 1e-9)]
    notes = [_forecast(facts)]
    if reserved is not None and reserved.dashed:
        notes.append("Reserved: requests in flight times the mean worst case of a request.")
    lines, xs = _with_forecast(facts, series, lines, xs, committed[-1])
    ends = [value for each in lines for value in each.values if value is not None]
    axes = Axes((0, xs[-1]), (0, up_to([highest, *ends, *(cap.value for cap in caps)])), name)
    return chart("Spend, USD", xs, lines, axes, caps, " ".join(filter(None, notes)) or None)


def _with_forecast(
    facts: RunFacts, series: Timeline, lines: list[Series], xs: list[float], spent: float
) -> tuple[list[Series], list[float]]:
    """Adds a line to where the spend is heading: to the last row, or for as long again as the run took."""
    left = _left(facts)
    if left is None or not left.seconds:
        return lines, xs
    share = min(1.0, series.ends[-1] / left.seconds)
    end = xs[-1] * (1 + share * left.seconds / series.ends[-1])
    longer = [
        replace(each, values=[*each.values, None], base=None if each.base is None else [*each.base, 0.0])
        for each in lines
    ]
    values = [*[None] * (len(xs) - 1), spent, spent + share * left.usd]
    return [*longer, Series("forecast", "c-1", values, dashed=True)], [*xs, end]


def _reserved(facts: RunFacts, series: Timeline, committed: list[float]) -> Series | None:
    """Returns the spend with what was reserved: by the run's samples, else by an estimate."""
    if facts.course is not None:
        return Series("+ reserved", "c-5", facts.course.committed)
    if not (worst := facts.usd_at_worst):
        return None
    values = [spent + flying * worst for spent, flying in zip(committed, series.in_flight, strict=True)]
    return Series("+ reserved (estimated)", "c-5", values, dashed=True)


def _caps(facts: RunFacts) -> Iterator[float]:
    """Yields the caps in USD, in terms of the spend over the journal's life."""
    budget, run = (facts.shown_job or facts.job).budget, facts.shown_run
    if budget.usd is not None:
        yield float(budget.usd)
    if budget.usd_per_run is not None and run is not None:
        earlier = [each for each in facts.runs if each.run < run.run]
        before = sum(each.nano_usd + each.uncertain_nano_usd for each in earlier) / 10**9
        yield before + float(budget.usd_per_run)


@dataclass(frozen=True, slots=True)
class _Left:
    """What the `rows` that are pending would cost and take; `seconds` None where no pace is known."""

    rows: int
    usd: float
    seconds: float | None


def _left(facts: RunFacts) -> _Left | None:
    """Reckons with the mean cost of the rows that have ended, and with this run's pace."""
    pending, run = facts.rows["pending"], facts.shown_run
    ended = facts.rows["total"] - pending
    spent = facts.status["usd"]["settled"] + facts.status["usd"]["uncertain"]
    if not pending or not ended or not spent or run is None or facts.timeline is None:
        return None
    seconds = pending * facts.timeline.ends[-1] / facts.rows_of_run if facts.rows_of_run else None
    return _Left(pending, spent / ended * pending, seconds)


def _forecast(facts: RunFacts) -> str | None:
    left = _left(facts)
    if left is None:
        return None
    cost = f"The {number(left.rows)} pending rows would cost about {usd(left.usd)} at the mean so far"
    if left.seconds is None:
        return f"{cost}."
    unit, scaled = time_scale(left.seconds)
    return f"{cost}, and take about {number(significant(scaled(left.seconds), 2))} {unit} at this run's pace."


def _pace(facts: RunFacts, series: Timeline, xs: list[float], name: str) -> Block:
    lines = [Series("answers/s", "c-3", series.answered)]
    if any(series.refused):
        lines.append(Series("refused/s (429)", "c-6", series.refused))
    highest = up_to([*series.answered, *series.refused])
    levels = []
    limits = [] if facts.course is None else facts.course.limit
    known = [limit for limit in limits if limit is not None]
    given = (facts.shown_job or facts.job).limits.requests_per_minute
    if known and max(known) <= FAR * highest:
        lines.append(Series("limit", "c-cap", limits, dashed=True))
    elif not known and given is not None and given / 60 <= FAR * highest:
        levels = [Level("limit", "c-cap", given / 60)]
    shown = [value for each in lines for value in each.values if value is not None]
    top = up_to([highest / 1.05, *shown, *(level.value for level in levels)])
    return chart("Answers and refusals per second", xs, lines, Axes((0, xs[-1]), (0, top), name), levels)


def _adjustments(facts: RunFacts) -> Iterator[Block]:
    if not facts.adjustments:
        return
    rows = [
        [each["at"][:19].replace("T", " "), each["author"], key, old or "none", new, each["refused"] or "yes"]
        for each in facts.adjustments
        for key, (old, new) in each["settings"].items()
    ]
    yield table(
        f"Set while run {facts.adjustments[0]['run']} was going on",
        ["at, UTC", "by", "key", "before", "after", "taken"],
        rows,
    )


def _failures(facts: RunFacts) -> Iterator[Block]:
    if facts.failures:
        yield bars(
            "Attempts without an answer",
            ["kind", "attempts", "final", "example"],
            [
                (kind.error_code, kind.attempts, [kind.attempts, kind.final, kind.example[:160]])
                for kind in facts.failures
            ],
            "A final one ended its row; the others were sent again.",
        )


def _end_of(run: RunRecord, facts: RunFacts) -> str:
    if run.finished_at is None and facts.status["running"] and run is facts.runs[-1]:
        return "going on"
    return run.reason or "no record"


def runs_blocks(facts: Facts, changes: Sequence[str]) -> list[Block]:
    """Returns the part "Runs": each run of this output. `changes` says what changed in each."""
    scores = facts.tally.by_run
    head = ["run", "started, UTC", "changed", "requests", "answers", "USD", "code", "end"]
    scored = any(group.scored for group in scores.values())
    rows: list[list[Any]] = []
    for run, change in zip(facts.runs, changes, strict=True):
        group = scores.get(run.run)
        score = None if group is None or not group.scored else f"{group.score / group.scored:.3f}"
        cost = (run.nano_usd + run.uncertain_nano_usd) / 10**9
        cells = [str(run.run), instant(run.started_at)[:16].replace("T", " "), change, run.requests]
        cells += [run.answered, cost, run.exit_code, _end_of(run, facts)]
        rows.append([*cells, *([score] if scored else [])])
    note = "The score is that of the rows whose last request the run sent." if scored else None
    return [table("Runs of this output", [*head, *(["score"] if scored else [])], rows, note)]
