"""`batchrun evaluate` and `batchrun compare`."""

import os
from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("evaluate", short_help="Estimate the score of all rows from the answers so far.")
@job_options
@click.option("--by", metavar="COLUMN", help="Estimate each group of rows, by a column of the input.")
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON on stdout.")
def evaluate_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    by: str | None,
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Estimate the score of all rows from the answers so far, from the journal. Sends nothing.

    \b
    batchrun evaluate questions.toml
    batchrun evaluate questions.toml --by topic
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.evaluation_lines import class_lines, group_lines, score_lines
        from batchrun.runs.evaluate import evaluate_job

    report = evaluate_job(job, sandbox=sandbox, by=by)
    if as_json:
        _print_json(report)
        return
    lines = [*score_lines(report)]
    if report["decided"] is not None:
        lines.append(f"decided   the {report['score']} is {report['decided']}")
    for block in ([*class_lines(report)], [*group_lines(report)]):
        lines += ["", *block] if block else []
    for line in lines:
        say(line)


@click.command("compare", short_help="Compare two evaluations on the rows that both have sent.")
@click.argument("job_a", metavar="A.toml", type=click.Path(path_type=Path))
@click.argument("job_b", metavar="B.toml", type=click.Path(path_type=Path))
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--rows", "with_rows", is_flag=True, help="Print the rows that the two score differently.")
@click.option("--limit", default=10, type=click.IntRange(1), metavar="N", help="Most rows.  [default: 10]")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def compare_command(
    job_a: Path, job_b: Path, sandbox: bool, with_rows: bool, limit: int, as_json: bool
) -> None:
    """Compare two evaluations on the rows that both have sent, from their journals. Sends nothing.

    \b
    batchrun compare short-prompt.toml long-prompt.toml
    batchrun compare short-prompt.toml long-prompt.toml --rows
    """
    from batchrun.job.file import load_job

    jobs = [load_job(path, sandbox=sandbox, environ=os.environ) for path in (job_a, job_b)]

    with heavy_imports():
        from batchrun.cli.evaluation_lines import comparison_lines
        from batchrun.cli.row_lines import pair_lines
        from batchrun.runs.evaluate import compare_jobs

    comparison = compare_jobs(*jobs, sandbox=sandbox, rows=limit if with_rows else 0)
    if as_json:
        _print_json(comparison)
        return
    for line in comparison_lines(comparison, (job_a.name, job_b.name)):
        say(line)
    for pair in comparison.get("rows_that_differ", ()):
        for line in ("", *pair_lines(*pair)):
            say(line)


def _print_json(value: dict[str, Any]) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())
