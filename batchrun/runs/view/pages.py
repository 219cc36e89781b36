"""The live pages as plain values: functions of what is known, apart from HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from batchrun.clock import instant
from batchrun.errors import BatchrunError
from batchrun.job.adjusting import ADJUSTABLE, value_text
from batchrun.job.spec import Job
from batchrun.rows.result import STATUSES
from batchrun.runs.by_hand import Remark
from batchrun.runs.reading import ReadableRow, cell_text
from batchrun.runs.report.blocks import seconds_text, usd
from batchrun.runs.report.charts import bar, number
from batchrun.runs.report.facts import Facts, RunFacts
from batchrun.runs.report.reading_part import row_values
from batchrun.runs.report.write import page_values, run_values
from batchrun.runs.status import state_of
from batchrun.runs.view.table import ROWS_OF_A_PAGE, Choice, RowsFile

Values = dict[str, Any]

MOST_BYTES_OF_A_TEXT = 500_000
MOST_OF_A_LINE = 160
MOST_OF_AN_ANSWER = 60


def job_line(number_of: int, name: str, state: RunFacts | None, error: str | None) -> Values:
    """Returns a job's line in the table of jobs."""
    line: Values = {
        "number": number_of,
        "name": name,
        "state": "not run yet",
        "level": "note",
        "error": error,
    }
    if error is not None:
        return line | {"state": "can't be read", "level": "warning"}
    if state is None or state.status["last_run"] is None:
        return line
    status, rows = state.status, state.rows
    code, running = status["last_run"]["exit_code"], status["running"]
    spent, cap = status["usd"]["settled"] + status["usd"]["uncertain"], status["usd"]["budget"]
    ended = rows["ok"] + rows["invalid"] + rows["failed"]
    to_go = status["seconds_to_go"]
    return line | {
        "state": state_of(status),
        "level": "running" if running else "good" if code == 0 else "warning",
        "sandbox": state.sandbox,
        "rows": f"{number(ended)} of {number(rows['total'])}" if rows["total"] else number(ended),
        "done": bar(ended / rows["total"]) if rows["total"] else "",
        "faults": [f"{number(rows[kind])} {kind}" for kind in ("failed", "invalid") if rows[kind]],
        "spent": usd(spent) if cap is None else f"{number(spent)} of {usd(cap)}",
        "share": bar(spent / cap) if cap else "",
        "rate": f"{number(status['answers_per_minute'])}/min" if running else "",
        "to_go": "" if to_go is None else str(timedelta(seconds=round(to_go))),
    }


def live_values(state: RunFacts, facts: Facts | None) -> Values:
    """Returns what changes each second on a job's page: the run. `facts` are of the last full look."""
    shown = state
    if facts is not None and _is_final(state, facts):
        shown = facts  # its charts have finer intervals
    elif facts is not None and (evaluation := facts.findings.get("evaluation")) is not None:
        shown = replace(state, findings=state.findings | {"evaluation": evaluation})
    return run_values(shown) | _age(state, facts)


def _is_final(state: RunFacts, facts: Facts) -> bool:
    """Returns whether nothing was sent since the facts were read."""
    running = state.status["running"] or facts.status["running"]
    return not running and len(facts.runs) == len(state.runs)


def job_values(state: RunFacts, facts: Facts | None, error: BatchrunError | None) -> Values:
    """Returns a job's whole page. Without the `facts`, it has the run alone."""
    live = live_values(state, facts)
    error_text = None if error is None else str(error)
    if facts is None:
        return live | {"error": error_text}
    whole = page_values(facts)
    others = {name: whole[name] for name in ("reading", "pairs", "names")}
    return live | others | {"parts": [*live["parts"], *whole["parts"][1:]], "error": error_text}


def _age(state: RunFacts, facts: Facts | None) -> Values:
    """Returns when all rows were last counted, where that isn't now."""
    running = state.status["running"]
    counted = None if facts is None else instant(facts.made_at)[11:19]
    settings = settings_of(state.shown_job or state.job)
    return {
        "settings": settings,
        "running": running,
        "counted_at": counted,
        "counted": 0 if facts is None else facts.made_at,
    }


def rows_values(
    file: RowsFile,
    choice: Choice,
    page: int,
    found: int,
    rows: Mapping[int, Mapping[str, Any]],
    choices: Mapping[str, Sequence[tuple[str, int]]],
) -> Values:
    """Returns the table of rows: `found` of them in all, those of the page by index.

    `choices` are the values by which the rows may be filtered, with the number of rows.
    """
    pages = pages_of(found)
    first = (page - 1) * ROWS_OF_A_PAGE
    known = {name: [value for value, _ in counts] for name, counts in choices.items()}
    for name in ("status", "reason", "label"):  # a value in the URL that no row has
        if (value := getattr(choice, name)) and value not in known[name]:
            choices = {**choices, name: [*choices[name], (value, 0)]}
    return {
        "choice": choice,
        "query": choice.query(page),
        "download": choice.query(),
        "choices": {
            name: [{"value": value, "text": f"{value} ({number(count)})"} for value, count in counts]
            for name, counts in choices.items()
        },
        "where": [
            {"column": column, "value": value, "query": choice.without(place).query()}
            for place, (column, value) in enumerate(choice.where)
        ],
        "columns": file.columns,
        "can_disagree": any(file.added(name) for name in ("score", "agreement")),
        "heads": _heads(file, choice),
        "has_label": file.added("label") is not None,
        "expected": file.expected is not None,
        "rows": [_line(file, index, row) for index, row in rows.items()],
        "found": f"{number(found)} of {number(file.rows)} rows"
        if found != file.rows
        else f"{number(found)} rows",
        "shown": f"{number(first + 1)}–{number(first + len(rows))}" if rows else "",
        "page": page,
        "pages": number(pages),
        "previous": choice.query(page - 1) if page > 1 else None,
        "next": choice.query(page + 1) if page < pages else None,
        "last": choice.query(pages) if page < pages - 1 else None,
        "first": choice.query() if page > 2 else None,
        "made": instant(file.made_at)[11:19],
    }


def pages_of(found: int) -> int:
    return max(1, -(-found // ROWS_OF_A_PAGE))


def columns_of_page(file: RowsFile) -> list[str]:
    """Returns the columns that the table of rows shows."""
    names = ("status", "error_code", "output", "label", "cost_usd", "latency_ms", "score", "agreement")
    added = [column for column in map(file.added, names) if column is not None]
    expected = [] if file.expected is None else [file.expected]
    return [*added, *expected, *_line_columns(file)]


def _line_columns(file: RowsFile) -> Sequence[str]:
    return file.prompt[:2] or file.input[:1]


def _heads(file: RowsFile, choice: Choice) -> list[Values]:
    heads = [
        ("status", "status"),
        ("label", "label") if file.added("label") else ("output", "answer"),
        ("cost_usd", "cost"),
        ("latency_ms", "latency"),
    ]
    found = []
    for name, title in heads:
        column = file.added(name) or name
        order = None if choice.sort != column else "descending" if choice.descending else "ascending"
        found.append(
            {
                "title": title,
                "order": order or "none",
                "query": choice.sorted_by(column).query(),
                "name": name,
            }
        )
    return found


def _line(file: RowsFile, index: int, row: Mapping[str, Any]) -> Values:
    def added(name: str) -> Any:
        column = file.added(name)
        return None if column is None else row[column]

    label = added("label") if file.added("label") else added("output")
    expected = "" if file.expected is None else cell_text(row[file.expected])
    score, agreement = added("score"), added("agreement")
    cost, latency = added("cost_usd"), added("latency_ms")
    texts = [cell_text(row[name]) for name in _line_columns(file)]
    return {
        "number": index + 1,
        "shown": number(index + 1),
        "status": added("status"),
        "reason": added("error_code") or "",
        "line": _short(" · ".join(text for text in texts if text), MOST_OF_A_LINE),
        "label": _short(cell_text(label), MOST_OF_AN_ANSWER),
        "expected": _short(expected, MOST_OF_AN_ANSWER),
        "differs": (score is not None and score < 1) or (agreement is not None and agreement < 1),
        "cost": usd(cost) if cost else "",
        "latency": seconds_text(latency) if latency is not None else "",
    }


def _short(text: str, most: int) -> str:
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def row_page_values(
    row: ReadableRow,
    remark: Remark | None,
    choice: Choice,
    beside: tuple[int | None, int | None] = (None, None),
    *,
    shared: bool = False,
) -> Values:
    """Returns a row's page. `beside` are the indexes of the rows before and after it in the chosen order.

    `shared`: an earlier row bought the answer. `remark` is None for a row that nobody can correct.
    """
    before, after = beside
    if shared and row["answer"] is not None:
        row = row | {"shared": True, "cost_usd": 0.0, "input_tokens": 0, "output_tokens": 0}
    return {
        "remark": remark,
        "row": row_values("row", row, MOST_BYTES_OF_A_TEXT),
        "label": row["label"],
        "expected": row["expected"],
        "number": row["row"],
        "query": choice.query(),
        "before": None if before is None else before + 1,
        "after": None if after is None else after + 1,
    }


ALWAYS_SET = ("limits.concurrency", "limits.requests_per_minute", "limits.tokens_per_minute")


def settings_of(job: Job) -> list[Values]:
    """Returns the caps and limits that can be set in a run, with the values in force."""
    values = {key: value_text(job, key) for key in ADJUSTABLE}
    return [
        {"key": key, "value": value or ""}
        for key, value in values.items()
        if value is not None or key in ALWAYS_SET
    ]


def changed_settings(form: Mapping[str, str]) -> list[str]:
    """Returns the assignments in a form of settings: those that differ from `was.KEY`, and `stop=true`."""
    stop = ["stop=true"] if form.get("stop") == "true" else []
    changed = [
        f"{key}={form[key].strip() or 'null'}"
        for key in ADJUSTABLE
        if key in form and form[key].strip() != form.get(f"was.{key}", "").strip()
    ]
    return [*changed, *stop]


def status_counts(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Returns the counts by status in the statuses' own order."""
    found = dict(counts)
    return [(status, found[status]) for status in STATUSES if status in found]
