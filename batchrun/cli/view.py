"""`batchrun view`."""

import os
import sys
from pathlib import Path

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.lines import say
from batchrun.errors import EXIT_DONE


@click.command("view", short_help="Show jobs in the browser, live: run, answers, all rows.")
@click.argument("paths", metavar="[JOB.toml or FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="Instead of any free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address alone.")
@click.option(
    "--sandbox", is_flag=True, help="The runs with the sandbox, of jobs that have paid runs as well."
)
def view_command(paths: tuple[Path, ...], port: int, no_browser: bool, sandbox: bool) -> None:
    """Show jobs in the browser, live beside a run. Sends nothing; Ctrl-C ends it, and changes nothing.

    \b
    batchrun view reviews.toml
    batchrun view jobs/

    Without a name: all jobs of the current folder. Whoever has the page's address, on this machine, sees it.
    """
    with heavy_imports():
        from batchrun.runs.view.jobs import find_jobs
        from batchrun.runs.view.serve import serve

    def tell(address: str) -> None:
        say(address)
        say("Ctrl-C ends this page; a run goes on.", err=True)

    serve(find_jobs(paths), port=port, sandbox=sandbox, tell=tell, open_browser=not no_browser)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # A thread may still be reading rows in native code, which the interpreter's own end would break.
    os._exit(EXIT_DONE)
