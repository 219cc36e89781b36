"""`batchrun view`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import load, override_options
from batchrun.cli.lines import say
from batchrun.errors import EXIT_DONE


@click.command("view", short_help="Show jobs in the browser, live: run, answers, all rows.")
@click.argument("paths", metavar="[JOB.toml or FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@override_options
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="Instead of any free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address alone.")
@click.option(
    "--sandbox", is_flag=True, help="The runs with the sandbox, of jobs that have paid runs as well."
)
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
def view_command(
    paths: tuple[Path, ...],
    settings: tuple[str, ...],
    port: int,
    no_browser: bool,
    sandbox: bool,
    local: bool,
    **shortcuts: Any,
) -> None:
    """Show jobs in the browser, live beside a run. Sends nothing; Ctrl-C ends it, and changes nothing.

    \b
    batchrun view reviews.toml
    batchrun view jobs/

    Without a name: all jobs of the current folder. Whoever has the page's address, on this machine, sees it.
    """
    with heavy_imports():
        from batchrun.job.spec import Job
        from batchrun.runs.view.jobs import FoundJob, find_jobs
        from batchrun.runs.view.serve import serve

    def tell(address: str) -> None:
        say(address)
        say("Ctrl-C ends this page; a run goes on.", err=True)

    def read(path: Path | None) -> Job:
        # To look at a job needs no prices, as a run with the sandbox.
        return load(path, settings, shortcuts, sandbox=not local, local=local)

    if not paths and shortcuts["input"] and shortcuts["output"]:
        found = [FoundJob(Path(shortcuts["output"]).name, read(None))]  # without a job file
    else:
        found = find_jobs(paths, read)
    serve(found, port=port, sandbox=sandbox, tell=tell, open_browser=not no_browser)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # A thread may still be reading rows in native code, which the interpreter's own end would break.
    os._exit(EXIT_DONE)
