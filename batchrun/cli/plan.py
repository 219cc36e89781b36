"""`batchrun plan`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.job_options import job_options, load
from batchrun.plain_text import on_one_line


@click.command("plan")
@job_options
@click.option("--sandbox", is_flag=True, help="Plan a run with the sandbox, at the provider's prices.")
@click.option("--local", is_flag=True, help="Plan a run with the model on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on stdout.")
def plan_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Say what a run would send and cost. Sends nothing.

    \b
    batchrun plan reviews.toml
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    from batchrun.estimate import plan_job, plan_lines

    plan = plan_job(job, sandbox=sandbox)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(plan).decode())
        return
    for line in plan_lines(plan):
        click.echo(on_one_line(line))
