"""What a person's cell means, and how a row is known again."""

import pytest

from batchrun.errors import InputError
from batchrun.evaluation.audit import ForReview
from batchrun.evaluation.corrections import (
    Correction,
    Drawn,
    correction,
    is_of_request,
    key_of,
    reasons,
    reviewed_row,
    words,
)
from batchrun.job.labels import Labels
from batchrun.labels.label import Label
from batchrun.labels.parser import make_parser

CHOICES = make_parser(Labels(choices=("good", "bad")))
WORDS = make_parser(Labels(choices=("ok", "none", "bad")))
GOOD = Label("good", "good")


@pytest.mark.parametrize("cell", ["ok", "OK", "good", "Good.", '"good"'])
def test_a_label_that_is_right(cell: str) -> None:
    assert correction(cell, GOOD, CHOICES) == Correction(GOOD)


@pytest.mark.parametrize("cell", ["none", "None"])
def test_no_label_fits(cell: str) -> None:
    assert correction(cell, GOOD, CHOICES) == Correction(None)


@pytest.mark.parametrize("cell", ["yes", "x", "1", "TRUE", "okay", "goood", "good or bad", "not good", "?"])
def test_what_could_mean_anything_is_not_guessed(cell: str) -> None:
    label_text = correction(cell, GOOD, CHOICES)
    assert isinstance(label_text, str)
    assert "is not a valid label" in label_text


def test_a_row_without_a_label_can_t_be_right() -> None:
    assert isinstance(correction("ok", None, CHOICES), str)
    assert correction("good", None, CHOICES) == Correction(GOOD)
    assert correction("none", None, CHOICES) == Correction(None)


def test_where_the_words_are_labels_they_are_those_labels() -> None:
    bad = Label("bad", "bad")
    assert words(CHOICES) == ["ok", "none"]
    assert words(WORDS) == []
    assert correction("ok", bad, WORDS) == Correction(Label("ok", "ok"))
    assert correction("none", bad, WORDS) == Correction(Label("none", "none"))


def test_a_json_label_is_corrected_by_json() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    reader = make_parser(Labels(json_schema=schema))
    label = reader.read('{"n": 1}')
    assert isinstance(label, Label)
    assert correction('{"n": 1.0}', label, reader) == Correction(label)
    assert correction('{"n": 2}', label, reader) == Correction(Label('{"n":2}', {"n": 2}))
    assert correction("ok", label, reader) == Correction(label)
    assert isinstance(correction('{"n": "2"}', label, reader), str)


def test_a_key_tells_requests_and_labels_apart_and_is_no_number() -> None:
    keys = {key_of(digest, label) for digest in (b"1" * 16, b"2" * 16) for label in (None, GOOD)}
    assert len(keys) == 4
    assert all(key.startswith("r") for key in keys)
    assert is_of_request(key_of(b"1" * 16, GOOD), b"1" * 16)
    assert not is_of_request(key_of(b"1" * 16, GOOD), b"2" * 16)


def test_a_reason_says_how_the_audit_was_drawn_and_is_read_back() -> None:
    chosen = [ForReview(3, "audit"), ForReview(5, "invalid"), ForReview(9, "audit")]
    told = reasons(chosen, 70)
    assert told == ["audit: 1 of 2, from 70 labels", "invalid", "audit: 2 of 2, from 70 labels"]
    rows = [reviewed_row("4", why, "k", "", "f") for why in told]
    assert [row.audit for row in rows] == [Drawn(2, 70), None, Drawn(2, 70)]
    assert rows[0].index == 3


@pytest.mark.parametrize(("row", "why"), [("", "invalid"), ("0", "invalid"), ("x", "invalid"), ("1", "odd")])
def test_cells_that_were_to_be_left_alone_are_named(row: str, why: str) -> None:
    with pytest.raises(InputError, match=r"f.*leave"):
        reviewed_row(row, why, "k", "", "f")
