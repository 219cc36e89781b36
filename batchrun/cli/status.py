"""`batchrun status`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.job_options import load, override_options
from batchrun.cli.lines import say

if TYPE_CHECKING:
    from batchrun.job.spec import Job


@click.command("status", short_help="Show the state of jobs, also during a run.")
@click.argument("job_files", metavar="[JOB.toml]...", nargs=-1, type=click.Path(path_type=Path))
@override_options
@click.option("--watch", "watching", is_flag=True, help="Show each change, until no run is going on.")
@click.option("--sandbox", is_flag=True, help="The runs with the sandbox instead of the paid ones.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout, one object a job.")
def status_command(
    job_files: tuple[Path, ...],
    settings: tuple[str, ...],
    watching: bool,
    sandbox: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Show the state of a job, from its journal, also while a run is going on; a line each of several jobs.

    \b
    batchrun status reviews.toml
    batchrun status reviews.toml tickets.toml --watch
    """
    if watching and as_json:
        raise click.UsageError("--watch is for people: give it without --json.")
    jobs = [load(job_file, settings, shortcuts, sandbox) for job_file in job_files or (None,)]
    names = [str(path) for path in job_files]
    if as_json:
        _print_json(jobs, names, sandbox)
        return

    def look() -> tuple[list[str], bool]:
        return _lines(jobs, names, sandbox)

    if watching:
        from batchrun.cli.watch import watch

        watch(look, time.process_time, time.sleep)
        return
    for line in look()[0]:
        say(line)


def _lines(jobs: "Sequence[Job]", names: Sequence[str], sandbox: bool) -> tuple[list[str], bool]:
    """Returns the lines for people, and whether a run is going on."""
    from batchrun.cli.status_text import status_lines, table_lines
    from batchrun.runs.status import goes_on, has_run, status_of

    if len(jobs) == 1:
        status = status_of(jobs[0], sandbox=sandbox)
        return status_lines(status), goes_on(status)
    found = [status_of(job, sandbox=sandbox) if has_run(job) else None for job in jobs]
    return table_lines(names, found), any(status is not None and goes_on(status) for status in found)


def _print_json(jobs: "Sequence[Job]", names: Sequence[str], sandbox: bool) -> None:
    import msgspec

    from batchrun.runs.status import has_run, status_of

    if len(jobs) == 1:
        click.echo(msgspec.json.encode(status_of(jobs[0], sandbox=sandbox)).decode())
        return
    for name, job in zip(names, jobs, strict=True):
        status = status_of(job, sandbox=sandbox) if has_run(job) else {"running": False, "last_run": None}
        click.echo(msgspec.json.encode({"job": name, **status}).decode())
