"""An output that is on disk as a run would write it is not written again, and any other is."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.cli.summary_lines import end_lines
from batchrun.client.server import Server
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.runs.output import export_job
from batchrun.runs.output_record import OutputRecord, keep_record, unchanged_output
from batchrun.runs.review import review_path, write_review
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings, background

CELLS = "text,gold,note\nlovely,positive,=1\nawful,negative,b\nlovely,positive,c\n"
ENDINGS = ("parquet", "csv", "jsonl")
TABLES: dict[str, dict[str, Any]] = {
    "input": {"path": "in.csv"},
    "prompt": {"template": "Sentiment: {{ text }}"},
    "request": {"model": "abliterated-model", "max_tokens": 200},
    "output": {"path": "out.parquet", "accept": ["truncated"]},
}
LABELS: dict[str, Any] = {"choices": ["positive", "negative"]}
EVALUATION: dict[str, Any] = {"expected": "gold", "metric": "choice"}


class Place:
    """A folder with an input, and a server for the runs over it."""

    def __init__(self, folder: Path, server: Sandbox) -> None:
        self.folder = folder
        self.server = server
        self.cells(CELLS)

    def cells(self, text: str) -> None:
        (self.folder / "in.csv").write_text(text)

    def job(self, tables: dict[str, dict[str, Any]]) -> Job:
        given = TABLES | {"endpoint": {"base_url": self.server.base_url}}
        given |= {name: given.get(name, {}) | table for name, table in tables.items()}
        if "labels" in tables:
            given["output"] = {key: value for key, value in given["output"].items() if key != "accept"}
        return make_job(given, self.folder, sandbox=True)

    def run(self, *, retry_failed: bool = False, **tables: Any) -> bool:
        """Runs the job; returns whether it wrote the output, which is then as an export makes it."""
        job = self.job(tables)
        output = self.folder / job.output.path
        before = output.stat().st_ino if output.exists() else None
        # A file that stays open keeps its inode from being given to another.
        with (output if output.exists() else self.folder / "in.csv").open("rb"):
            summary = run_job(job, self.server_of_run, retry_failed=retry_failed)
            written = output.stat().st_ino != before
        assert summary["output_unchanged"] is not written
        assert summary["output_written"] is True
        assert json.loads((self.folder / "out.run" / "summary.json").read_text()) == json.loads(
            json.dumps(summary)
        )
        exported, _ = export_job(job, sandbox=True, to=self.folder / f"again{output.suffix}")
        assert rows_of(output) == rows_of(self.folder / f"again{output.suffix}")
        shared = ("rows", "reasons", "exit_code", "reason", "evaluation", "labels", "caching")
        assert {key: summary.get(key) for key in shared} == {key: exported.get(key) for key in shared}
        return written

    @property
    def server_of_run(self) -> Server:
        return Server(self.server.base_url, "a-key", sandbox=True)

    @property
    def record(self) -> Path:
        return self.folder / "out.run" / "output.json"


def rows_of(path: Path) -> Any:
    return pl.read_parquet(path).rows() if path.suffix == ".parquet" else path.read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Any:
    with background(Settings()) as server:
        yield Place(tmp_path, server)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_second_run_leaves_the_output_alone(place: Place, ending: str) -> None:
    output = {"path": f"out.{ending}"}
    assert [place.run(output=output) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(path.read_bytes()[:-2] + b"x" + path.read_bytes()[-1:]),
        lambda path: path.write_bytes(b""),
    ],
    ids=["deleted", "cut", "longer", "edited", "emptied"],
)
def test_an_output_that_is_no_longer_as_it_was_is_written(
    place: Place, ending: str, change: Callable[[Path], object]
) -> None:
    output = {"path": f"out.{ending}"}
    place.run(output=output)
    path = place.folder / f"out.{ending}"
    before = path.stat()
    change(path)
    if path.exists():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [place.run(output=output) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "cells",
    [
        CELLS.replace("=1", "=2"),  # a column that the prompt doesn't use
        CELLS.replace("note", "more"),
        CELLS + "awful,positive,d\n",  # a row that is answered
        CELLS + "new,positive,d\n",
        CELLS.replace("c\n", "c"),
        CELLS.replace("lovely,positive,c\n", ""),
    ],
)
def test_a_changed_input_is_written(place: Place, cells: str) -> None:
    place.run()
    before = (place.folder / "in.csv").stat()
    place.cells(cells)
    os.utime(place.folder / "in.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [place.run() for _ in range(2)] == [True, False]


def test_files_that_come_to_the_input_are_written(place: Place) -> None:
    given = {"path": "*in.csv"}
    place.run(input=given)
    (place.folder / "second-in.csv").write_text("text,gold,note\nlovely,positive,e\n")
    assert [place.run(input=given) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "setting",
    [{"prefix": "b_"}, {"csv_safe": False}, {"csv_bom": True}, {"accept": []}, {"duplicates": "separate"}],
)
def test_a_changed_setting_of_the_output_is_written(place: Place, setting: dict[str, Any]) -> None:
    place.run(output={"path": "out.csv"})
    changed = {"path": "out.csv", **setting}
    assert [place.run(output=changed) for _ in range(2)] == [True, False]
    assert [place.run(output={"path": "out.csv"}) for _ in range(2)] == [True, False]


def test_another_prompt_is_written_and_the_first_one_again(place: Place) -> None:
    other = {"template": "Mood: {{ text }}"}
    assert [place.run(), place.run(prompt=other), place.run(prompt=other)] == [True, True, False]
    assert [place.run(), place.run()] == [True, False]


def test_failures_that_are_sent_again_are_written(place: Place) -> None:
    place.cells("text,gold,note\n[sandbox:flag self-harm] x,positive,a\nlovely,positive,b\n")
    assert [place.run(), place.run()] == [True, False]
    assert [place.run(retry_failed=True), place.run()] == [True, False]


def test_rows_that_cannot_be_sent_are_counted_without_a_pass(place: Place) -> None:
    place.cells('text,gold,note\n"",positive,a\nlovely,positive,b\n')
    prompt = {"template": "{{ text }}"}
    assert [place.run(prompt=prompt), place.run(prompt=prompt)] == [True, False]


@pytest.mark.parametrize("votes", [1, 3])
def test_labels_and_scores_are_kept_without_a_pass(place: Place, votes: int) -> None:
    tables: dict[str, Any] = {"labels": LABELS | {"votes": votes}, "evaluation": EVALUATION}
    assert [place.run(**tables), place.run(**tables)] == [True, False]
    place.cells(CELLS.replace("awful,negative", "awful,positive"))
    assert [place.run(**tables), place.run(**tables)] == [True, False]
    other: dict[str, Any] = tables | {"evaluation": EVALUATION | {"metric": "exact"}}
    assert [place.run(**other), place.run(**other)] == [True, False]


def test_a_review_leaves_the_output_as_it_is(place: Place) -> None:
    tables: dict[str, Any] = {"labels": LABELS}
    place.run(**tables)
    job = place.job(tables)
    write_review(job, review_path(job), rows=2, seed=1, again=False, sandbox=True)
    assert place.run(**tables) is False


def test_a_metric_of_ones_own_is_computed_again(place: Place) -> None:
    (place.folder / "own_metric_of_unchanged.py").write_text("def score(answer, expected):\n    return 1.0\n")
    tables: dict[str, Any] = {
        "evaluation": {"expected": "gold", "metric": "python:own_metric_of_unchanged:score"}
    }
    assert [place.run(**tables), place.run(**tables)] == [True, True]


def test_another_ending_of_the_same_rows_is_written(place: Place) -> None:
    """The ending is in the metadata of a Parquet file."""
    place.run()
    stored = json.loads(place.record.read_text())
    known = OutputRecord(**stored["record"] | {"reason": "Interrupted."})
    keep_record(place.record, known)
    assert [place.run(), place.run()] == [True, False]


@pytest.mark.parametrize("damage", ["", "{}", "flip", None])
def test_a_damaged_record_counts_for_nothing(place: Place, damage: str | None) -> None:
    place.run()
    if damage == "flip":
        place.record.write_bytes(place.record.read_bytes().replace(b'"ok":3', b'"ok":2'))
    elif damage is None:
        place.record.unlink()
    else:
        place.record.write_text(damage)
    assert [place.run(), place.run()] == [True, False]
    assert place.record.stat().st_mode & 0o777 == 0o600


def test_findings_that_json_cannot_hold_are_not_kept(tmp_path: Path) -> None:
    record, output = tmp_path / "output.json", tmp_path / "out.csv"
    output.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    known = OutputRecord("x", empty, 0, "", {}, {"mean": 0.5})
    keep_record(record, known)
    assert unchanged_output(record, "x", output, lambda: None) == known
    assert unchanged_output(record, "y", output, lambda: None) is None
    record.unlink()
    keep_record(record, OutputRecord("x", empty, 0, "", {}, {"mean": math.nan}))
    assert not record.exists()


def test_the_output_that_is_read_again_can_be_interrupted(tmp_path: Path) -> None:
    record, output = tmp_path / "output.json", tmp_path / "out.csv"
    output.write_bytes(b"cells")
    keep_record(record, OutputRecord("x", "", 0, "", {}, {}))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unchanged_output(record, "x", output, interrupted)


def test_the_last_lines_say_that_the_output_is_unchanged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    summaries = [run_job(place.job({}), place.server_of_run) for _ in range(2)]
    written, unchanged = map(end_lines, summaries)
    assert "output    out.parquet" in written
    assert "output    out.parquet is unchanged" in unchanged
    assert written[-1] == unchanged[-1] == "Every row has an answer (3 rows)."
