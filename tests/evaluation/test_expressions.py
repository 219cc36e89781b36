"""Expressions and templates over data that would run for years: each ends within about a second."""

import time
from pathlib import Path

import pytest
import regex

from batchrun.client.templates import RenderError, Templates
from batchrun.job.evaluation import Evaluation
from batchrun.rows.metrics import Unscored, make_metric
from batchrun.sandbox.replies import Reply, reply_text

HOSTILE = "(a+)+$"
TEXT = "a" * 5_000 + "b"


def test_a_cell_that_backtracks_is_unscored_and_waited_for_once() -> None:
    started = time.process_time()
    for _ in range(50):
        assert isinstance(metric(TEXT, HOSTILE), Unscored)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "pattern",
    ["a{99999999999}", "(" * 5_000 + ")" * 5_000, "a" * 1_000_000, "(?P<x", "((a{9999}){9999}){9999}"],
)
def test_an_expression_that_is_none_or_too_large_raises_nothing(pattern: str) -> None:
    started = time.process_time()
    metric("aaa", pattern)
    assert time.process_time() - started < 3


def test_an_expression_means_what_it_means_in_python() -> None:
    assert metric("The answer is 42.", r"(?i)\banswer\b.*(?=4)(?P<n>\d+)") == 1.0
    assert metric("no", "(?x) y e s") == 0.0


def test_an_answer_of_blank_lines_is_scored_at_once() -> None:
    started = time.process_time()
    assert score("json", "```" + "\n" * 100_000, "{}") == 0.0
    assert time.process_time() - started < 1


def test_a_reply_of_the_sandbox_that_backtracks_does_not_match() -> None:
    started = time.process_time()
    replies = [
        Reply(regex.compile(HOSTILE), None, ["never"], [1.0]),
        Reply(regex.compile("."), None, ["{0}!"], [1.0]),
    ]
    assert reply_text(replies, "", TEXT, bytes(32)) == "a!"
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        (
            "{% for c in text %}{% for d in text %}{% for e in text %}{% endfor %}{% endfor %}{% endfor %}",
            "than",
        ),
        ("{{ '%999999999d'|format(1) }}", "width"),
        ("{{ '%*d'|format(999999999, 1) }}", "width"),
    ],
)
def test_a_template_that_never_ends_fails_its_row(template: str, reason: str) -> None:
    templates = Templates([("prompt.template", template)], ["text"])
    started = time.process_time()
    with pytest.raises(RenderError, match=reason):
        templates.render("prompt.template", {"text": "x" * 10_000})
    assert time.process_time() - started < 10


def test_format_is_the_engine_s_own() -> None:
    templates = Templates([("prompt.template", "{{ '%s: %05.1f'|format(text, 2.25) }}")], ["text"])
    assert templates.render("prompt.template", {"text": "x"}) == "x: 002.2"


def metric(answer: str, expected: str) -> object:
    return score("regex", answer, expected)


def score(name: str, answer: str, expected: str) -> object:
    return make_metric(Evaluation(expected="gold", metric=name), Path()).score(answer, expected)
