"""Evaluations as whole runs against the sandbox: what is asked, what is said of it, and when it stops."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.cli.evaluation_lines import comparison_lines
from batchrun.client.server import Server
from batchrun.errors import JobError, UsageError
from batchrun.evaluation.comparison import verdict
from batchrun.evaluation.frame import sampling_frame
from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.rows.dataset import open_dataset
from batchrun.rows.observer import Observer
from batchrun.runs.evaluate import compare_jobs, evaluate_job
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings, background

ROWS = 600
REPLIES = """
[[reply]]
pattern = "unreadable"
text = "Who knows?"
[[reply]]
pattern = "right .*B"
text = "no"
[[reply]]
pattern = "right"
text = "yes"
[[reply]]
pattern = "."
text = "no"
"""
TRUTH = sum(row % 60 != 7 and row % 5 != 0 for row in range(ROWS)) / ROWS


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    replies = tmp_path_factory.mktemp("replies") / "replies.toml"
    replies.write_text(REPLIES)
    with background(Settings(replies=replies, latency=0.005, latency_sigma=1.0)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four of five rows are answered rightly, in groups of 20; one in 60 answers is not a valid label."""
    kind = ["unreadable" if row % 60 == 7 else "wrong" if row % 5 == 0 else "right" for row in range(ROWS)]
    pl.DataFrame(
        {
            "text": [f"{kind[row]} {row} {'long ' * (row % 13)}" for row in range(ROWS)],
            "gold": ["yes"] * ROWS,
            "group": [f"g{row // 20}" for row in range(ROWS)],
            "language": ["de" if row % 4 == 0 else "en" for row in range(ROWS)],
        }
    ).write_parquet(tmp_path / "in.parquet")
    return tmp_path


def job_in(folder: Path, **tables: dict[str, Any]) -> Job:
    evaluation = {"expected": "gold", "metric": "choice"} | tables.pop("evaluation", {})
    return make_job(
        {
            "input": {"path": "in.parquet"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 16},
            "output": {"path": "out.parquet"},
            "labels": {"choices": ["yes", "no"]},
            "limits": {"concurrency": 50, "requests_per_minute": 10_000_000},
            "evaluation": evaluation,
            **tables,
        },
        folder,
        sandbox=True,
    )


def run(job: Job, sandbox: Sandbox) -> dict[str, Any]:
    return dict(run_job(job, Server(sandbox.base_url, "key", sandbox=True)))


def change(folder: Path, **columns: pl.Expr) -> None:
    pl.read_parquet(folder / "in.parquet").with_columns(**columns).write_parquet(folder / "in.parquet")


def asked_rows(job: Job) -> set[int]:
    """The rows whose requests the journal knows."""
    dataset = open_dataset(job, sandbox=True)
    with closing(sqlite3.connect(job.base / "out.run" / "journal.sqlite")) as journal:
        known = {row[0] for row in journal.execute("SELECT digest FROM attempts")}
    requests = [request for chunk in dataset.chunks([]) for request in chunk.requests]
    return {row for row, request in enumerate(requests) if getattr(request, "digest", None) in known}


def test_all_rows_asked_leave_nothing_open(folder: Path, sandbox: Sandbox) -> None:
    """Invalid labels count as wrong answers; the column score agrees with the report."""
    summary = run(job_in(folder), sandbox)
    report = summary["evaluation"]
    assert report["estimate"] == pytest.approx(TRUTH)
    assert report["interval"] == [report["estimate"]] * 2
    assert (report["n"], report["of"], report["missing"], summary["exit_code"]) == (ROWS, ROWS, 0, 3)
    output = pl.read_parquet(folder / "out.parquet")
    assert output["score"].mean() == pytest.approx(TRUTH)
    assert output.filter(pl.col("status") == "invalid")["score"].to_list() == [0.0] * 10
    rates = {row["label"]: row for row in report["classes"]}
    assert rates["yes"]["recall"]["value"] == pytest.approx(TRUTH)
    assert report["confusion"]["invalid"] == [10, 0]


def test_the_population_stays_open_after_all_rows(folder: Path, sandbox: Sandbox) -> None:
    report = run(job_in(folder, evaluation={"target": "population"}), sandbox)["evaluation"]
    low, high = report["interval"]
    assert low < TRUTH < high


@pytest.mark.parametrize(
    "drawn", [{}, {"cluster": "group"}, {"stratify": "language"}], ids=["rows", "clusters", "strata"]
)
def test_what_a_cap_buys_is_the_beginning_of_the_journaled_order(
    folder: Path, sandbox: Sandbox, drawn: dict[str, str]
) -> None:
    """With 50 in flight that finish in another order; a raised cap goes on with the same sample."""
    output = {"path": "out.parquet", "seed": 3}
    job = job_in(folder, evaluation=drawn, budget={"usd": 0.02}, output=output)
    summary = run(job, sandbox)
    assert summary["exit_code"] == 4
    report = summary["evaluation"]
    order = sampling_frame(open_dataset(job, sandbox=True)).order.tolist()
    asked = asked_rows(job)
    assert asked == set(order[: len(asked)])
    assert 50 < report["n"] == len(asked) < ROWS
    low, high = report["interval"]
    assert low < report["estimate"] < high
    assert report["usd"]["so_far"] == pytest.approx(summary["usd"]["settled"])
    with closing(sqlite3.connect(folder / "out.run" / "journal.sqlite")) as journal:
        ((plan,),) = journal.execute("SELECT sampling FROM runs").fetchall()
    assert json.loads(plan)["seed"] == 3
    whole = run(job_in(folder, evaluation=drawn, output=output), sandbox)
    assert whole["evaluation"]["estimate"] == pytest.approx(TRUTH)
    assert whole["this_run"]["requests"]["sent"] == ROWS - len(asked)


@pytest.mark.parametrize("drawn", ["stratify", "cluster"])
def test_the_sample_may_be_drawn_by_the_expected_column(folder: Path, drawn: str) -> None:
    """As `stratify = "gold"` gives every class its share."""
    job = job_in(folder, evaluation={drawn: "gold"})
    assert sorted(sampling_frame(open_dataset(job, sandbox=True)).order) == list(range(ROWS))


def test_a_decision_stops_the_run_and_is_found_again_without_a_request(
    folder: Path, sandbox: Sandbox
) -> None:
    job = job_in(folder, evaluation={"stop": {"above": 0.6, "below": 0.6}})
    summary = run(job, sandbox)
    assert (summary["exit_code"], summary["evaluation"]["decided"]) == (0, "above 0.6")
    assert 20 < summary["evaluation"]["n"] < ROWS / 2
    assert "the accuracy is above 0.6" in summary["reason"]
    again = run(job, sandbox)
    assert again["this_run"]["requests"]["sent"] == 0
    assert (again["exit_code"], again["evaluation"]["n"]) == (0, summary["evaluation"]["n"])


def test_a_decision_leaves_few_rows_that_it_did_not_need(folder: Path, sandbox: Sandbox) -> None:
    """As fast as this sandbox answers, all rows would be sent by the time of the decision."""
    limits = {"concurrency": 256, "requests_per_minute": 10_000_000}
    summary = run(job_in(folder, evaluation={"stop": {"above": 0.6}}, limits=limits), sandbox)
    sent, needed = summary["requests"]["sent"], summary["evaluation"]["n"] + summary["evaluation"]["missing"]
    assert summary["evaluation"]["decided"] == "above 0.6"
    assert sent - needed <= max(8, needed // 8)


def test_clusters_can_decide_too(folder: Path, sandbox: Sandbox) -> None:
    job = job_in(folder, evaluation={"stop": {"above": 0.3}, "cluster": "group"})
    summary = run(job, sandbox)
    assert summary["evaluation"]["decided"] == "above 0.3"
    assert summary["rows"]["pending"] > 0


def test_a_half_width_stops_the_run(folder: Path, sandbox: Sandbox) -> None:
    summary = run(job_in(folder, evaluation={"stop": {"half_width": 0.12}}), sandbox)
    low, high = summary["evaluation"]["interval"]
    assert (high - low) / 2 <= 0.12
    assert summary["rows"]["pending"] > 0


def test_rows_that_fail_are_missing_and_bounded(folder: Path, sandbox: Sandbox) -> None:
    """A tenth of the rows is refused for good."""
    refused = pl.int_range(pl.len()) % 10 == 3
    flagged = pl.lit("[sandbox:flag hate] ") + pl.col("text")
    change(folder, text=pl.when(refused).then(flagged).otherwise("text"))
    request = {"model": "abliterated-model", "max_tokens": 16, "flagged_categories": ["hate"]}
    report = run(job_in(folder, request=request), sandbox)["evaluation"]
    assert (report["missing"], report["n"]) == (60, 540)
    assert report["unscored"] == {"content_flagged": 60}
    least, most = report["bounds"]
    assert most - least == pytest.approx(0.1)
    assert least < report["estimate"] < most


def test_rows_of_which_nothing_is_expected_are_no_part_of_the_population(
    folder: Path, sandbox: Sandbox
) -> None:
    change(folder, gold=pl.when(pl.int_range(pl.len()) < 100).then(None).otherwise("gold"))
    report = run(job_in(folder), sandbox)["evaluation"]
    assert (report["of"], report["not_scorable"], report["missing"]) == (500, 100, 0)


def test_rows_that_share_an_answer_are_each_scored_against_their_own_column(
    folder: Path, sandbox: Sandbox
) -> None:
    """One request for all; half of the rows expect something else."""
    pl.DataFrame({"text": ["right"] * 40, "gold": ["yes", "no"] * 20}).write_parquet(folder / "in.parquet")
    summary = run(job_in(folder, evaluation={"stop": {"half_width": 0.01}}), sandbox)
    assert summary["requests"]["sent"] == 1
    assert (summary["evaluation"]["n"], summary["evaluation"]["estimate"]) == (40, 0.5)
    assert summary["evaluation"]["interval"] == [0.5, 0.5]


def test_the_inputs_order_is_no_sample_and_says_so(folder: Path, sandbox: Sandbox) -> None:
    job = job_in(folder, output={"path": "out.parquet", "order": "input"}, budget={"rows": 100})
    report = run(job, sandbox)["evaluation"]
    assert "not a random sample" in report["method"]
    low, high = report["interval"]
    assert high - low == pytest.approx(5 / 6)


def test_a_function_of_ones_own_scores(folder: Path, sandbox: Sandbox) -> None:
    (folder / "my_scores.py").write_text(
        "def half(answer, expected):\n    return 0.5 if answer == expected else 0.0\n"
    )
    job = job_in(folder, evaluation={"metric": "python:my_scores:half"}, budget={"rows": 200})
    report = run(job, sandbox)["evaluation"]
    assert report["score"] == "mean score"
    low, high = report["interval"]
    assert low < TRUTH / 2 < high


def test_two_prompts_are_compared_on_the_rows_that_both_have_asked(folder: Path, sandbox: Sandbox) -> None:
    """B answers all rows wrongly; A has the smaller budget."""
    a = job_in(folder, budget={"rows": 150})
    b = job_in(
        folder, prompt={"template": "{{ text }} B"}, output={"path": "b.parquet"}, budget={"rows": 200}
    )
    run(a, sandbox)
    run(b, sandbox)
    comparison = compare_jobs(a, b, sandbox=True)
    assert (comparison["rows"], comparison["n"]) == (150, 150)
    assert comparison["interval"][0] > 0.5
    assert comparison["difference"] == comparison["a"]["estimate"] - comparison["b"]["estimate"]
    assert comparison["p_value"] < 1e-6
    assert comparison["b"]["usd_per_correct"] is None
    same = compare_jobs(a, a, sandbox=True)
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)
    (difference,) = (
        line
        for line in comparison_lines(same | {"difference": -0.0, "interval": [-0.0, 0.0]}, ("a", "a"))
        if line.startswith("A - B")
    )
    assert "+0.000 (95 %: +0.000 to +0.000)" in difference
    assert "the same accuracy" in verdict(same | {"interval": [-0.0, 0.0]})
    assert "between 0.010 lower and 0.000 higher" in verdict(same | {"interval": [0.0, 0.01]})


def test_jobs_that_score_different_things_are_not_compared(folder: Path, sandbox: Sandbox) -> None:
    a = job_in(folder, budget={"rows": 5})
    run(a, sandbox)
    with pytest.raises(UsageError, match="different metrics: choice and exact"):
        compare_jobs(a, job_in(folder, evaluation={"metric": "exact"}), sandbox=True)
    pl.read_parquet(folder / "in.parquet").head(10).write_parquet(folder / "few.parquet")
    with pytest.raises(UsageError, match="different inputs: 600 and 10 rows"):
        compare_jobs(a, job_in(folder, input={"path": "few.parquet"}), sandbox=True)


def test_the_report_of_the_journal_is_that_of_the_run(folder: Path, sandbox: Sandbox) -> None:
    job = job_in(folder, budget={"rows": 120})
    of_run = run(job, sandbox)["evaluation"]
    assert evaluate_job(job, sandbox=True) == of_run


def test_a_job_without_an_evaluation_is_told_how_to_get_one(folder: Path) -> None:
    job = make_job(
        {
            "input": {"path": "in.parquet"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "m"},
            "output": {"path": "out.parquet"},
        },
        folder,
    )
    with pytest.raises(UsageError, match=r"no \[evaluation\]"):
        evaluate_job(job)


@pytest.mark.parametrize("cluster", [{}, {"cluster": "group"}])
def test_an_empty_table_has_nothing_to_decide(
    folder: Path, sandbox: Sandbox, cluster: dict[str, str]
) -> None:
    pl.read_parquet(folder / "in.parquet").head(0).write_parquet(folder / "in.parquet")
    summary = run(job_in(folder, evaluation={"stop": {"above": 0.5}} | cluster), sandbox)
    report = summary["evaluation"]
    assert (report["estimate"], report["interval"], report["decided"]) == (None, None, None)
    assert (report["n"], report["of"], report["not_scorable"]) == (0, 0, 0)


def test_a_table_of_which_nothing_is_expected_is_refused_before_anything_is_sent(
    folder: Path, sandbox: Sandbox
) -> None:
    change(folder, gold=pl.lit(None, pl.String))
    with pytest.raises(JobError, match="'gold' is empty in all 600 rows"):
        run(job_in(folder), sandbox)
    assert not (folder / "out.run").exists()


def test_rates_of_classes_agree_with_the_score(folder: Path, sandbox: Sandbox) -> None:
    """Case, marks and lists in the expected cells make no wrong answer of a right one."""
    spelled = pl.Series("gold", [["Yes"], ["no", "yes."], ["YES", None]] * (ROWS // 3))
    pl.read_parquet(folder / "in.parquet").with_columns(spelled).write_parquet(folder / "in.parquet")
    report = run(job_in(folder), sandbox)["evaluation"]
    confusion = report["confusion"]
    right = sum(confusion["counts"][place][place] for place in range(len(confusion["labels"])))
    assert right == round(report["estimate"] * ROWS)
    assert [label.lower() for label in confusion["labels"]] == ["yes", "no"]


@pytest.mark.parametrize(
    "cell",
    [
        datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
        timedelta(seconds=5),
        [datetime(2024, 1, 2, 3, 4, tzinfo=UTC)],
        Decimal("1.50"),
    ],
)
def test_a_run_scores_cells_of_any_type_as_its_report_does(folder: Path, cell: Any) -> None:
    """It stops early where the report says that it could."""
    text = str(cell[0] if isinstance(cell, list) else cell)
    change(folder, gold=pl.lit(pl.Series([cell])).first())
    replies = folder / "replies.toml"
    replies.write_text(f'[[reply]]\npattern = "."\ntext = "{text}"\n')
    job = job_in(folder, evaluation={"metric": "exact", "stop": {"above": 0.5}}, labels={"pattern": ".*"})
    with background(Settings(replies=replies)) as sandbox:
        summary = run(job, sandbox)
    assert summary["evaluation"]["decided"] == "above 0.5"
    assert summary["rows"]["pending"] > ROWS // 2


class Forecasts(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def forecast_made(self, text: str) -> None:
        self.texts.append(text)


def test_a_resumed_run_foretells_what_the_budget_buys_in_all(folder: Path, sandbox: Sandbox) -> None:
    """With votes, which count as no rows of their own."""
    labels = {"choices": ["yes", "no"], "votes": 3}
    first = run(job_in(folder, labels=labels, budget={"rows": 200}), sandbox)
    cap = 1.5 * first["usd"]["settled"]
    heard = Forecasts()
    job = job_in(folder, labels=labels, budget={"usd": round(cap, 6)})
    run_job(job, Server(sandbox.base_url, "key", sandbox=True), observers=[lambda _: heard])
    foretold = re.search(r"buys about (\d+) of", heard.texts[0])
    assert foretold is not None
    assert 260 <= int(foretold[1]) <= 340
