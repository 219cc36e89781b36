"""`batchrun review`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("review", short_help="Write rows for a person to check, and read the filled file.")
@job_options
@click.option("--rows", default=100, type=click.IntRange(1), metavar="N", help="Most rows.  [default: 100]")
@click.option("--seed", default=0, type=click.IntRange(0, 2**63 - 1), help="Of the audit.  [default: 0]")
@click.option(
    "--to", type=click.Path(path_type=Path), help="The CSV file to write, instead of OUTPUT-review.csv."
)
@click.option("--again", is_flag=True, help="Overwrite an existing review and what was filled in.")
@click.option(
    "--read", "filled", type=click.Path(path_type=Path), metavar="FILE", help="Read the filled file back."
)
@click.option(
    "--corrected",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --read: write the output, with the labels after the review, to this file.",
)
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def review_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    rows: int,
    seed: int,
    to: Path | None,
    again: bool,
    filled: Path | None,
    corrected: Path | None,
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Write the rows whose labels a person should check first, and read the filled file back.

    \b
    batchrun review labels.toml                              writes labels-review.csv
    batchrun review labels.toml --read labels-review.csv     how many labels are right

    Half of the rows are drawn at random, and they alone say how many labels are right; the others are
    invalid, or their votes disagree. The column `correct` is for the person: ok, the right label, none
    where no label fits, or nothing where nobody looked. Sends nothing, and changes neither journal nor
    output.
    """
    _check_options(to, again, filled, corrected)
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.review_lines import precision_lines, written_lines
        from batchrun.runs.review import read_review, review_path, write_review

    if filled is None:
        path = to or review_path(job)
        report = write_review(job, path, rows=rows, seed=seed, again=again, sandbox=sandbox)
        _tell(written_lines(report), err=True)
    else:
        report = read_review(job, filled, corrected=corrected, sandbox=sandbox)
        if not as_json:
            _tell(precision_lines(report), err=False)
        if corrected is not None:
            _tell(iter((f"wrote {corrected}",)), err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report).decode())


def _check_options(to: Path | None, again: bool, filled: Path | None, corrected: Path | None) -> None:
    if corrected is not None and filled is None:
        raise click.UsageError("--corrected goes with --read, which names the filled file.")
    if filled is not None and (again or to is not None):
        raise click.UsageError("--read reads a file; --to and --again are for writing one.")
    if to is not None and to.suffix.lower() != ".csv":
        raise click.UsageError(f"--to {to}: a review is a CSV file. Name one that ends in .csv.")


def _tell(lines: Iterator[str], *, err: bool) -> None:
    for line in lines:
        say(line, err=err)
