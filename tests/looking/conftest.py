"""A finished job for all tests that look at one: right, wrong, invalid and failed rows, and hostile texts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from batchrun.cli import batchrun_group
from batchrun.client.server import Server, sandbox_for
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.rows.observer import Observer
from batchrun.runs.observers.view import View
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings, background

HOSTILE_PROMPT = "<script>alert(1)</script> \x1b[31mred\u202eright to left"
HOSTILE_ANSWER = '</script><img src="https://example.org/x" onerror="alert(2)"><style>*{display:none}</style>'
ROWS = 60
WRONG = range(0, ROWS, 5)
"""Rows that are answered with yes where no is expected; 10 fails, 20 is invalid."""
REPLIES = f"""
[[reply]]
pattern = "script"
text = '{HOSTILE_ANSWER}'
[[reply]]
pattern = "long"
text = "{"very " * 400}"
[[reply]]
pattern = "."
text = "yes"
"""
TABLES: dict[str, Any] = {
    "input": {"path": "in.parquet"},
    "prompt": {"template": "{{ text }}", "system": "Yes or no?"},
    "request": {"model": "abliterated-model", "max_tokens": 600, "flagged_categories": ["hate"]},
    "output": {"path": "out.parquet"},
    "labels": {"choices": ["yes", "no"]},
    "limits": {"concurrency": 8},
    "budget": {"usd": 1.0},
    "evaluation": {"expected": "gold", "metric": "choice"},
}


@dataclass(frozen=True)
class Finished:
    """A folder with job.toml, its table and its finished run, and what the run's summary said."""

    folder: Path
    job: Job
    summary: dict[str, Any]

    def command(self, *arguments: str) -> Result:
        """A command on the job, in this process: what it printed, and with which code it ended."""
        name, *options = arguments
        return CliRunner().invoke(
            batchrun_group, [name, str(self.folder / "job.toml"), "--sandbox", *options]
        )


def text_of(row: int) -> str:
    return {10: "[sandbox:flag hate] ten", 20: HOSTILE_PROMPT, 30: "long 30"}.get(row, f"text {row}")


def write_job(folder: Path, **tables: Any) -> Job:
    """Writes job.toml and in.parquet; `tables` replace those of all tests' jobs, None removes one."""
    pl.DataFrame(
        {
            "id": [f"id-{row}" for row in range(ROWS)],
            "text": [text_of(row) for row in range(ROWS)],
            "gold": ["no" if row in WRONG else "yes" for row in range(ROWS)],
            "language": ["de" if row % 4 == 0 else "en" for row in range(ROWS)],
        }
    ).write_parquet(folder / "in.parquet")
    given = {name: table for name, table in (TABLES | tables).items() if table is not None}
    lines = [f"{name} = {_inline(table)}" for name, table in given.items()]
    (folder / "job.toml").write_text("\n".join(lines) + "\n")
    return make_job(given, folder, sandbox=True)


def _inline(table: dict[str, Any]) -> str:
    return f"{{{', '.join(f'{key} = {json.dumps(value)}' for key, value in table.items())}}}"


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    replies = tmp_path_factory.mktemp("replies") / "replies.toml"
    replies.write_text(REPLIES)
    with background(Settings(replies=replies)) as running:
        yield running


def finish(folder: Path, sandbox: Sandbox, **tables: Any) -> Finished:
    job = write_job(folder, **tables)
    summary = run_job(job, Server(sandbox.base_url, "key", sandbox=True), quiet=True)
    return Finished(folder, job, dict(summary))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Finished:
    return finish(tmp_path_factory.mktemp("finished"), sandbox)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Finished:
    """The same rows, all answered with no: right in the rows that expect it."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "replies.toml").write_text('[[reply]]\npattern = "."\ntext = "no"\n')
    with background(Settings(replies=folder / "replies.toml")) as says_no:
        return finish(folder, says_no)


def job_in(folder: Path, **tables: Any) -> dict[str, Any]:
    given = {name: table for name, table in TABLES.items() if name != "input"}
    return given | {"output": {"path": str(folder / "out.parquet")}} | tables


@pytest.fixture
def view(tmp_path: Path) -> View:
    """The view of a run that has just begun."""
    seen: list[View] = []

    def remember(view: View) -> Observer:
        seen.append(view)
        return Observer()

    pl.DataFrame({"text": ["one"], "gold": ["yes"]}).write_parquet(tmp_path / "in.parquet")
    job = make_job(job_in(tmp_path, input={"path": "in.parquet"}), tmp_path, sandbox=True)
    with sandbox_for(job, Settings()) as server:
        run_job(job, server, observers=[remember], quiet=True)
    return seen[0]
