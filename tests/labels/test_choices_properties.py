"""What holds of every answer: a label is one of the choices, and never one of two."""

import time
import unicodedata
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrun.errors import JobError
from batchrun.job.labels import Labels, check_labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import LabelParser, make_parser

SETS = (
    ("positive", "negative", "neutral"),
    ("good", "not good", "very good", "bad"),
    ("yes", "no"),
    ("A", "A+", "B", "C"),
    ("1", "2", "3", "10"),
    ("very_positive", "off-topic", "Lob", "Rückfrage"),
    ("正面", "负面"),
    ("C", "C++", "C#"),
    ("<none>", "(other)", "n/a"),
)
AROUND = """
not no the answer is label : . , ! ? - + * ** ``` " ' ( ) { } < > # = / 0.5 or and but maybe isn't Sentiment:
<think> </think> because \\boxed{ great é
"""
WORDS = (*(choice for choices in SETS for choice in choices), *AROUND.split(), "The label is", "\n", "\u200b")

choice_sets = st.sampled_from(SETS)
fragments = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=12)
answers = st.builds(lambda parts, glue: glue.join(parts), fragments, st.sampled_from(["", " ", "\n", ". "]))


@cache
def parser(choices: tuple[str, ...]) -> LabelParser:
    return make_parser(Labels(choices=choices))


@given(choice_sets, answers, st.booleans())
def test_a_label_is_one_of_the_choices(choices: tuple[str, ...], answer: str, truncated: bool) -> None:
    label = parser(choices).read(answer, truncated)
    if isinstance(label, Label):
        assert label.text in choices
        assert label.value == label.text
    else:
        assert label.code
        assert label.reason == label.reason.strip()
        assert "\n" not in label.reason


@given(choice_sets, st.data())
def test_an_answer_that_names_two_is_no_label(choices: tuple[str, ...], data: st.DataObject) -> None:
    """Two choices as words of their own, in any order, with anything around and between them."""
    one, two = data.draw(st.permutations(choices))[:2]
    assume(one not in two)
    assume(two not in one)
    parts = data.draw(st.tuples(answers, answers, answers))
    answer = f"{parts[0]} {one} {parts[1]} {two} {parts[2]}"
    assume("</think>" not in answer)  # what stands before it is not part of the answer
    assert isinstance(parser(choices).read(answer), InvalidLabel)


@given(
    choice_sets, st.data(), st.sampled_from(["not", "isn't", "never", "hardly", "non", "neither", "nicht"])
)
def test_a_denied_choice_is_no_label(choices: tuple[str, ...], data: st.DataObject, denial: str) -> None:
    choice = data.draw(st.sampled_from(choices))
    assume(f"{denial} {choice}" not in choices)
    answer = data.draw(st.sampled_from(["{} {}", "It is {} {}.", "**{}** {}", "Label: {} {}", "{}: {}"]))
    assert isinstance(parser(choices).read(answer.format(denial, choice)), InvalidLabel)


DECORATIONS = (
    "{}",
    " {} ",
    "\n{}\n",
    "{}.",
    "{}!",
    '"{}"',
    "'{}'",
    "“{}”",
    "«{}»",
    "**{}**",
    "*{}*",
    "`{}`",
    "[{}]",
    "({})",
    "```\n{}\n```",
    "```text\n{}\n```",
    "Label: {}",
    "Sentiment: {}",
    "**Answer:** {}",
    "The answer is {}",
    "Final answer: {}",
    "<label>{}</label>",
    '{{"label": "{}"}}',
    "<think>this one, not that one</think>{}",
)


@given(choice_sets, st.lists(st.sampled_from(DECORATIONS), max_size=3), st.data())
def test_decorated_choice_is_understood(
    choices: tuple[str, ...], around: list[str], data: st.DataObject
) -> None:
    choice = data.draw(st.sampled_from(choices))
    answer = data.draw(st.sampled_from([choice, choice.upper(), choice.lower(), choice.title()]))
    for decoration in around:
        answer = decoration.format(answer)
    assert parser(choices).read(answer) == Label(choice, choice)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6))
def test_every_choice_of_every_job_is_read_as_itself(choices: list[str]) -> None:
    """Whatever a job may have for choices, also where they hold each other, quotes or signs."""
    labels = Labels(choices=tuple(choices))
    try:
        check_labels(labels)
    except JobError:
        assume(False)
    for choice in choices:
        assert make_parser(labels).read(choice) == Label(choice, choice)
        assert make_parser(labels).read(unicodedata.normalize("NFD", choice)) == Label(choice, choice)


@pytest.mark.parametrize(
    "answer",
    [
        "positive " * 2_000,
        "(" * 19_000 + "positive",
        '"' * 19_000,
        "`" * 19_000,
        "```\n" * 4_000,
        "<" * 19_000,
        "</think" * 2_000,
        "positive" + " " * 19_000 + "x",
        ":" * 19_000,
        "a-" * 9_000,
        "\n" * 19_000 + "positive",
        "\ufdfa" * 19_000,  # one character that folds to eighteen
        "not good " * 2_000,
    ],
    ids=range(13),
)
def test_hostile_answer_takes_no_time(answer: str) -> None:
    """Linear work: some milliseconds at the length that is read at most."""
    for choices in SETS:
        begin = time.process_time()
        parser(choices).read(answer)
        assert time.process_time() - begin < 1


def test_huge_answer_is_not_looked_at() -> None:
    begin = time.process_time()
    wrong = parser(SETS[0]).read("positive " * 1_000_000)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.code == "too_long"
    assert time.process_time() - begin < 1
