"""`batchrun evaluate` and `batchrun compare`."""

from pathlib import Path
from typing import Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import job_options, load
from batchrun.cli.lines import say


@click.command("evaluate", short_help="Say what the answers so far tell about all rows.")
@job_options
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--local", is_flag=True, help="The answers of the model on this machine instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON on stdout.")
def evaluate_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Say what the answers so far tell about all rows, from the journal. Sends nothing.

    \b
    batchrun evaluate questions.toml
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.cli.evaluation_lines import class_lines, score_lines
        from batchrun.evaluate import evaluate_job

    report = evaluate_job(job, sandbox=sandbox)
    if as_json:
        _print_json(report)
        return
    lines = [*score_lines(report)]
    if report["decided"] is not None:
        lines.append(f"decided   the {report['score']} is {report['decided']}")
    for line in (*lines, *(["", *classes] if (classes := [*class_lines(report)]) else [])):
        say(line)


@click.command("compare", short_help="Compare two evaluations on the rows that both have asked.")
@click.argument("job_a", metavar="A.toml", type=click.Path(path_type=Path))
@click.argument("job_b", metavar="B.toml", type=click.Path(path_type=Path))
@click.option("--sandbox", is_flag=True, help="The answers of the sandbox instead of the endpoint's.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def compare_command(job_a: Path, job_b: Path, sandbox: bool, as_json: bool) -> None:
    """Compare two evaluations on the rows that both have asked, from their journals. Sends nothing.

    \b
    batchrun compare short-prompt.toml long-prompt.toml
    """
    from batchrun.job.file import load_job

    jobs = [load_job(path, sandbox=sandbox) for path in (job_a, job_b)]

    with heavy_imports():
        from batchrun.cli.evaluation_lines import comparison_lines
        from batchrun.evaluate import compare_jobs

    comparison = compare_jobs(*jobs, sandbox=sandbox)
    if as_json:
        _print_json(comparison)
        return
    for line in comparison_lines(comparison, (job_a.name, job_b.name)):
        say(line)


def _print_json(value: dict[str, Any]) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())
