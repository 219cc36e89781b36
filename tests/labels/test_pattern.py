"""Answers that match the job's pattern as a whole."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import make_parser

CODE = "[A-Z]{2}-[0-9]{3}"


@pytest.mark.parametrize(
    ("pattern", "text", "label"),
    [
        (CODE, "AB-123", "AB-123"),
        (CODE, "  AB-123\n", "AB-123"),
        (CODE, '"AB-123"', "AB-123"),
        (CODE, "AB-123.", "AB-123"),
        (CODE, "**AB-123**", "AB-123"),
        (CODE, "`AB-123`", "AB-123"),
        (CODE, "“AB-123”", "AB-123"),
        (CODE, "```\nAB-123\n```", "AB-123"),
        (CODE, "```text\nAB-123\n```", "AB-123"),
        (CODE, "Code: AB-123", "AB-123"),
        (CODE, "**Code:** `AB-123`", None),
        (CODE, "**Code**: `AB-123`.", "AB-123"),
        (CODE, "The answer is AB-123.", "AB-123"),
        (CODE, "<think>XY-999?</think>AB-123", "AB-123"),
        (CODE, "ab-123", None),
        (CODE, "AB-1234", None),
        (CODE, "AB-123 AB-124", None),
        (CODE, "Not: AB-123", None),
        (CODE, "AB-123?", None),
        ("(?i)" + CODE, "ab-123", "ab-123"),
        ("a|ab", "ab", "ab"),
        ("[1-5]", "-1", None),
        ("[1-5]", "5", "5"),
        ("-?[0-9]+", "-1", "-1"),
        (".*", '"as it is"', '"as it is"'),
        ("a$", "a", "a"),
        (r"[\s\S]+", "two\nlines", "two\nlines"),
        (".+", "two\nlines", None),
        (r"\d+", "١٢", None),
        (r"\p{L}+", "Ölfeld", "Ölfeld"),
    ],
)
def test_pattern(pattern: str, text: str, label: str | None) -> None:
    found = make_parser(Labels(pattern=pattern)).read(text)
    if label is None:
        assert isinstance(found, InvalidLabel)
        assert found.reason == f"the answer doesn't match the pattern {pattern}"
    else:
        assert found == Label(label, label)


@given(st.from_regex(CODE, fullmatch=True), st.sampled_from(['"{}"', "Label: {}", "`{}`.", "{}\n", "[{}]"]))
def test_wrapped_match_is_read(code: str, around: str) -> None:
    label = make_parser(Labels(pattern=CODE)).read(around.format(code))
    assert label == Label(code, code)
    assert make_parser(Labels(pattern=CODE)).read(code) == label


def test_cut_answer_may_be_a_part_only() -> None:
    wrong = make_parser(Labels(pattern="[0-9]+")).read("12", truncated=True)
    assert wrong == InvalidLabel("cut_off", "the answer was cut off at max_tokens, and may be a part only")


def test_empty_answer() -> None:
    assert make_parser(Labels(pattern=".*")).read(" ") == InvalidLabel("empty", "the answer is empty")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*a){20}b"])
def test_pattern_that_would_backtrack_takes_no_time(pattern: str) -> None:
    begin = time.process_time()
    assert isinstance(make_parser(Labels(pattern=pattern)).read("a" * 20_000), InvalidLabel)
    assert time.process_time() - begin < 2


def test_long_answer_is_not_looked_at() -> None:
    wrong = make_parser(Labels(pattern="a+")).read("a" * 20_001)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.code == "too_long"
