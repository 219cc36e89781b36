"""`batchrun plan`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import LOCAL_HELP, job_options, load, target_of
from batchrun.cli.lines import say
from batchrun.text import single_line

if TYPE_CHECKING:
    from batchrun.runs.plan.plan import Plan
    from batchrun.runs.summary import Summary


MOST_SHOWN = 1_000
"""Most random rows whose requests are shown: they are in memory together."""


@click.command("plan")
@job_options
@click.option(
    "--sample",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Send N random rows, as a run would, and estimate from them. A later run doesn't send them again.",
)
@click.option(
    "--show",
    default=0,
    type=click.IntRange(0, MOST_SHOWN),
    metavar="N",
    help="Print the requests of N random rows and the longest one, instead of the first.",
)
@click.option("--sandbox", is_flag=True, help="Plan a run with the sandbox, at the provider's prices.")
@click.option(
    "--sandbox-replies",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reply file of the sandbox, for --sample.",
)
@click.option(
    "--sandbox-latency",
    default=0.0,
    metavar="SECONDS",
    help="Median latency of the sandbox, for --sample.",
)
@click.option("--local", is_flag=True, help=LOCAL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on stdout.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing about the sampling unless something needs attention."
)
def plan_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sample: int,
    show: int,
    sandbox: bool,
    sandbox_replies: Path | None,
    sandbox_latency: float,
    local: bool,
    as_json: bool,
    quiet: bool,
    **shortcuts: Any,
) -> int:
    """Show what a run would send and cost. Sends nothing without --sample.

    \b
    batchrun plan reviews.toml
    batchrun plan reviews.toml --sample 50
    batchrun plan reviews.toml --show 3
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.plan_lines import plan_lines, request_lines
        from batchrun.runs.paths import check_paths
        from batchrun.runs.plan.plan import plan_by_sample, plan_job

    check_paths(job, read={"the sandbox's replies, --sandbox-replies": sandbox_replies})
    plan: Plan | None
    if not sample:
        plan, summary = plan_job(job, sandbox=sandbox, show=show), None
    else:
        from batchrun.runs.observers.terminal import Display

        with target_of(job, dict(os.environ), sandbox, sandbox_replies, sandbox_latency, local) as server:
            observers = () if quiet else (Display,)
            plan, summary = plan_by_sample(job, server, sample, observers=observers, show=show)
    if as_json and plan is not None:
        import msgspec

        click.echo(msgspec.json.encode(plan).decode())
    elif plan is not None:
        for line in plan_lines(plan):
            say(line)
        for line in request_lines(plan) if show or not plan["stopped"] else ():
            click.echo(single_line(line))
    if summary is not None:
        _tell_end(summary, plan, quiet)
    return 0 if summary is None else summary["exit_code"]


def _tell_end(summary: "Summary", plan: "Plan | None", quiet: bool) -> None:
    """Prints on stderr how the sampling ended."""
    from batchrun.amounts import usd_figure

    if quiet and not summary["needs_attention"]:
        return
    spent, made_up = (
        summary["this_run"]["usd"]["settled"],
        "; no model answered" if summary["sandbox"] else "",
    )
    requests = summary["this_run"]["requests"]["sent"]
    say(f"sample    {requests:,} requests, {usd_figure(spent)} USD{made_up}", err=True)
    of_part = ""
    if plan is not None and plan["stopped"] and plan["expected"]["sample"]:
        of_part = f" The plan is of the {plan['expected']['sample']:,} rows that were sent."
    say(f"{summary['reason']}{of_part} To go on: {summary['next_step']}.", err=True)
