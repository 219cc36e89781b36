"""Answers that hold a JSON object: found leniently, parsed and checked strictly."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import make_parser

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"enum": ["spam", "ham"]},
        "score": {"type": "number", "minimum": 0},
        "count": {"type": ["integer", "null"]},
        "sure": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "when": {"type": "string", "format": "date-time"},
        "more": {"type": "object"},
    },
    "required": ["label"],
    "additionalProperties": False,
}
PARSER = make_parser(Labels(json_schema=SCHEMA))
NAMES = tuple(SCHEMA["properties"])
SPAM = {**dict.fromkeys(NAMES), "label": "spam"}

objects = st.fixed_dictionaries(
    {"label": st.sampled_from(["spam", "ham"])},
    optional={
        "score": st.floats(min_value=0, allow_nan=False, allow_infinity=False) | st.integers(0, 2**53),
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "sure": st.booleans(),
        "tags": st.lists(st.text(), max_size=3),
        "more": st.dictionaries(st.text(), st.text() | st.integers(-9, 9) | st.none(), max_size=3),
    },
)
WRAPPINGS = (
    "{}",
    "\n {} \n",
    "```json\n{}\n```",
    "```\n{}\n```",
    "Here is the object:\n\n{}\n\nI hope that helps {{as asked}}.",
    '<think>{{"label": or rather}}</think>{}',
    "Answer: {}.",
    "\ufeff{}",
)


@given(objects, st.sampled_from(WRAPPINGS), st.booleans(), st.sampled_from([None, 2]))
def test_object_comes_back_typed(
    found: dict[str, Any], around: str, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(found, ensure_ascii=ascii_only, indent=indent)
    label = PARSER.read(around.format(text))
    assert isinstance(label, Label)
    assert isinstance(label.value, dict)
    assert tuple(label.value) == NAMES
    for name, value in label.value.items():
        plain = json.loads(value) if name == "more" and value is not None else value
        assert plain == found.get(name)
    assert json.loads(label.text) == found


@given(objects)
def test_canonical_text_is_the_label_again(found: dict[str, Any]) -> None:
    """In any order of keys, with any blanks: the same text, which votes count as one label."""
    label = PARSER.read(json.dumps(found))
    assert isinstance(label, Label)
    assert PARSER.read(label.text) == label
    turned = json.dumps(dict(reversed(found.items())), indent=1)
    assert PARSER.read(turned) == label


@given(
    st.text()
    | st.lists(st.sampled_from(["{", "}", '"', "\\", "[", ":", ",", "1", '{"label":"spam"}'])).map("".join)
)
def test_any_text_gives_a_valid_object_or_none(text: str) -> None:
    label = PARSER.read(text)
    if isinstance(label, Label):
        assert label.value == SPAM
        assert '{"label":"spam"}' in text
    else:
        assert label.code
        assert "\n" not in label.reason


def test_numbers_are_as_their_columns_hold_them() -> None:
    label = PARSER.read('{"label": "spam", "count": 2.0, "score": 3}')
    assert isinstance(label, Label)
    assert label.text == '{"count":2,"label":"spam","score":3.0}'
    assert isinstance(label.value, dict)
    assert type(label.value["count"]) is int
    assert type(label.value["score"]) is float


def test_the_same_object_twice_is_one() -> None:
    label = PARSER.read('{"label": "spam"}\n\nOnce more: {"label":"spam"}')
    assert label == Label('{"label":"spam"}', SPAM)


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("", "empty", "the answer is empty"),
        ("spam", "no_object", "the answer holds no JSON object"),
        ("{spam}", "bad_json", "the JSON is not valid: object keys must be strings"),
        ('["spam"]', "no_object", "the answer is a JSON list, not a JSON object"),
        ('"spam"', "no_object", "the answer is a JSON string, not a JSON object"),
        ("null", "no_object", "the answer is null, not a JSON object"),
        ("12", "no_object", "the answer is a number, not a JSON object"),
        ('{"label": "spam"} {"label": "ham"}', "two_objects", "the answer holds 2 JSON objects"),
        ('{"label": "spam"', "cut_off", "the JSON ends before it is complete"),
        ('{"label": "sp', "cut_off", "the JSON ends before it is complete"),
        ('```json\n{"label": "spam",\n', "cut_off", "the JSON ends before it is complete"),
        ('{"label": "spam",}', "bad_json", "the JSON is not valid: trailing comma in object"),
        ("{'label': 'spam'}", "bad_json", "the JSON is not valid: object keys must be strings"),
        ('{"label": "spam", "label": "ham"}', "bad_json", "the key label stands in it twice"),
        ('{"label": "spam", "more": {"a": 1, "a": 1}}', "bad_json", "the key a stands in it twice"),
        ('{"label": "spam", "score": NaN}', "bad_json", "the JSON is not valid: invalid character"),
        ('{"label": "spam", "score": 1e999}', "bad_json", "a number in it is too large"),
        ('{"label": "spam", "score": Infinity}', "bad_json", "the JSON is not valid: invalid character"),
        ('{"label": "\\ud800"}', "bad_json", "the JSON is not valid: a text in it isn't complete"),
        ('{"label": "spam", "score": 01}', "bad_json", "the JSON is not valid: invalid number"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "bad_json", "the JSON is not valid: it is nested too deep"),
        ('{"label": "Spam"}', "schema", 'label: "Spam" is not one of "spam" or "ham"'),
        ("{}", "schema", """the JSON doesn't fit the schema: "label" is a required property"""),
        ('{"label": "spam", "score": "1"}', "schema", '''score: "1" is not of type "number"'''),
        ('{"label": "spam", "sure": 1}', "schema", 'sure: 1 is not of type "boolean"'),
        ('{"label": "spam", "score": -1}', "schema", "score: -1 is less than the minimum of 0"),
        ('{"label": "spam", "tags": [1]}', "schema", 'tags.0: 1 is not of type "string"'),
        ('{"label": "spam", "when": "today"}', "schema", 'when: "today" is not a "date-time"'),
        ('{"label": "spam", "other": 1}', "schema", "'other' was unexpected"),
        ('{"other": 1, "score": -1, "sure": 0, "count": 1.5}', "schema", "; and more"),
        (f'{{"label": "spam", "count": {2**63}}}', "out_of_range", f"count: {2**63} doesn't fit"),
        (f'{{"label": "spam", "score": {2**53 + 1}}}', "out_of_range", "doesn't fit a column of 64 bits"),
        (f'{{"label": "spam", "score": 1{"0" * 400}}}', "out_of_range", "doesn't fit a column of 64 bits"),
        ('{"label": "spam"}' + " " * 1_000_000 + "x", "too_long", "a label is looked for in 1000000 at most"),
    ],
)  # fmt: skip
def test_unreadable(text: str, code: str, reason: str) -> None:
    wrong = PARSER.read(text)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.code == code
    assert reason in wrong.reason
    assert len(wrong.reason) < 1_000


def test_whole_object_is_valid_although_the_answer_was_cut() -> None:
    assert PARSER.read('{"label": "spam"} The message', truncated=True) == Label('{"label":"spam"}', SPAM)


def test_other_properties_stay_in_the_text() -> None:
    parser = make_parser(Labels(json_schema={"type": "object", "properties": {"a": {"type": "integer"}}}))
    assert parser.read('{"b": [1, 2.5], "a": 1}') == Label('{"a":1,"b":[1,2.5]}', {"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        "{" * 900_000,
        '{"a":1}' * 120_000,
        "{}" * 400_000,
        '{"' + "\\" * 900_000,
        "{:}" * 300_000,
        '"' * 900_000,
        '{"label": "spam", "tags": [' + "1," * 450_000 + "1]}",
        " " * 900_000 + "x",
    ],
    ids=range(8),
)
def test_hostile_answer_takes_little_time(text: str) -> None:
    """A second on a quick machine. One that is slow here and now is slow at the yardstick, too."""
    begin = time.process_time()
    for _ in range(1_000_000):
        pass
    yardstick = time.process_time() - begin
    begin = time.process_time()
    assert isinstance(PARSER.read(text), InvalidLabel)
    assert time.process_time() - begin < 100 * yardstick
