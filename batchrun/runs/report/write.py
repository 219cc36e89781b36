"""Writes the page about a job. Sends nothing, and changes neither journal nor output."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from batchrun.clock import instant
from batchrun.job.spec import Job, output_path
from batchrun.runs.changes import changed_settings
from batchrun.runs.evaluate import compare_jobs
from batchrun.runs.paths import check_paths, report_file, unwritable_file
from batchrun.runs.report.answers_part import answers_blocks, evaluation_blocks
from batchrun.runs.report.blocks import Block
from batchrun.runs.report.comparison_part import MOST_PAIRS, comparison_blocks
from batchrun.runs.report.facts import Facts, RunFacts, facts_of
from batchrun.runs.report.page import page
from batchrun.runs.report.reading_part import pair_parts, reading_parts
from batchrun.runs.report.run_part import banner, run_blocks, runs_blocks, tiles
from batchrun.tables.atomic import replace_file
from batchrun.tables.reader import Table
from batchrun.version import __version__


def report_path(job: Job) -> Path:
    """Returns the job's `output.report`, else `labels-report.html` beside `labels.parquet`."""
    output = output_path(job)
    return report_file(job) or output.with_name(f"{output.stem}-report.html")


def write_report(
    job: Job,
    path: Path,
    *,
    sandbox: bool = False,
    table: Table | None = None,
    by: str | None = None,
    against: Job | None = None,
) -> None:
    """Writes the page to `path`, during a run too; a `table` takes the place of the job's input.

    With `against`, it has a comparison with that job. Raises UsageError if nothing has been run yet or the
    two can't be compared, OutputError if the file can't be written, JournalError.
    """
    check_paths(job, {"[output] report": path})
    facts = facts_of(job, sandbox=sandbox, table=table, by=by)
    if against is not None:
        comparison = compare_jobs(job, against, sandbox=sandbox, table=table, rows=MOST_PAIRS)
        facts = replace(facts, comparison=comparison, names=(_name(job), _name(against)))
    content = page(page_values(facts))
    try:
        replace_file(path, content.encode())
    except OSError as error:
        raise unwritable_file(path, error) from None


def page_values(facts: Facts) -> dict[str, Any]:
    """Returns what the template shows, as plain values."""
    blocks = [
        ("answers", "Answers", answers_blocks(facts)),
        ("evaluation", "Evaluation", evaluation_blocks(facts)),
        ("comparison", "Comparison", _comparison(facts)),
        ("runs", "Runs", runs_blocks(facts, _changes(facts))),
    ]
    values = run_values(facts)
    return values | {
        "parts": [*values["parts"], *(part(*given) for given in blocks if given[-1])],
        "reading": reading_parts(facts.read),
        "pairs": pair_parts((facts.comparison or {}).get("rows_that_differ", [])),
        "names": facts.names,
    }


def run_values(facts: RunFacts) -> dict[str, Any]:
    """Returns what the template shows of the run alone."""
    return {
        "title": _name(facts.job),
        "facts": _header(facts),
        "banner": banner(facts),
        "sandbox": facts.sandbox,
        "tiles": tiles(facts),
        "parts": [part("run", "Run", run_blocks(facts))],
        "reading": [],
        "pairs": [],
        "names": [],
        "made": f"Made by batchrun {__version__} on {_minute(facts.made_at)} UTC.",
    }


def part(name: str, title: str, blocks: list[Block]) -> dict[str, Any]:
    return {"id": name, "title": title, "blocks": blocks}


def _comparison(facts: Facts) -> list[Block]:
    return [] if facts.comparison is None else comparison_blocks(facts.comparison, facts.names)


def _name(job: Job) -> str:
    return Path(job.output.path).name


def _header(facts: RunFacts) -> list[str]:
    job, run = facts.job, facts.shown_run
    header = [job.request.model, "sandbox" if facts.sandbox else job.endpoint.base_url]
    if run is not None:
        header.append(f"run {run.run} of {_minute(run.started_at)} UTC")
        if run.finished_at is not None:
            header.append(f"{(run.finished_at - run.started_at) / 1000:,.1f} s")
        if run.exit_code is not None:
            header.append(f"exit code {run.exit_code}")
    return header


def _minute(milliseconds: int) -> str:
    return instant(milliseconds)[:16].replace("T", " ")


def _changes(facts: Facts) -> list[str]:
    """Returns what each run changed in the job, compared with the run before it."""
    jobs = [msgspec.json.decode(run.job) for run in facts.runs]
    changes = [", ".join(changed_settings(before, now)) for before, now in pairwise(jobs)]
    return ["" for _ in jobs[:1]] + changes
