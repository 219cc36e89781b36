"""`batchrun show`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say

MOST_ROWS = 10


@click.command("show", short_help="Print rows to read: prompt, answer, label, reason, cost.")
@job_options
@click.option("--failed", is_flag=True, help="Rows that failed permanently.")
@click.option("--invalid", is_flag=True, help="Rows whose answer is not valid. With --failed: both.")
@click.option(
    "--disagree", is_flag=True, help="Rows whose answer isn't the expected one, or whose votes differ."
)
@click.option("--random", "drawn", type=click.IntRange(1), metavar="N", help="N random rows of those chosen.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Rows with this text in a column of the output, such as label=positive. Repeatable.",
)
@click.option(
    "--row",
    "numbers",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="The Nth row, whole. Repeatable.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help=f"Most rows.  [default: {MOST_ROWS}]")
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row on stdout.")
def show_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    failed: bool,
    invalid: bool,
    disagree: bool,
    drawn: int | None,
    where: tuple[str, ...],
    numbers: tuple[int, ...],
    limit: int | None,
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Print rows of a job to read, with prompt, answer, label, reason and cost. Sends nothing.

    \b
    batchrun show reviews.toml --failed
    batchrun show reviews.toml --where label=positive --random 5
    batchrun show reviews.toml --row 17

    Without a choice: the first rows that have ended. Several choices narrow it down.
    """
    pairs = tuple(map(_pair, where))
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.row_lines import row_lines
        from batchrun.runs.show import Choice, rows_to_read

    statuses = frozenset(name for name, chosen in (("failed", failed), ("invalid", invalid)) if chosen)
    most = drawn or limit or (len(set(numbers)) if numbers else MOST_ROWS)
    choice = Choice(most, frozenset(numbers), statuses, disagree, pairs, drawn is not None)
    rows = rows_to_read(job, choice, sandbox=sandbox)
    if as_json:
        import msgspec

        for row in rows:
            click.echo(msgspec.json.encode(row).decode())
        return
    for place, row in enumerate(rows):
        for line in (*([""] if place else []), *row_lines(row, whole=bool(numbers))):
            say(line)
    if not rows:
        say("No row fits.", err=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--where {text}: write COLUMN=VALUE, such as label=positive.")
    return name, value
