"""`batchrun pool`."""

from decimal import Decimal
from pathlib import Path

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.lines import say
from batchrun.errors import UsageError


@click.command("pool", short_help="One budget for several jobs: make it, set its caps, show it.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--usd", metavar="USD", help="Cap over the pool's life; none removes it.")
@click.option("--usd-per-day", metavar="USD", help="Cap for one UTC day; none removes it.")
@click.option("--sandbox", is_flag=True, help="The runs with the sandbox instead of the paid ones.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def pool_command(file: Path, usd: str | None, usd_per_day: str | None, sandbox: bool, as_json: bool) -> None:
    """Show a budget that several jobs share. With a cap, make it or change its caps, also during runs.

    \b
    batchrun pool team.budget --usd 20 --usd-per-day 5
    batchrun pool team.budget

    Jobs use it with pool = "team.budget" in [budget]. What counts is what their journals count: settled,
    uncertain, and reserved by runs that are going on. What a killed run had claimed counts until the job's
    next run.
    """
    changes = {
        field: _amount(option, text)
        for field, option, text in (("life", "--usd", usd), ("per_day", "--usd-per-day", usd_per_day))
        if text is not None
    }
    with heavy_imports():
        from batchrun.cli.pool_lines import pool_lines
        from batchrun.runs.pool import change_pool, pool_report

    if changes:
        change_pool(file, changes)
    report = pool_report(file, sandbox=sandbox)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report).decode())
        return
    for line in pool_lines(report):
        say(line)


def _amount(option: str, text: str) -> int | None:
    from batchrun.job.budget import nano_usd  # only here, since msgspec takes a fifth of `batchrun --help`

    if text == "none":
        return None
    try:
        return nano_usd(Decimal(text))
    except (ArithmeticError, ValueError):
        raise UsageError(
            f"{option}: expected USD such as 20 or 0.5, with at most 9 decimals, or none; got {text[:40]!r}"
        ) from None
