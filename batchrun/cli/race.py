"""`batchrun race`."""

import os
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchrun.cli.completion import complete_key
from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import target_of
from batchrun.cli.lines import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchrun.job.spec import Job
    from batchrun.runs.observers.race_view import RaceView


@click.command("race", short_help="Find the best of several jobs under one cap.")
@click.argument("job_files", metavar="A.toml B.toml...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--usd", required=True, metavar="USD", help="Cap over the lives of all these journals together."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_key,
    help="Any key of the job files, for all of them. Repeatable.",
)
@click.option("--profile", metavar="NAME", envvar="BATCHRUN_PROFILE", help="A profile that all of them have.")
@click.option("--sandbox", is_flag=True, help="Try the race with a sandbox: no model, nothing is paid.")
@click.option(
    "--sandbox-replies",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reply file of the sandbox; see docs/sandbox.md.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the race as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print no line for each round.")
def race_command(
    job_files: tuple[Path, ...],
    usd: str,
    settings: tuple[str, ...],
    profile: str | None,
    sandbox: bool,
    sandbox_replies: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Send the same rows for each job, in turns, and give up the jobs that are worse with 95 % certainty.

    \b
    batchrun race short.toml long.toml large.toml --usd 5
    batchrun race short.toml long.toml large.toml --usd 5 --sandbox

    Each job has an [evaluation] over the same table. The same command goes on where it stopped, and `batchrun
    run` on the best one sends its other rows. The exit code is 0 if it is decided or all rows were sent, and
    4 if the cap came first.
    """
    cap = _cap(usd)
    jobs = [_load(path, usd, settings, profile, sandbox) for path in job_files]

    with heavy_imports():
        from batchrun.cli.race_lines import ending_line, race_lines
        from batchrun.runs.observers.race_view import RaceView
        from batchrun.runs.race import Candidate, race_jobs

    with ExitStack() as servers:
        candidates = [
            Candidate(
                str(path),
                job,
                servers.enter_context(
                    target_of(job, dict(os.environ), sandbox, sandbox_replies, 0.0, local=False)
                ),
            )
            for path, job in zip(job_files, jobs, strict=True)
        ]
        view = RaceView()
        tell = servers.enter_context(_shown(view, quiet=quiet))
        report = race_jobs(candidates, cap, tell=tell, view=view)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report).decode())
        say(ending_line(report), err=True)
    else:
        for line in race_lines(report):
            say(line)
    code: int = report["exit_code"]
    return code


def _cap(usd: str) -> int:
    """Returns the cap in nano-USD. Raises UsageError, also for 0: nothing could be sent."""
    from batchrun.errors import UsageError
    from batchrun.job.budget import nano_usd

    try:
        cap = nano_usd(Decimal(usd))
    except InvalidOperation:
        raise UsageError(f"--usd: expected a number, got {usd}. Next: --usd 5") from None
    except ValueError as error:
        raise UsageError(f"--usd: {error}, got {usd}. Next: --usd 5") from None
    if not cap:
        raise UsageError("--usd: nothing can be sent for 0 USD. Next: --usd 5")
    return cap


def _load(path: Path, usd: str, settings: tuple[str, ...], profile: str | None, sandbox: bool) -> "Job":
    """Returns the job, once it is sure that it can be held to a cap in USD."""
    from batchrun.job.file import load_job

    load_job(path, [*settings, f"budget.usd={usd}"], sandbox=sandbox, profile=profile, environ=os.environ)
    return load_job(path, settings, sandbox=sandbox, profile=profile, environ=os.environ)


@contextmanager
def _shown(view: "RaceView", *, quiet: bool) -> "Iterator[Callable[[str], object]]":
    """Shows the race on a terminal; elsewhere a line now and then. Yields what tells of its rounds there."""
    from batchrun.runs.observers.race_view import race_lines
    from batchrun.runs.observers.terminal import is_live, live, plain

    lines = partial(race_lines, view)
    if quiet:
        yield _nothing
    elif is_live():
        with live(lines):
            yield _nothing
    else:
        with plain(lines, at_end=False):
            yield _tell


def _tell(line: str) -> None:
    with suppress(OSError):  # the reader or the terminal is closed
        say(line, err=True)


def _nothing(_line: str) -> None:
    pass
