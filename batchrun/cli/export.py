"""`batchrun export`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.job_options import job_options, load
from batchrun.plain_text import on_one_line


@click.command("export")
@job_options
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Another file to write: .parquet, .csv or .jsonl; the job's output stays as it is.",
)
def export_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    local: bool,
    to: Path | None,
    **shortcuts: Any,
) -> None:
    """Write the output from the journal as it stands, also while a run is going on. Sends nothing.

    \b
    batchrun export reviews.toml
    batchrun export reviews.toml --to so-far.csv
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    from batchrun.export import export_job

    rows, path = export_job(job, sandbox=sandbox, to=to)
    line = f"{rows['total']:,} rows, {rows['pending']:,} of them pending: {path}"
    click.echo(on_one_line(line), err=True)
