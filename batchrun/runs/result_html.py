"""A run's summary as a small table of HTML, for notebooks."""

from html import escape

from batchrun.amounts import usd_figure
from batchrun.runs.summary import Summary, reason_lines

_STATUSES = ("ok", "invalid", "failed", "pending")


def summary_html(summary: Summary) -> str:
    """Returns the numbers of the summary, whatever ended the run; every text is escaped."""
    left = 'style="text-align:left"'
    rows = (
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
        for name, text in _lines(summary)
    )
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _lines(summary: Summary) -> list[tuple[str, str]]:
    rows, requests, tokens = summary["rows"], summary["requests"], summary["tokens"]
    counts = [f"{rows[status]:,} {status}" for status in _STATUSES if rows[status]]
    total = "" if rows["total"] is None else f" of {rows['total']:,}"
    lines = [
        ("rows", f"{', '.join(counts) or 'none'}{total}"),
        ("requests", f"{requests['sent']:,} sent, {requests['retried']:,} of them retries"),
        ("tokens", f"{tokens['input']:,} in, {tokens['output']:,} out"),
        ("USD", _usd(summary)),
    ]
    if (evaluation := summary.get("evaluation")) is not None:
        lines.append((evaluation["score"], _score(evaluation)))
    reasons = reason_lines(summary.get("reasons") or {})
    lines += [("reasons", line.removeprefix("reasons").strip()) for line in reasons]
    if summary.get("output"):
        lines.append(("output", summary["output"] if summary["output_written"] else "was not written"))
    if summary.get("sandbox"):
        lines.append(("sandbox", "No model answered, and nothing was paid: the answers are made up."))
    next_step = f" To go on: {summary['next_step']}." if summary["next_step"] else ""
    return [*lines, ("end", f"{summary['reason']}{next_step}")]


def _usd(summary: Summary) -> str:
    usd = summary["usd"]
    cap = "" if usd["budget"] is None else f" of {usd_figure(usd['budget'])}"
    uncertain = f", at most {usd_figure(usd['uncertain'])} more uncertain" if usd["uncertain"] else ""
    return f"{usd_figure(usd['settled'])}{cap}{uncertain}"


def _score(evaluation: Summary) -> str:
    if evaluation["estimate"] is None:
        return "none yet"
    low, high = evaluation["interval"]
    return f"{evaluation['estimate']:.4g}, 95 % interval {low:.4g} to {high:.4g}, of {evaluation['n']:,} rows"
