"""`batchrun plan`."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import LOCAL_HELP, job_options, load, target_of
from batchrun.cli.lines import say
from batchrun.plain_text import on_one_line

if TYPE_CHECKING:
    from batchrun.estimate import Plan
    from batchrun.summary import Summary


@click.command("plan")
@job_options
@click.option(
    "--sample",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Ask for N random rows, as a run would, and estimate from them. A later run doesn't ask again.",
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
    "-q", "--quiet", is_flag=True, help="Say nothing of the sampling unless something needs a person."
)
def plan_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sample: int,
    sandbox: bool,
    sandbox_replies: Path | None,
    sandbox_latency: float,
    local: bool,
    as_json: bool,
    quiet: bool,
    **shortcuts: Any,
) -> int:
    """Say what a run would send and cost. Sends nothing without --sample.

    \b
    batchrun plan reviews.toml
    batchrun plan reviews.toml --sample 50
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.estimate import plan_by_sample, plan_job
        from batchrun.planning.words import plan_lines, request_lines

    plan: Plan | None
    if not sample:
        plan, summary = plan_job(job, sandbox=sandbox), None
    else:
        from batchrun.cli.display import watching

        with target_of(job, dict(os.environ), sandbox, sandbox_replies, sandbox_latency, local) as target:
            watch = (lambda _: nullcontext()) if quiet else watching
            plan, summary = plan_by_sample(job, target, sample, watch=watch)
    if as_json and plan is not None:
        import msgspec

        click.echo(msgspec.json.encode(plan).decode())
    elif plan is not None:
        for line in plan_lines(plan):
            say(line)
        for line in request_lines(plan):
            click.echo(on_one_line(line))
    if summary is not None:
        _tell_end(summary, quiet)
    return 0 if summary is None else summary["exit_code"]


def _tell_end(summary: "Summary", quiet: bool) -> None:
    """How the sampling ended, on stderr."""
    if quiet and not summary["needs_person"]:
        return
    spent, made_up = (
        summary["this_run"]["usd"]["settled"],
        "; no model answered" if summary["sandbox"] else "",
    )
    requests = summary["this_run"]["requests"]["sent"]
    say(f"sample    {requests:,} requests, {spent:.6g} USD{made_up}", err=True)
    say(f"{summary['reason']} To go on: {summary['go_on']}.", err=True)
