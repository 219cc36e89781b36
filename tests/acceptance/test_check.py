"""`batchrun check`: one row end to end, and the journal whole."""

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.answering import answering, error
from tests.acceptance.command import COMMAND, Place


def test_one_row_is_sent_and_what_came_back_is_said(place: Place) -> None:
    place.texts("one", "two", "three")
    done = place.command("check", "job.toml")
    assert done.code == 0, done.err
    assert done.last_line.startswith("Row 1 has its answer.")
    for word in ("row       1: ok", "text", "tokens", "cost", "latency", "journal   1 answer, all whole"):
        assert word in done.out
    assert place.requests == 1
    assert not (place.folder / "out.parquet").exists()
    assert place.run().code == 0
    assert place.requests == 3, "the row is not sent again"
    done = place.command("check", "job.toml", "--json")
    assert (done.code, json.loads(done.out)["row"]) == (0, None)
    assert place.requests == 3


def test_what_is_wrong_ends_as_a_run_would(place: Place) -> None:
    place.texts("one")
    with answering(lambda _: error(401, "no such key")) as base_url:
        done = place.command("check", "job.toml", "--set", f"endpoint.base_url={base_url}")
    assert done.code == 5
    assert "no such key" in done.last_line
    with answering(lambda _: error(400, "no such model")) as base_url:
        done = place.command("check", "job.toml", "--set", f"endpoint.base_url={base_url}", "--json")
    assert done.code == 3
    assert json.loads(done.out)["attempt"]["error"] == "no such model"
    assert place.command("check", "job.toml", "--set", "budget.usd=0").code == 4


def test_a_damaged_answer_is_found(place: Place) -> None:
    place.texts("one", "two")
    assert place.run("budget.rows=1").code == 4
    journal = sqlite3.connect(place.folder / "out.run" / "journal.sqlite")
    journal.execute("UPDATE attempts SET response_crc32 = response_crc32 + 1")
    journal.commit()
    journal.close()
    done = place.command("check", "job.toml")
    assert done.code == 1
    assert "Traceback" not in done.err


def test_a_row_that_cannot_be_sent_is_left_out_and_a_table_without_rows_has_none(place: Place) -> None:
    (place.folder / "in.csv").write_text("id,text\n")
    done = place.command("check", "job.toml")
    assert (done.code, place.requests) == (0, 0), done.err
    assert "journal   0 answers" in done.out
    place.texts("", "two")
    done = place.command("check", "job.toml", "--set", "prompt.template={{ text }}")
    assert done.last_line.startswith("Row 2 has its answer."), done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_disk_behind_stdout_is_told_without_a_traceback(place: Place) -> None:
    place.texts("one")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "plan", "job.toml"], cwd=place.folder, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "No space left on device" in ended.stderr
