"""`batchrun report`."""

import os
from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("report", short_help="Write a page about a job: run, answers, evaluation, rows to read.")
@job_options
@click.option(
    "-o", "--to", type=click.Path(path_type=Path), metavar="FILE.html", help="Instead of OUTPUT-report.html."
)
@click.option("--by", metavar="COLUMN", help="Cost and score of each group, by a column of the input.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="OTHER.toml",
    help="Compare with another job over the same rows, as `batchrun compare` does.",
)
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
def report_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    to: Path | None,
    by: str | None,
    against: Path | None,
    sandbox: bool,
    local: bool,
    **shortcuts: Any,
) -> None:
    """Write a page about a job, to open, mail or keep: one HTML file that loads nothing. Sends nothing.

    \b
    batchrun report reviews.toml
    batchrun report reviews.toml -o reviews.html --by language
    batchrun report short-prompt.toml --against long-prompt.toml

    It has prompts and answers, so it is as private as they are.
    """
    if to is not None and to.suffix.lower() != ".html":
        raise click.UsageError(f"--to {to}: a report is an HTML file. Name one that ends in .html.")
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.job.file import load_job
        from batchrun.runs.report.write import report_path, write_report

    path = to or report_path(job)
    other = None if against is None else load_job(against, sandbox=sandbox, environ=os.environ)
    write_report(job, path, sandbox=sandbox, by=by, against=other)
    say(f"wrote {path}", err=True)
