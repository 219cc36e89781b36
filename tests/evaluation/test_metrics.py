"""Metrics: what scores what, that nothing is raised, and that functions of one's own lose no row."""

import json
import string
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import JobError
from batchrun.job.evaluation import METRICS, Evaluation
from batchrun.rows.metrics import Metric, Score, Unscored, make_metric

CELLS: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.decimals()
    | st.dates()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def metric(name: str, folder: Path = Path(), tolerance: float | None = None) -> Metric:
    return make_metric(Evaluation(expected="gold", metric=name, tolerance=tolerance), folder)


def score(name: str, answer: str | None, expected: object, tolerance: float | None = None) -> Score:
    return metric(name, tolerance=tolerance).score(answer, expected)


@pytest.mark.parametrize(
    ("name", "answer", "expected", "right"),
    [
        ("exact", " Paris\n", "Paris", True),
        ("exact", "paris", "Paris", False),
        ("exact", "caf\u0065\u0301", "caf\u00e9", True),
        ("exact", "3", 3, True),
        ("exact", "3", 3.0, True),
        ("exact", "3.0", 3.0, True),
        ("exact", "2.5", Decimal("2.5"), True),
        ("exact", "true", True, True),
        ("exact", "False", False, True),
        ("exact", "2026-01-31", date(2026, 1, 31), True),
        ("exact", "b", ["a", "b", None], True),
        ("exact", "c", ["a", "b"], False),
        ("exact", "", "", True),
        ("contains", "It is  PARIS, of course", "is paris", True),
        ("contains", "It is Rome", "Paris", False),
        ("contains", "There are 42.", 42, True),
        ("contains", "Rome or Oslo", ["Paris", "Oslo"], True),
        ("regex", "The year 1987.", r"\b19\d\d\b", True),
        ("regex", "The year 2087.", r"\b19\d\d\b", False),
        ("regex", "colour", ["gray", "colou?r"], True),
        ("numeric", "12 * 3 = 36", 36, True),
        ("numeric", "It is 1,234.50 EUR", 1234.5, True),
        ("numeric", "It is 1,234.50", "1234.5", True),
        ("numeric", "-5", 5, False),
        ("numeric", "\u22125", -5, True),
        ("numeric", "from 3-5", 5, True),
        ("numeric", "1.5e3", 1500, True),
        ("numeric", "v2", 2, False),
        ("numeric", "none", 0, False),
        ("numeric", "7", [6, 7], True),
        ("numeric", "1e99999999999999999999999", 1, False),
        ("choice", '"Positive."', "positive", True),
        ("choice", "**positive**", "positive", True),
        ("choice", "not positive", "positive", False),
        ("choice", "C++", "C", False),
        ("choice", "C#", "c#", True),
        ("choice", "...", "!", False),
        ("choice", "true", True, True),
        ("json", '{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1.0}', True),
        ("json", '```json\n{"a": 1}\n```', {"a": 1}, True),
        ("json", '{"a": 1}', {"a": 1, "b": None}, True),
        ("json", '{"a": 1, "b": 2}', {"a": 1}, False),
        ("json", '{"a": true}', {"a": 1}, False),
        ("json", "[1, 2]", [2, 1], False),
        ("json", "[1, 2]", [1, 2], True),
        ("json", "not json", {"a": 1}, False),
        ("json", '"2026-01-31"', date(2026, 1, 31), True),
        ("json", "[" * 100_000, {"a": 1}, False),
    ],
)
def test_right_and_wrong(name: str, answer: str, expected: object, right: bool) -> None:
    assert metric(name).binary
    assert score(name, answer, expected) == float(right)


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("the black cat", "cat", 2 / 3),
        ("cat cat dog", "cat dog dog", 2 / 3),
        ("fish", "cat", 0.0),
        ("the", "", 1.0),
        ("cat", "the", 0.0),
        ("one two", ["three", "two"], 2 / 3),
    ],
)
def test_f1_is_that_of_squad(answer: str, expected: object, f1: float) -> None:
    assert not metric("f1").binary
    assert score("f1", answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "tolerance", "right"), [("0.3", 0.1, 1), ("0.31", 0.1, 0), ("0.2", None, 1)]
)
def test_tolerance_is_exact_in_decimals(answer: str, tolerance: float | None, right: int) -> None:
    """0.3 is 0.1 away from 0.2, though not in floats."""
    assert score("numeric", answer, 0.2, tolerance) == right


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        *((name, None, "nothing is expected") for name in METRICS),
        ("exact", float("nan"), "nothing is expected"),
        ("exact", [], "nothing is expected"),
        ("exact", {"a": 1}, "the expected cell is not text"),
        ("contains", " ", "the expected text is empty"),
        ("regex", "(", "the expected cell is not a regular expression"),
        ("regex", ["a", "("], "the expected cell is not a regular expression"),
        ("regex", 5, "the expected cell is not text"),
        ("numeric", "many", "the expected cell is not a number"),
        ("numeric", True, "the expected cell is not a number"),
        ("json", "{", "the expected cell is not JSON"),
        ("json", {"a": object()}, "the expected cell can't be written as JSON"),
    ],
)
def test_a_cell_that_nothing_can_match_is_said_to_be_so(name: str, expected: object, reason: str) -> None:
    assert score(name, "answer", expected) == Unscored(reason)


def test_an_answer_without_a_valid_label_is_wrong() -> None:
    assert [score(name, None, "1") for name in METRICS] == [0.0] * len(METRICS)


@given(st.sampled_from(METRICS), st.none() | st.text(), CELLS)
def test_whatever_comes_in_a_score_or_a_reason_comes_out(
    name: str, answer: str | None, expected: Any
) -> None:
    made = metric(name)
    result = made.score(answer, expected)
    if not isinstance(result, Unscored):
        assert 0 <= result <= 1
        assert not made.binary or result in (0, 1)


@given(st.text(string.ascii_letters + " +-#", min_size=1))
def test_what_was_expected_is_right_word_for_word(text: str) -> None:
    for name in ("exact", "choice", "f1"):
        assert score(name, text, text) == 1.0


@given(CELLS)
def test_json_is_equal_to_itself(cell: Any) -> None:
    try:
        text = json.dumps(cell, allow_nan=False)
    except (TypeError, ValueError):
        return
    if cell is not None and "\\ud" not in text and len(text) < 1_000:
        assert score("json", text, text) == 1.0


FUNCTIONS = """
import numpy
from dataclasses import dataclass

def half(answer, expected): return 0.5
def same(answer, expected) -> bool: return answer == expected
def array(answer, expected): return numpy.float64(0.25)
def secret(answer, expected): raise ValueError(f"{answer} {expected}")
def much(answer, expected): return 1.5
def nothing(answer, expected): return None
def text(answer, expected): return "0.5"
def nan(answer, expected): return float("nan")
def maybe(answer, expected) -> bool: return 0.5
def one(answer): return 1
async def later(answer, expected): return 1
number = 5
"""


def own(folder: Path, function: str) -> Metric:
    module = f"scores_{abs(hash(folder))}"
    (folder / f"{module}.py").write_text(FUNCTIONS)
    return metric(f"python:{module}:{function}", folder)


def test_function_of_ones_own(tmp_path: Path) -> None:
    assert own(tmp_path, "half").score("a", "b") == 0.5
    assert not own(tmp_path, "half").binary
    same = own(tmp_path, "same")
    assert (same.binary, same.score("a", "a"), same.score("a", "b")) == (True, 1.0, 0.0)
    assert own(tmp_path, "array").score("a", ["list", "as it is"]) == 0.25


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("secret", ":secret raised ValueError (scores_"),
        ("much", ":much returned 1.5, not a number from 0 to 1"),
        ("nothing", ":nothing raised TypeError"),
        ("text", ":text returned str, not a number from 0 to 1"),
        ("nan", ":nan returned nan, not a number from 0 to 1"),
        ("maybe", ":maybe returned 0.5, not true or false"),
    ],
)
def test_function_that_fails_costs_the_score_alone(tmp_path: Path, function: str, reason: str) -> None:
    """The reason names function and line, and never shows the answer, which the exception here does."""
    result = own(tmp_path, function).score("private answer", "gold")
    assert isinstance(result, Unscored)
    assert reason in result.reason
    assert "private" not in result.reason


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("missing", "has no function missing"),
        ("number", "has no function number"),
        ("later", "has no function later"),
        ("one", "must take two arguments, the answer and what is expected"),
    ],
)
def test_function_that_cannot_be_one_is_refused(tmp_path: Path, function: str, text: str) -> None:
    with pytest.raises(JobError, match=text):
        own(tmp_path, function)


def test_module_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken_scores.py").write_text("def f(:")
    for module, kind in (("no_such_scores", "ModuleNotFoundError"), ("broken_scores", "SyntaxError")):
        with pytest.raises(JobError, match=f"can't import {module} from .*: {kind}: "):
            metric(f"python:{module}:f", tmp_path)
