"""`batchrun run`."""

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import LOCAL_HELP, job_options, load, target_of
from batchrun.text import single_line

if TYPE_CHECKING:
    from batchrun.runs.observers.view import MakeObserver


@click.command("run")
@job_options
@click.option("--sandbox", is_flag=True, help="Try the job with a sandbox: no model, nothing is paid.")
@click.option(
    "--sandbox-replies",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reply file of the sandbox; see docs/sandbox.md.",
)
@click.option("--sandbox-latency", default=0.0, metavar="SECONDS", help="Median latency of the sandbox.")
@click.option("--local", is_flag=True, help=LOCAL_HELP)
@click.option(
    "--workers",
    metavar="local:N|ray[:N]|listen[:PORT]",
    help="Send by N processes, here or on a Ray cluster, or by workers that connect; see docs/cluster.md.",
)
@click.option("--workers-tls", is_flag=True, help="Encrypt the connections of workers.")
@click.option("--retry-failed", is_flag=True, help="Send rows again that failed permanently or are invalid.")
@click.option(
    "--topped-up",
    is_flag=True,
    help="The account has more credits than when last seen (budget.keep_credits).",
)
@click.option(
    "--preview", default=0, type=click.IntRange(0), metavar="N", help="Show N rows of the output at the end."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append what happens as JSON lines; rotated at 10 MB, two older files are kept.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless something needs attention.")
@click.option("-v", "--verbose", is_flag=True, help="Print each failed attempt and what happens next.")
def run_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    sandbox_replies: Path | None,
    sandbox_latency: float,
    local: bool,
    workers: str | None,
    workers_tls: bool,
    retry_failed: bool,
    topped_up: bool,
    preview: int,
    as_json: bool,
    log_file: Path | None,
    quiet: bool,
    verbose: bool,
    **shortcuts: Any,
) -> int:
    """Send every row that has no answer yet, and write the output.

    \b
    batchrun run reviews.toml
    batchrun run reviews.toml --sandbox
    batchrun run --input reviews.csv --prompt 'Sentiment, one word: {{ text }}' \\
                 --output labels.parquet --model abliterated-model --max-tokens 16 --max-usd 2

    Safe to repeat, to interrupt and to put in cron: answered rows are never sent again.
    """
    if quiet and verbose:
        raise click.UsageError("give --quiet or --verbose, not both")
    settings = (*_worker_settings(workers, workers_tls), *settings)
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.preview import print_preview
        from batchrun.cli.summary_lines import print_end
        from batchrun.client.server import LOCAL_MODEL
        from batchrun.job.spec import output_path
        from batchrun.runs.notify import exit_code_of, run_and_notify
        from batchrun.runs.paths import check_paths, rotated

    replies = {"the sandbox's replies, --sandbox-replies": sandbox_replies}
    check_paths(job, rotated(log_file), replies)
    with target_of(job, dict(os.environ), sandbox, sandbox_replies, sandbox_latency, local) as server:
        if local and not quiet:
            click.echo(f"{LOCAL_MODEL} answers on this machine: nothing is paid.", err=True)
        summary = run_and_notify(
            job,
            server,
            _complain,
            retry_failed=retry_failed,
            topped_up=topped_up,
            observers=_observers(log_file, quiet, verbose),
            confirm=None if quiet or not _is_terminal() else _confirmed,
            quiet=quiet,
        )
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(summary).decode())
    exit_code = exit_code_of(job, summary)
    if not quiet or summary["needs_attention"]:
        with suppress(OSError):  # the reader or the terminal is closed; the exit code still counts
            print_end(summary)
    if preview and not as_json and summary["output_written"]:
        print_preview(job, output_path(job), preview)
    return exit_code


def _worker_settings(workers: str | None, tls: bool) -> list[str]:
    """Returns --workers and --workers-tls as --set takes them. Raises UsageError."""
    from batchrun.job.workers import split_option

    settings = []
    if workers is not None:
        try:
            table = split_option(workers)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--workers") from None
        keys = [f"{key}={json.dumps(value)}" for key, value in table.items()]
        settings.append(f"workers={{{', '.join(keys)}}}")
    return [*settings, "workers.tls=true"] if tls else settings


def _observers(log_file: Path | None, quiet: bool, verbose: bool) -> "list[MakeObserver]":
    """Returns the observers that the options name. Raises OutputError if the log can't be written."""
    from batchrun.cli.event_lines import EventLines
    from batchrun.runs.observers.event_log import EventLog, check_log
    from batchrun.runs.observers.terminal import Display

    observers: list[MakeObserver] = []
    if verbose:
        observers.append(lambda _: EventLines())
    if log_file is not None:
        check_log(log_file)
        observers.append(lambda _: EventLog(log_file))
    if not quiet:
        observers.append(partial(Display, by_lines=verbose))
    return observers


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _confirmed(change: str) -> bool:
    click.echo(single_line(change), err=True)
    try:
        return click.confirm("Send them again?", err=True)
    except click.Abort:
        return False


def _complain(trouble: str) -> None:
    click.echo(single_line(f"batchrun: {trouble}"), err=True)
