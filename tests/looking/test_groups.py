"""`evaluate --by`, and `compare` with the rows that differ."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from batchrun.cli import batchrun_group
from batchrun.errors import UsageError
from batchrun.evaluation.comparison import verdict
from batchrun.evaluation.statistics.intervals import estimate_rows
from batchrun.runs.evaluate import evaluate_job
from batchrun.sandbox import Sandbox
from tests.looking.conftest import Finished, finish


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Finished:
    """Thirty of the sixty rows, drawn at random."""
    return finish(tmp_path_factory.mktemp("half"), sandbox, budget={"rows": 30})


def test_each_group_of_a_whole_table_has_its_own_mean(finished: Finished) -> None:
    report = evaluate_job(finished.job, sandbox=True, by="language")
    output = pl.read_parquet(finished.folder / "out.parquet")
    groups = {group["group"]: group for group in report["by"]["groups"]}
    assert list(groups) == ["en", "de"]
    for language, group in groups.items():
        rows = output.filter(pl.col("language") == language)
        scores = rows["score"].drop_nulls()
        assert group["estimate"] == pytest.approx(scores.mean())
        assert (group["n"], group["of"], group["missing"]) == (
            len(scores),
            len(rows),
            rows["score"].null_count(),
        )
        assert group["usd"] == pytest.approx(rows["cost_usd"].sum())


def test_a_sampled_group_has_the_interval_of_a_random_sample_of_it(half: Finished) -> None:
    report = evaluate_job(half.job, sandbox=True, by="language")
    output = pl.read_parquet(half.folder / "out.parquet")
    for group in report["by"]["groups"]:
        rows = output.filter(pl.col("language") == group["group"])
        scores = rows["score"].drop_nulls().to_numpy().astype(np.float64)
        expected = estimate_rows(scores, len(rows), binary=True)
        assert expected is not None
        assert 0 < group["n"] < group["of"] == len(rows)
        assert group["interval"] == pytest.approx([expected.low, expected.high])


def test_rows_in_the_input_s_order_give_certain_bounds_by_group(tmp_path: Path, sandbox: Sandbox) -> None:
    output = {"path": "out.parquet", "order": "input"}
    part = finish(tmp_path, sandbox, budget={"rows": 8}, output=output)
    (english, german) = evaluate_job(part.job, sandbox=True, by="language")["by"]["groups"]
    assert (german["n"], german["of"]) == (2, 15)
    assert german["interval"] == [pytest.approx(1 / 15), pytest.approx(14 / 15)]
    assert english["interval"][0] == pytest.approx(5 / 45)


def test_an_early_stop_is_a_caution_for_the_groups(tmp_path: Path, sandbox: Sandbox) -> None:
    evaluation = {"expected": "gold", "metric": "choice", "stop": {"above": 0.2}}
    stopped = finish(tmp_path, sandbox, evaluation=evaluation)
    report = evaluate_job(stopped.job, sandbox=True, by="language")
    assert report["decided"] == "above 0.2"
    assert "lucky moment" in report["by"]["warnings"][0]


def test_people_see_a_line_a_group(finished: Finished) -> None:
    lines = finished.command("evaluate", "--by", "language").stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("language "))
    assert [line.split()[:4] for line in lines[place + 1 :]] == [
        ["en", "44", "of", "45"],
        ["de", "15", "of", "15"],
    ]


def test_a_column_that_is_not_there_or_names_each_row_is_an_error(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="Did you mean 'language'"):
        evaluate_job(finished.job, sandbox=True, by="langage")
    monkeypatch.setattr("batchrun.evaluation.groups.MOST_GROUPS", 59)
    with pytest.raises(UsageError, match="60 different values"):
        evaluate_job(finished.job, sandbox=True, by="id")


def compared(a: Finished, b: Finished, *options: str) -> Any:
    jobs = [str(each.folder / "job.toml") for each in (a, b)]
    return CliRunner().invoke(batchrun_group, ["compare", *jobs, "--sandbox", *options])


def test_compare_prints_the_rows_that_differ_with_both_answers(finished: Finished, other: Finished) -> None:
    done = compared(finished, other, "--rows", "--limit", "100", "--json")
    pairs = json.loads(done.stdout)["rows_that_differ"]
    assert len(pairs) == 59
    assert all(a["row"] == b["row"] and a["score"] != b["score"] for a, b in pairs)
    of_row_1 = next(pair for pair in pairs if pair[0]["row"] == 1)
    assert [side["label"] for side in of_row_1] == ["yes", "no"]
    text = compared(finished, other, "--rows", "--limit", "1").stdout
    assert "A         " in text
    assert "(score " in text


def test_compare_says_in_a_sentence_which_is_better(finished: Finished, other: Finished) -> None:
    last = compared(finished, other).stdout.splitlines()[-1]
    assert last.startswith("A is better: its accuracy is 0.")
    swapped = compared(other, finished).stdout.splitlines()[-1]
    assert swapped.startswith("B is better: its accuracy is 0.")


def side(usd_per_row: float | None) -> dict[str, Any]:
    return {"usd_per_row": usd_per_row}


def test_verdicts() -> None:
    both = {"score": "accuracy", "a": side(0.002), "b": side(0.001)}
    better = verdict(both | {"difference": 0.031, "interval": [0.01, 0.052]})
    assert better == (
        "A is better: its accuracy is 0.031 higher (95 %: 0.010 to 0.052), and a row costs 2 times as much."
    )
    worse = verdict(both | {"difference": -0.031, "interval": [-0.052, -0.01]})
    assert worse.startswith(
        "B is better: its accuracy is 0.031 higher (95 %: 0.010 to 0.052), and a row costs 0.5"
    )
    open_ = verdict(both | {"difference": 0.01, "interval": [-0.03, 0.05]})
    assert "B's accuracy is between 0.050 lower and 0.030 higher" in open_
    assert "no row" in verdict(both | {"difference": None, "interval": None})
