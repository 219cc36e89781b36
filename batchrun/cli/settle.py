"""`batchrun settle`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("settle", short_help="Book uncertain spend at the amount of the provider's bill.")
@job_options
@click.option(
    "--uncertain",
    required=True,
    metavar="USD",
    help="The provider's total bill for the requests whose outcome is unknown.",
)
@click.option("--sandbox", is_flag=True, help="The runs with the sandbox instead of the paid ones.")
@click.option("--json", "as_json", is_flag=True, help="Print what was booked as JSON on stdout.")
def settle_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    uncertain: str,
    sandbox: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Book the uncertain spend at the amount of the provider's bill, instead of its worst case.

    \b
    batchrun settle reviews.toml --uncertain 0.12

    Requests whose response was lost count at their whole reservation against the budget. What they really
    cost is the provider's bill less what `batchrun status` calls settled. The journal keeps a note; what is
    settled doesn't change, rows are sent again as before, a later settle corrects this one. Sends nothing.
    """
    job = load(job_file, settings, shortcuts, sandbox)

    with heavy_imports():
        from batchrun.runs.settle import settle_job

    told = settle_job(job, uncertain, sandbox=sandbox)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(told).decode())
    else:
        say(told["reason"])
