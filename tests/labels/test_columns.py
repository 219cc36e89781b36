"""From a JSON Schema to typed columns."""

from typing import Any

import pytest

from batchrun.errors import JobError
from batchrun.job.labels import Labels
from batchrun.labels.columns import Column
from batchrun.labels.parser import make_parser

DEFINITIONS = {
    "mood": {"type": "string", "enum": ["good", "bad"]},
    "maybe": {"anyOf": [{"$ref": "#/$defs/mood"}, {"type": "null"}]},
    "a/b": {"type": "boolean"},
    "named": {"$anchor": "named", "type": "string"},
    "two": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "tree": {"type": "object", "properties": {"children": {"items": {"$ref": "#/$defs/tree"}}}},
}


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date-time"}, "string"),
        ({"type": "integer"}, "int64"),
        ({"type": "number"}, "float64"),
        ({"type": "boolean"}, "bool"),
        ({"type": "object"}, "json"),
        ({"type": "null"}, "json"),
        ({}, "json"),
        (True, "json"),
        ({"type": ["string", "null"]}, "string"),
        ({"type": ["integer", "number"]}, "float64"),
        ({"type": ["integer", "string"]}, "json"),
        ({"enum": ["a", "b"]}, "string"),
        ({"enum": ["a", None]}, "string"),
        ({"enum": [1, 2]}, "int64"),
        ({"enum": [1, 2.5]}, "float64"),
        ({"enum": [True, False]}, "bool"),
        ({"enum": [True, 1]}, "json"),
        ({"enum": ["a", 1]}, "json"),
        ({"enum": [["a"]]}, "json"),
        ({"const": "a"}, "string"),
        ({"const": None}, "json"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "float64"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "string"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "json"),
        ({"allOf": [{"minLength": 1}, {"type": "string"}]}, "string"),
        ({"$ref": "#/$defs/mood"}, "string"),
        ({"$ref": "#/$defs/maybe"}, "string"),
        ({"$ref": "#/$defs/a~1b"}, "bool"),
        ({"$ref": "#/$defs/tree"}, "json"),
        ({"$ref": "#named"}, "json"),
        ({"$ref": "#/$defs/two/oneOf/0"}, "int64"),
        ({"type": "array", "items": {"type": "string"}}, "list<string>"),
        ({"type": ["array", "null"], "items": {"type": "integer"}}, "list<int64>"),
        ({"type": "array", "items": {"type": ["number", "null"]}}, "list<float64>"),
        ({"type": "array", "items": {"type": ["integer", "number"]}}, "list<float64>"),
        ({"type": "array", "items": {"$ref": "#/$defs/mood"}}, "list<string>"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, "json"),
        ({"type": "array", "items": {"type": "object"}}, "json"),
        ({"type": "array"}, "json"),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "string"}}, "json"),
    ],
)
def test_column_type(spec: Any, kind: str) -> None:
    schema = {"type": "object", "properties": {"x": spec}, "$defs": DEFINITIONS}
    assert make_parser(Labels(json_schema=schema)).columns == (Column("x", kind),)


def test_order_is_that_of_the_schema() -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("b", "a", "c")}}
    assert [column.name for column in make_parser(Labels(json_schema=schema)).columns] == ["b", "a", "c"]


def test_the_top_may_be_a_reference() -> None:
    schema = {
        "$ref": "#/$defs/x",
        "$defs": {"x": {"type": "object", "properties": {"a": {"type": "number"}}}},
    }
    assert make_parser(Labels(json_schema=schema)).columns == (Column("a", "float64"),)


def test_choices_and_patterns_have_one_column() -> None:
    for labels in (Labels(choices=("a", "b")), Labels(pattern="a")):
        assert make_parser(labels).columns == (Column("label", "string"),)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, 'must be of an object, with type = "object" at the top'),
        ({"type": "array"}, "must be of an object"),
        ({"type": ["object", "null"]}, "must be of an object"),
        ({"properties": {"a": {}}}, "must be of an object"),
        ({"type": "object"}, "has no properties"),
        ({"type": "object", "properties": {}}, "has no properties"),
        (
            {"type": "object", "properties": {"a": {"$ref": "https://example.com/s.json"}}},
            "'https://example.com/s.json' refers to another document; put that into the schema's $defs",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "other.json"}}}, "refers to another document"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "another document"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "Pointer '/$defs/b' does not exist"),
        ({"$ref": "#"}, "its references go round in a circle"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "round in a circle"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "not a valid schema: properties.a.type:"),
        (
            {"type": "object", "properties": {"a": {"pattern": "(?=a)"}}},
            "not a valid schema: properties.a.pa",
        ),
        ({"type": "object", "properties": []}, "not a valid schema: properties:"),
    ],
)
def test_refused(schema: dict[str, Any], text: str) -> None:
    with pytest.raises(JobError) as caught:
        make_parser(Labels(json_schema=schema))
    assert str(caught.value).startswith("[labels] json_schema: ")
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(3_000):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(JobError, match="not a valid schema"):
        make_parser(Labels(json_schema=schema))


def test_a_property_called_ref_is_no_reference() -> None:
    schema = {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": ["$ref"]}
    assert make_parser(Labels(json_schema=schema)).columns == (Column("$ref", "string"),)
