"""The lines about a budget that several jobs share."""

from pathlib import Path
from typing import Any

from batchrun.amounts import usd_figure


def pool_line(pool: dict[str, Any]) -> str:
    """Returns the line of a job's pool: what counts, of which caps, what is left, what is only claimed."""
    if "error" in pool:
        return f"pool      {pool['error']}"
    parts = []
    if pool["usd"] is not None:
        parts.append(f"{usd_figure(pool['counted'])} of {usd_figure(pool['usd'])} USD")
    if pool["usd_per_day"] is not None:
        parts.append(f"{usd_figure(pool['counted_today'])} of {usd_figure(pool['usd_per_day'])} USD today")
    held = ""
    if pool.get("held"):
        held = f"; {usd_figure(pool['held'])} USD claimed by this job's run, until it or the next one ends"
    kind = "; of sandbox runs alone" if pool["sandbox"] else ""
    name = Path(pool["path"]).name
    return f"pool      {', '.join(parts)} in {name}, {usd_figure(pool['left'])} USD left{held}{kind}"


def pool_lines(report: dict[str, Any]) -> list[str]:
    """Returns a pool for people: a line for all, and one for each job's journal."""
    lines = [pool_line(report)]
    for job in report["jobs"]:
        today = f", {usd_figure(job['counted_today'])} today" if job["counted_today"] else ""
        replaced = " (before an older copy replaced it)" if job["replaced"] else ""
        lines.append(f"job       {usd_figure(job['counted'])} USD{today}: {job['journal']}{replaced}")
    return lines
