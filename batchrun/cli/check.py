"""`batchrun check`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.imports import heavy_imports
from batchrun.cli.job_options import LOCAL_HELP, job_options, load, target_of
from batchrun.cli.lines import say
from batchrun.text import single_line

if TYPE_CHECKING:
    from batchrun.runs.check import Check


@click.command("check", short_help="Send one row, and show the result.")
@job_options
@click.option("--sandbox", is_flag=True, help="Check with the sandbox: no model answers, nothing is paid.")
@click.option("--local", is_flag=True, help=LOCAL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def check_command(
    job_file: Path | None,
    settings: tuple[str, ...],
    sandbox: bool,
    local: bool,
    as_json: bool,
    **shortcuts: Any,
) -> int:
    """Send the first row without an answer: key, address, model and prompt, end to end.

    \b
    batchrun check reviews.toml

    The request is under the budget and its answer in the journal, so that a run does not send it again. The
    journal is checked whole, with every answer in it. Writes no output. Ends with 0, or with the code that
    a run would end with.
    """
    job = load(job_file, settings, shortcuts, sandbox, local)

    with heavy_imports():
        from batchrun.runs.check import check_job

    with target_of(job, dict(os.environ), sandbox, None, 0.0, local) as server:
        check = check_job(job, server)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(check).decode())
    else:
        for line in _lines(check):
            say(single_line(line))
    say(f"{check['reason']} To go on: {check['next_step']}.", err=True)
    return check["exit_code"]


def _lines(check: "Check") -> list[str]:
    from batchrun.amounts import usd_figure

    attempt = check["attempt"] or {}
    answers = check["journal_answers"]
    lines = [f"journal   {answers:,} answer{'' if answers == 1 else 's'}, all whole"]
    if check["row"] is None:
        return lines
    said = {
        "row": f"{check['row']:,}: {check['status'] or 'pending'}",
        "error": attempt.get("error"),
        "text": check["text"],
        "model": check["response_model"],
        "stopped": check["stop_reason"],
        "tokens": _pair(attempt.get("input_tokens"), "in", attempt.get("output_tokens"), "out"),
        "cost": f"{usd_figure((attempt.get('nano_usd') or 0) / 1e9)} USD{_made_up(check)}",
        "credits": _pair(attempt.get("credits"), "used", attempt.get("remaining_credits"), "left"),
        "limits": _pair(
            check["requests_per_minute"], "requests", check["tokens_per_minute"], "tokens a minute"
        ),
        "latency": f"{(attempt.get('latency_ms') or 0) / 1000:.2f} s",
    }
    return [f"{name:<10}{text}" for name, text in said.items() if text] + lines


def _pair(first: float | None, first_name: str, second: float | None, second_name: str) -> str:
    known = [(first, first_name), (second, second_name)]
    return ", ".join(f"{number:,.0f} {name}" for number, name in known if number is not None)


def _made_up(check: "Check") -> str:
    return "; no model answered" if check["sandbox"] else ""
