"""The table [evaluation]: what it may hold, and how its mistakes are told."""

from pathlib import Path

import pytest

from batchrun.job.evaluation import EarlyStop
from batchrun.job.file import load_job
from batchrun.job.spec import asks_in_random_order
from tests.job.conftest import MINIMAL, Refusal

EVALUATION = '\n[evaluation]\nexpected = "gold"\nmetric = "exact"\n'


def test_a_job_without_the_table_evaluates_nothing(minimal: Path) -> None:
    job = load_job(minimal)
    assert job.evaluation is None
    assert not asks_in_random_order(job)


@pytest.mark.parametrize(
    ("order", "random"), [("", True), ('order = "input"', False), ('order = "random"', True)]
)
def test_an_evaluation_asks_in_random_order_unless_output_order_is_given(
    minimal: Path, order: str, random: bool
) -> None:
    text = MINIMAL.replace('path = "labels.parquet"', f'path = "labels.parquet"\n{order}')
    minimal.write_text(text + EVALUATION)
    assert asks_in_random_order(load_job(minimal)) is random


def test_numbers_are_read_from_file_and_overrides(minimal: Path) -> None:
    minimal.write_text(MINIMAL + EVALUATION + "stop = {half_width = 0.02, above = 0.9}")
    stop = EarlyStop(half_width=0.02, above=0.9, below=0.5)
    evaluation = load_job(minimal, ["evaluation.stop.below=0.5"]).evaluation
    assert evaluation is not None
    assert evaluation.stop == stop


def test_python_metric_may_stand_in_a_package(minimal: Path) -> None:
    job = load_job(minimal, ["evaluation.expected=gold", "evaluation.metric=python:a.b:score"])
    assert job.evaluation is not None
    assert job.evaluation.metric == "python:a.b:score"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["metric=exakt"], '[evaluation] metric: there is no metric "exakt"; did you mean exact?'),
        (
            ["metric=zzz"],
            (
                '[evaluation] metric: there is no metric "zzz"; metrics are exact, contains, regex, numeric, '
                "f1, choice, json, python:module:function"
            ),
        ),
        (
            ["metric=python:scores"],
            (
                "[evaluation] metric: expected python:module:function, such as python:scores:similarity, "
                'got "python:scores"'
            ),
        ),
        (
            ["metric=python:a..b:score"],
            (
                "[evaluation] metric: expected python:module:function, such as python:scores:similarity, "
                'got "python:a..b:score"'
            ),
        ),
        (['expected=""'], "[evaluation] expected: must not be empty"),
        (["tolerance=0.1"], '[evaluation] tolerance: goes with metric = "numeric"'),
        (["metric=numeric", "tolerance=-1"], "[evaluation] tolerance: expected a number >= 0, got -1"),
        (['cluster=""'], "[evaluation] cluster: expected the name of a column, got an empty text"),
        (
            ["cluster=a", "stratify=b"],
            "[evaluation]: give one of cluster and stratify; both together aren't supported",
        ),
        (["stop={}"], "[evaluation] stop: give half_width, above or below"),
        (["stop=0.1"], "[evaluation] stop: expected a table, got 0.1"),
        (["stop.halfwidth=0.1"], "[evaluation] stop.halfwidth: unknown key; did you mean stop.half_width?"),
        (
            ["stop.zz=0.1"],
            "[evaluation] stop.zz: unknown key; keys of stop are half_width, above, below",
        ),
        (["stop.above=1"], "[evaluation] stop.above: expected a number < 1, got 1"),
        (["stop.above=high"], '[evaluation] stop.above: expected a number, got "high"'),
        (
            ["stop.above=0.5", "stop.below=0.6"],
            "[evaluation] stop: above must not be smaller than below, else one of them always holds",
        ),
        (
            ["stop.above=0.5", "stratify=a"],
            (
                "[evaluation] stop: doesn't go with stratify: no valid way to stop early is known "
                "to batchrun for a stratified sample.\nLeave out one of the two."
            ),
        ),
        (["expcted=gold"], "[evaluation] expcted: unknown key; did you mean evaluation.expected?"),
    ],
)
def test_mistakes(refusal: Refusal, overrides: list[str], text: str) -> None:
    assert refusal(EVALUATION, *(f"evaluation.{override}" for override in overrides)) == text


def test_missing_keys_are_missed_by_the_table_alone(refusal: Refusal) -> None:
    assert refusal('\n[evaluation]\nmetric = "exact"') == (
        "[evaluation] expected: missing; [evaluation] needs evaluation.expected"
    )


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        (EVALUATION, "[evaluation]"),
        ('\n[labels]\nchoices = ["a", "b"]\nvotes = 3\n', "labels.votes"),
        ('\n[labels]\nchoices = ["a", "b"]\nrepair = 1\n', "labels.repair"),
        ("\n[retry]\nmax_tokens = [64]\n", "retry.max_tokens"),
    ],
)
def test_the_one_free_request_is_not_for_what_takes_more(refusal: Refusal, tables: str, key: str) -> None:
    text = refusal(f"free_tier = true\n{tables}")
    assert text == f"[request] free_tier: allows one request; leave {key} out, or set a key instead"
