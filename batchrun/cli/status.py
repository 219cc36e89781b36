"""`batchrun status`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("status", short_help="Say where a job stands, also during a run.")
@job_options
@click.option("--sandbox", is_flag=True, help="The runs with the sandbox instead of the paid ones.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def status_command(
    job_file: Path | None, settings: tuple[str, ...], sandbox: bool, as_json: bool, **shortcuts: Any
) -> None:
    """Say where a job stands, from its journal, also while a run is going on.

    \b
    batchrun status reviews.toml
    """
    job = load(job_file, settings, shortcuts, sandbox)

    from batchrun.state import status_lines, status_of

    status = status_of(job, sandbox=sandbox)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(status).decode())
        return
    for line in status_lines(status):
        say(line)
