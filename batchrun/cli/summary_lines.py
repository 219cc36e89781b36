"""The lines at the end of a run."""

from os.path import relpath
from typing import Any

from batchrun.amounts import usd_figure
from batchrun.cli.evaluation_lines import score_lines
from batchrun.cli.lines import say
from batchrun.cli.pool_lines import pool_line
from batchrun.labels.counting import count_lines
from batchrun.runs.summary import Summary, reason_lines


def print_end(summary: Summary) -> None:
    """Prints a run's end on stderr; the last line says why it ended and what to do next."""
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
    lines += count_lines(summary.get("labels", {}).get("counts", {}))
    lines.append(f"this run  {_amounts(this_run)} in {summary['seconds']:.1f} s")
    if summary["requests"]["sent"] != this_run["requests"]["sent"]:
        lines.append(f"in all    {_amounts(summary)}")
    if pool := summary.get("pool"):
        lines.append(pool_line(pool))
    if caching := summary.get("caching"):
        lines.append(caching_line(caching))
    if saved := summary.get("labels", {}).get("votes_saved"):
        lines.append(f"votes     {saved:,} were not sent, since they could not have changed a label")
    if "evaluation" in summary:
        lines += score_lines(summary["evaluation"])
    lines += _warnings(summary)
    lines += reason_lines(summary.get("reasons", {}))
    lines.append(f"output    {relpath(summary['output'])}{_state_of_output(summary)}")
    if "report" in summary:
        lines.append(f"report    {relpath(summary['report'])}")
    if summary["sandbox"]:
        lines.append("sandbox   No model answered, and nothing was paid: the answers are made up.")
    next_step = f" To go on: {summary['next_step']}." if summary["next_step"] else ""
    lines.append(f"{summary['reason']}{next_step}")
    return lines


def _state_of_output(summary: Summary) -> str:
    if not summary["output_written"]:
        return " was not written"
    return " is unchanged" if summary["output_unchanged"] else ""


def _amounts(part: dict[str, Any]) -> str:
    requests, tokens, usd, used = part["requests"], part["tokens"], part["usd"], part["credits"]
    texts = [_count(requests["sent"], "request")]
    if requests["retried"]:
        texts.append(f"{requests['retried']:,} of them retries")
    texts.append(f"{tokens['input']:,} + {tokens['output']:,} tokens")
    texts.append(
        f"{usd_figure(usd['settled'])} USD"
        + (f" of {usd_figure(usd['budget'])}" if usd["budget"] is not None else "")
    )
    if usd["uncertain"]:
        texts.append(f"at most {usd_figure(usd['uncertain'])} USD more uncertain")
    if used["used"]:
        left = f" ({used['remaining']:,} left)" if used["remaining"] is not None else ""
        texts.append(f"{_count(used['used'], 'credit')}{left}")
    return ", ".join(texts)


def caching_line(caching: dict[str, Any]) -> str:
    """Returns the line about a server's prompt cache."""
    read, written = caching["read_tokens"], caching["write_tokens"]
    tokens = f"caching   {read:,} tokens read from the cache, {written:,} written to it"
    saved = caching["saved_usd"]
    if saved is None:
        return tokens
    verb = "saved" if saved >= 0 else "more than without it"
    return f"{tokens}: {usd_figure(abs(saved))} USD {verb}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _warnings(summary: Summary) -> list[str]:
    lines = []
    errors = summary["this_run"]["requests"]["by_error"]
    if errors:
        kinds = ", ".join(f"{code} x{n:,}" for code, n in sorted(errors.items(), key=lambda item: -item[1]))
        last = f"; the last one: {summary['last_error']}" if summary["last_error"] else ""
        lines.append(f"errors    {kinds}{last}")
    if summary["abandoned_requests"]:
        lines.append(
            f"crash     {summary['abandoned_requests']:,} requests of an earlier run have no known outcome; "
            "they count at their worst case"
        )
    by_balance = summary["uncertain_credits_used"]
    if by_balance is not None:
        lines.append(
            f"account   by its balance, requests without a known outcome used {by_balance:,} credits of the "
            f"{summary['credits']['uncertain']:,} counted for them, if nobody else spends on the key"
        )
    if summary.get("uncertain_freed_usd"):
        lines.append(
            f"account   by its balance, requests without a known outcome were not billed: "
            f"{usd_figure(summary['uncertain_freed_usd'])} USD of the budget is free again"
        )
    if summary["overruns"]:
        lines.append(
            f"prices    {summary['overruns']:,} answers cost more than their worst case by [pricing]: "
            "raise the prices there"
        )
    return lines
