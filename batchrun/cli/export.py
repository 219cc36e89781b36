"""`batchrun export`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.tables.endings import WRITTEN_IN_WORDS
from batchrun.text import single_line


@click.command("export", short_help="Write the output as it stands, also during a run.")
@job_options
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help=f"Another file to write: {WRITTEN_IN_WORDS}; the job's output stays as it is.",
)
@click.option(
    "--salvage",
    is_flag=True,
    help="First replace a damaged journal by its readable part; the damaged one is kept.",
)
def export_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    local: bool,
    to: Path | None,
    salvage: bool,
    **shortcuts: Any,
) -> None:
    """Write the output from the journal as it stands, also while a run is going on. Sends nothing.

    \b
    batchrun export reviews.toml
    batchrun export reviews.toml --to so-far.csv
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.runs.output import export_job
        from batchrun.runs.salvage import salvage_journal_of

    if salvage:
        salvaged, damaged = salvage_journal_of(job)
        click.echo(f"saved {salvaged.answers:,} answers; the damaged journal is now {damaged}", err=True)
        if salvaged.lost_answers:
            click.echo(f"{salvaged.lost_answers:,} answers are lost; their cost still counts", err=True)
        if salvaged.lost_attempts:
            click.echo(
                f"the records of {salvaged.lost_attempts:,} requests are lost; their cost counts as uncertain"
                " where the journal's totals could be read",
                err=True,
            )
    summary, path = export_job(job, sandbox=sandbox, to=to)
    rows = summary["rows"]
    line = f"{rows['total']:,} rows, {rows['pending']:,} of them pending: {path}"
    if rows["pending"] == rows["total"] and not sandbox:
        line += " (--sandbox writes the answers of runs with the sandbox)"
    click.echo(single_line(line), err=True)
