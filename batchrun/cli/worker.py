"""`batchrun worker`."""

from pathlib import Path

import click

from batchrun.cli.lines import say


@click.command("worker", short_help="Send requests for a run on another machine.")
@click.option("--connect", required=True, metavar="HOST:PORT", help="Address that the run has printed.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path),
    help="File that the run has written, or a copy of it.",
)
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait so long for the run to begin.",
)
def worker_command(connect: str, token_file: Path, wait: float) -> int:
    """Send requests for a run that was started with --workers, until it is over; see docs/cluster.md.

    \b
    batchrun worker --connect 10.0.0.5:7077 --token-file labels.run/workers.token

    The run gives the worker the key and each request, and keeps budget, limits and answers to itself.
    Ends with 0 once the run is over, with 1 if it can't be reached any more. SIGTERM lets requests in flight
    end.
    """
    from batchrun.job.workers import split_address
    from batchrun.workers.process import run_worker

    try:
        host, port = split_address(connect)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--connect") from None
    if not host:
        raise click.BadParameter(f"expected HOST:PORT, got {connect!r}", param_hint="--connect")
    return run_worker((host, port), token_file, wait, lambda line: say(f"batchrun worker: {line}", err=True))
