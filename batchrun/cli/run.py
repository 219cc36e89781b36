"""`batchrun run`."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.events import listening
from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import LOCAL_HELP, job_options, load, target_of
from batchrun.plain_text import on_one_line

if TYPE_CHECKING:
    from batchrun.pipeline import Watch


@click.command("run")
@job_options
@click.option("--sandbox", is_flag=True, help="Try it out: a sandbox answers, no model, nothing is paid.")
@click.option(
    "--sandbox-replies",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reply file of the sandbox; see docs/sandbox.md.",
)
@click.option("--sandbox-latency", default=0.0, metavar="SECONDS", help="Median latency of the sandbox.")
@click.option("--local", is_flag=True, help=LOCAL_HELP)
@click.option("--retry-failed", is_flag=True, help="Ask again for rows that failed for good or are invalid.")
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
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something needs a person.")
@click.option("-v", "--verbose", is_flag=True, help="Say each failed attempt and what becomes of it.")
def run_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    sandbox_replies: Path | None,
    sandbox_latency: float,
    local: bool,
    retry_failed: bool,
    topped_up: bool,
    preview: int,
    as_json: bool,
    log_file: Path | None,
    quiet: bool,
    verbose: bool,
    **shortcuts: Any,
) -> int:
    """Ask for every row that has no answer yet, and write the output.

    \b
    batchrun run reviews.toml
    batchrun run reviews.toml --sandbox
    batchrun run --input reviews.csv --prompt 'Sentiment, one word: {{ text }}' \\
                 --output labels.parquet --model abliterated-model --max-tokens 16 --max-usd 2

    Safe to repeat, to interrupt and to put in cron: answered rows are never asked again.
    """
    if quiet and verbose:
        raise click.UsageError("give --quiet or --verbose, not both")
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.report import print_end, print_preview
        from batchrun.job import output_path
        from batchrun.on_finish import run_and_tell
        from batchrun.target import LOCAL_MODEL

    with target_of(job, dict(os.environ), sandbox, sandbox_replies, sandbox_latency, local) as target:
        if local and not quiet:
            click.echo(f"{LOCAL_MODEL} answers on this machine: nothing is paid.", err=True)
        with listening(log_file, verbose) as listeners:
            summary = run_and_tell(
                job,
                target,
                _complain,
                retry_failed=retry_failed,
                topped_up=topped_up,
                watch=_watch(quiet, verbose),
                listeners=listeners,
            )
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(summary).decode())
    exit_code: int = summary["exit_code"]
    if not quiet or summary["needs_person"]:
        with suppress(OSError):  # whoever read it has gone, or the terminal; the exit code still counts
            print_end(summary)
    if preview and not as_json and summary["output_written"]:
        print_preview(job, output_path(job), preview)
    return exit_code


def _watch(quiet: bool, verbose: bool) -> "Watch":
    from contextlib import nullcontext

    from batchrun.cli.display import watching, watching_by_lines

    if quiet:
        return lambda _: nullcontext()
    return watching_by_lines if verbose else watching


def _complain(trouble: str) -> None:
    click.echo(on_one_line(f"batchrun: {trouble}"), err=True)
