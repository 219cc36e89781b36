"""What a run says at its end, and a look at the output."""

import re
from os.path import relpath
from pathlib import Path
from typing import Any

from batchrun.cli.evaluation_lines import score_lines
from batchrun.cli.lines import say
from batchrun.job import Job
from batchrun.plain_text import on_one_line
from batchrun.summary import Summary

LONGEST_UNCUT = 14
"""Columns of the preview that are no wider than this are shown whole; the others share the rest."""


def print_end(summary: Summary) -> None:
    """The end of a run, on stderr; the last line says why it ended and what to do next."""
    for line in end_lines(summary):
        say(line, err=True)


def end_lines(summary: Summary) -> list[str]:
    rows, this_run = summary["rows"], summary["this_run"]
    lines = []
    if rows["pending"] is not None:
        counts = [
            f"{rows[status]:,} {status}" for status in ("ok", "invalid", "failed", "pending") if rows[status]
        ]
        shared = f" ({rows['shared']:,} share another row's answer)" if rows["shared"] else ""
        lines.append(f"rows      {', '.join(counts) or 'none'} of {rows['total']:,}{shared}")
    lines.append(f"this run  {_amounts(this_run)} in {summary['seconds']:.1f} s")
    if summary["requests"]["sent"] != this_run["requests"]["sent"]:
        lines.append(f"in all    {_amounts(summary)}")
    if saved := summary.get("labels", {}).get("votes_saved"):
        lines.append(f"votes     {saved:,} were not asked, since they could have changed no label")
    if "evaluation" in summary:
        lines += score_lines(summary["evaluation"])
    lines += _warnings(summary)
    not_written = "" if summary["output_written"] else " was not written"
    lines.append(f"output    {relpath(summary['output'])}{not_written}")
    if summary["sandbox"]:
        lines.append("sandbox   No model answered, and nothing was paid: the answers are made up.")
    go_on = f" To go on: {summary['go_on']}." if summary["go_on"] else ""
    lines.append(f"{summary['reason']}{go_on}")
    return lines


def _amounts(part: dict[str, Any]) -> str:
    requests, tokens, usd, used = part["requests"], part["tokens"], part["usd"], part["credits"]
    texts = [_count(requests["sent"], "request")]
    if requests["retried"]:
        texts.append(f"{requests['retried']:,} of them retries")
    texts.append(f"{tokens['input']:,} + {tokens['output']:,} tokens")
    texts.append(
        f"{usd['settled']:.6g} USD" + (f" of {usd['budget']:g}" if usd["budget"] is not None else "")
    )
    if usd["uncertain"]:
        texts.append(f"at most {usd['uncertain']:.6g} USD more uncertain")
    if used["used"]:
        left = f" ({used['remaining']:,} left)" if used["remaining"] is not None else ""
        texts.append(f"{_count(used['used'], 'credit')}{left}")
    return ", ".join(texts)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _warnings(summary: Summary) -> list[str]:
    lines = []
    errors = summary["this_run"]["requests"]["by_error"]
    if errors:
        kinds = ", ".join(f"{code} x{n:,}" for code, n in sorted(errors.items(), key=lambda item: -item[1]))
        last = f"; the last one: {summary['last_error']}" if summary["last_error"] else ""
        lines.append(f"errors    {kinds}{last}")
    if summary["given_up"]:
        lines.append(
            f"crash     {summary['given_up']:,} requests of an earlier run have no known outcome; "
            "they count at their worst case"
        )
    by_balance = summary["uncertain_credits_used"]
    if by_balance is not None:
        lines.append(
            f"account   by its balance, requests without a known outcome used {by_balance:,} credits of the "
            f"{summary['credits']['uncertain']:,} counted for them, if nobody else spends on the key"
        )
    if summary["overruns"]:
        lines.append(
            f"prices    {summary['overruns']:,} answers cost more than their worst case by [pricing]: "
            "raise the prices there"
        )
    return lines


def print_preview(job: Job, path: Path, most: int) -> None:
    """Some rows of the output on stderr: the columns of the template, the answer and the label."""
    from batchrun.output_columns import AddedColumns
    from batchrun.tables.reader import open_table, python_rows
    from batchrun.workload import labelling_of

    prefix, added = job.output.prefix, AddedColumns(labelling_of(job), job.evaluation is not None)
    of_batchrun = {prefix + name for name in added.schema.names}
    labels = [field.name for field in added.label_fields() if field.name != "samples"]
    shown = {prefix + name for name in ("status", "output", "cost_usd", *labels)}
    table = open_table(str(path), path.parent)
    asked = f"{job.prompt.template} {job.prompt.messages}"
    names = [
        name for name in table.schema.names if name in shown or (name not in of_batchrun and _in(asked, name))
    ]
    for batch in table.batches(names, most):
        _print_rows(names, python_rows(batch))
        return


def _in(template: str, column: str) -> bool:
    return re.search(rf"\b{re.escape(column)}\b", template) is not None


def _print_rows(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False, expand=True)
    cells = [[on_one_line(_cell(value)) for value in row] for row in rows]
    for position, name in enumerate(names):
        longest = max(len(text) for text in (name, *(row[position] for row in cells)))
        short = longest <= LONGEST_UNCUT
        table.add_column(
            on_one_line(name),
            overflow="ellipsis",
            no_wrap=True,
            width=longest if short else None,
            ratio=None if short else 1,
        )
    for row in cells:
        table.add_row(*row)
    Console(stderr=True, markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
