"""Made-up labels of a job, for a sandbox that stands in for a model."""

import json
from collections.abc import Mapping
from typing import Any

from batchrun.labels.label import Label
from batchrun.labels.parser import Spec, make_parser

_MOST = 3
_MOST_ITEMS = 20
_TEXT = "made up"


def example_labels(labels: Spec) -> tuple[str, ...]:
    """Returns the choices, or objects that fit the JSON schema; empty where there are none to be found."""
    if labels.choices is not None:
        return labels.choices
    if not isinstance(labels.json_schema, Mapping):
        return ()
    texts = [json.dumps(_example(labels.json_schema, turn)) for turn in range(_MOST)]
    read = make_parser(labels).read
    return tuple(dict.fromkeys(text for text in texts if isinstance(read(text), Label)))


def _example(schema: Any, turn: int) -> object:
    """Returns a value for the plain parts of a valid schema; whoever calls checks that it fits the others."""
    if not isinstance(schema, Mapping):  # true and false are schemas, too
        return _TEXT
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][turn % len(schema["enum"])]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        return {name: _example(part, turn) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema.get("items", {}), turn + n) for n in range(_items(schema))]
    if kind in ("integer", "number"):
        return min(schema.get("minimum", 0) + turn, schema.get("maximum", 10**9))
    plain: Mapping[str, object] = {"boolean": turn % 2 == 0, "null": None}
    return plain.get(kind, _TEXT)


def _items(schema: Mapping[str, Any]) -> int:
    return int(min(max(1, schema.get("minItems", 1)), _MOST_ITEMS))
