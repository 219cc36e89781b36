"""Most rows would be sent again: said, and refused where the job wants that, before anything is sent."""

from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import batchrun
from batchrun.journal import create_or_open

JOB: dict[str, Any] = {
    "prompt": {"template": "Translate: {{ text }}"},
    "request": {"model": "abliterated-model", "max_tokens": 60},
}
ROWS = pl.DataFrame({"text": [f"text {number}" for number in range(6)]})


def run(folder: Path, rows: pl.DataFrame = ROWS, **tables: Any) -> Any:
    job = {**JOB, **tables, "output": {"path": str(folder / "out.parquet"), **tables.get("output", {})}}
    return batchrun.run(job, input=rows, sandbox=True)


REFUSE: dict[str, Any] = {"output": {"on_change": "refuse"}}


def test_rows_that_are_appended_are_no_change(tmp_path: Path) -> None:
    run(tmp_path, ROWS.head(2))
    assert run(tmp_path, **REFUSE).summary["this_run"]["requests"]["sent"] == 4
    assert run(tmp_path, ROWS.head(1), **REFUSE).summary["this_run"]["requests"]["sent"] == 0


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({"prompt": {"template": "Say: {{ text }}"}}, "prompt.template"),
        ({"prompt": {**JOB["prompt"], "system": "Be brief."}}, "prompt.system"),
        ({"request": {**JOB["request"], "temperature": 0.5}}, "request.temperature"),
    ],
)
def test_a_change_that_loses_answers_is_refused_with_what_changed(
    tmp_path: Path, tables: dict[str, Any], what: str
) -> None:
    run(tmp_path)
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(batchrun.UsageError, match=f"6 of 6 answers .* changed: {what}. .* USD"):
        run(tmp_path, **tables, **REFUSE)
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_other_rows_are_a_change_of_their_text(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(batchrun.UsageError, match="changed: the text of rows"):
        run(tmp_path, ROWS.with_columns(pl.col("text").str.to_uppercase()), **REFUSE)


def test_what_is_no_part_of_a_request_is_no_change(tmp_path: Path) -> None:
    run(tmp_path)
    request = {**JOB["request"], "stream": True}
    assert run(tmp_path, request=request, **REFUSE).summary["this_run"]["requests"]["sent"] == 0


def test_by_default_it_is_said_and_goes_on(tmp_path: Path) -> None:
    run(tmp_path)
    job = {
        **JOB,
        "prompt": {"template": "Say: {{ text }}"},
        "output": {"path": str(tmp_path / "out.parquet")},
    }
    plan = batchrun.plan(job, input=ROWS, sandbox=True)
    assert any("6 of 6 answers of the last run no longer apply" in note for note in plan["notes"])
    with pytest.warns(RuntimeWarning, match="no longer apply"):
        assert batchrun.run(job, input=ROWS, sandbox=True).summary["this_run"]["requests"]["sent"] == 6


def test_an_export_never_replaces_an_output_by_one_with_fewer_answers(tmp_path: Path) -> None:
    run(tmp_path)
    job = {
        **JOB,
        "prompt": {"template": "Say: {{ text }}"},
        "output": {"path": str(tmp_path / "out.parquet")},
    }
    with pytest.raises(batchrun.UsageError, match="are not those of this job"):
        batchrun.export(job, input=ROWS, sandbox=True)


def test_an_export_without_the_sandbox_leaves_an_output_of_its_answers(tmp_path: Path) -> None:
    run(tmp_path)
    output = tmp_path / "out.parquet"
    job, before = {**JOB, "output": {"path": str(output)}}, output.read_bytes()
    with pytest.raises(batchrun.UsageError, match="--sandbox, or to another file"):
        batchrun.export(job, input=ROWS)
    assert output.read_bytes() == before
    assert batchrun.export(job, input=ROWS, to=tmp_path / "other.csv").summary["rows"]["pending"] == len(ROWS)


def test_a_run_that_was_killed_at_its_beginning_hides_no_change(tmp_path: Path) -> None:
    run(tmp_path)
    with closing(create_or_open(tmp_path / "out.run" / "journal.sqlite")) as journal:
        last = journal.last_run(sandbox=True)
        assert last is not None
        names = ("version", "started_at", "sandbox", "endpoint", "fingerprint", "job")
        killed = journal.start_run(*(last[name] for name in names))
        journal.note_rows(killed, '{"total": 6, "ok": 0, "invalid": 0, "looked_at": 0}')
    with pytest.raises(batchrun.UsageError, match="6 of 6 answers"):
        run(tmp_path, prompt={"template": "Say: {{ text }}"}, **REFUSE)
