"""Runs with the sandbox and paid runs share a journal, and nothing else."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import batchrun
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.run_lock import locked
from batchrun.sandbox import Sandbox, Settings, background
from tests.python_api.jobs import JOB, reviews

TIMES = ("started_at", "finished_at")


@pytest.fixture(scope="module")
def provider() -> Any:
    with background(Settings()) as sandbox:
        yield sandbox


def paid(provider: Sandbox, rows: int) -> dict[str, Any]:
    return {
        **JOB,
        "endpoint": {"base_url": provider.base_url},
        "pricing": {"input_usd_per_million": 5.0, "output_usd_per_million": 5.0},
        "budget": {"usd": 2.5, "rows": rows},
    }


def status(job: dict[str, Any], journal: Path) -> dict[str, Any]:
    found = batchrun.status(job, journal=journal)
    if found["last_run"] is not None:
        found["last_run"] = {key: value for key, value in found["last_run"].items() if key not in TIMES}
    return found


def test_the_status_of_paid_runs_is_the_same_whatever_ran_with_the_sandbox(
    provider: Sandbox, tmp_path: Path
) -> None:
    job = paid(provider, rows=2)
    batchrun.run(job, input=reviews(), api_key="k", journal=tmp_path / "alone.run")
    alone = status(job, tmp_path / "alone.run")
    assert (alone["rows"]["ok"], alone["answers_per_minute"]) == (3, 2)

    mixed = tmp_path / "mixed.run"
    batchrun.run({**job, "budget": {}}, input=reviews(), journal=mixed, sandbox=True)
    before = status(job, mixed)
    assert (before["last_run"], before["rows"], before["reasons"]) == (None, None, {})
    assert before["answered"] == before["answers_per_minute"] == before["usd"]["settled"] == 0
    batchrun.run(job, input=reviews(), api_key="k", journal=mixed)
    assert status(job, mixed) == alone


def test_the_output_of_paid_runs_has_no_answer_of_the_sandbox(provider: Sandbox, tmp_path: Path) -> None:
    job = paid(provider, rows=1)
    journal = tmp_path / "mixed.run"
    batchrun.run({**job, "budget": {}}, input=reviews(), journal=journal, sandbox=True)
    rows = batchrun.run(job, input=reviews(), api_key="k", journal=journal).to_polars()
    assert rows["status"].to_list() == ["ok", "pending", "ok", "pending"]
    assert rows["attempts"].sum() == 1


def test_a_sandbox_run_that_died_is_not_taken_for_the_paid_run_that_goes_on(
    provider: Sandbox, tmp_path: Path
) -> None:
    job, folder = paid(provider, rows=1), tmp_path / "a.run"
    batchrun.run({**job, "budget": {}}, input=reviews(), journal=folder, sandbox=True)
    batchrun.run(job, input=reviews(), api_key="k", journal=folder)
    _forget_ends(folder)
    with locked(RunFolder(folder)):
        assert batchrun.status(job, journal=folder)["running"]
        assert not batchrun.status(job, journal=folder, sandbox=True)["running"]


def _forget_ends(folder: Path) -> None:
    """Makes the journal what runs leave that are killed, or are going on."""
    with sqlite3.connect(folder / "journal.sqlite") as connection:
        connection.execute("UPDATE runs SET finished_at = NULL, exit_code = NULL, reason = NULL")
    connection.close()


@pytest.mark.anyio
async def test_workers_send_for_a_program_with_an_event_loop_of_its_own(
    provider: Sandbox, tmp_path: Path
) -> None:
    before = len(provider.bill()["requests"])
    settings = {"workers.kind": "local", "workers.count": 1}
    job = paid(provider, rows=10)
    result = await batchrun.arun(
        job, input=reviews(), api_key="k", journal=tmp_path / "a.run", settings=settings
    )
    assert (result.exit_code, len(provider.bill()["requests"]) - before) == (0, 3)
