"""`batchrun set`."""

import os
from pathlib import Path

import click

from batchrun.cli.completion import complete_key
from batchrun.cli.imports import heavy_imports
from batchrun.cli.lines import say


@click.command("set", short_help="Set caps and limits of the run that is going on, or let it stop.")
@click.argument("job_file", metavar="JOB.toml", type=click.Path(path_type=Path))
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1, required=True, shell_complete=complete_key)
@click.option(
    "--profile",
    metavar="NAME",
    envvar="BATCHRUN_PROFILE",
    help="The profile that the run was started with, if it has an output of its own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the run did as JSON on stdout.")
def set_command(job_file: Path, assignments: tuple[str, ...], profile: str | None, as_json: bool) -> None:
    """Set new caps and limits of the run that is going on, or let it stop.

    \b
    batchrun set reviews.toml budget.usd=5 limits.concurrency=20
    batchrun set reviews.toml stop=true

    The run takes them within a second as long as it sends, and notes them in its journal; this command waits
    for that. Keys are those of [budget] and [limits]. A cap below what is spent stops the run, as a cap does;
    stop=true lets requests in flight end, as Ctrl-C does. In place of JOB.toml, the run's folder does, such
    as labels.run. The job file stays as it is. Ends with 2 if no run is going on or the run refuses, with 75
    if it takes nothing at the moment.
    """
    with heavy_imports():
        from batchrun.job.file import load_job
        from batchrun.job.spec import run_folder
        from batchrun.runs.adjust.ask import adjust_run
        from batchrun.runs.run_folder import RunFolder

    if job_file.is_dir():
        folder = RunFolder(job_file)
    else:
        # Only the folder matters here: prices that the job may lack for a real run don't.
        job = load_job(job_file, sandbox=True, profile=profile, environ=os.environ)
        folder = RunFolder(run_folder(job))
    answer = adjust_run(folder, assignments)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer).decode())
        return
    settings = answer["settings"]
    for key, (old, new) in settings.items():
        is_stop = key == "stop"
        say("It stops, and waits for what is in flight." if is_stop else f"{key}: {old or 'none'} -> {new}")
    if settings.keys() != {"stop"}:
        say(f"Run {answer['run']} has taken it. {job_file} is unchanged: the next run has the values in it.")
