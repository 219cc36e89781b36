"""Derives typed columns from an object's JSON Schema, one for each property."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from batchrun.errors import JobError

_SCALARS = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool"}
_MOST_STEPS = 32  # of references and wrappers in each other: enough for people, an end for circles


@dataclass(frozen=True, slots=True)
class Column:
    """`type`: string, int64, float64, bool, list<one of these>, or json (text: anything else)."""

    name: str
    type: str


def columns(schema: Mapping[str, Any]) -> tuple[Column, ...]:
    """Returns a column for each property, in the schema's order; every column may be null.

    A property is typed where its values have one type besides null: by `type`, `enum` or `const`, also
    inside `$ref`, `anyOf`, `oneOf` and `allOf`. Raises JobError for a schema that isn't one of an object
    with properties. The schema is a valid one.
    """
    top = _resolved(schema, schema)
    if top.get("type") != "object":
        raise JobError('[labels] json_schema: must be of an object, with type = "object" at the top')
    properties = top.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        raise JobError("[labels] json_schema: has no properties, so there would be no column")
    return tuple(Column(name, _column_type(spec, schema)) for name, spec in properties.items())


def refuse_remote(schema: Mapping[str, Any]) -> None:
    """Raises JobError for the first reference that leaves the schema: nothing is fetched."""
    remote = next((reference for reference in _references(schema) if not reference.startswith("#")), None)
    if remote is not None:
        raise JobError(
            f"[labels] json_schema: {remote!r} refers to another document; put that into the schema's $defs"
        )


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _references(value)


def _resolved(part: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolves the references of `part`; an unresolvable one leaves it unknown."""
    for _ in range(_MOST_STEPS):
        if not isinstance(part, Mapping):
            return {}
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return part
        part = _at_pointer(schema, reference)
    raise JobError("[labels] json_schema: its references go round in a circle")


def _at_pointer(schema: Any, reference: str) -> Any:
    """The part of the schema that a JSON Pointer names (RFC 6901); None for an anchor or where nothing is."""
    if reference == "#":
        return schema
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping) and key in schema:
            schema = schema[key]
        elif isinstance(schema, list | tuple) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        else:
            return None
    return schema


def _column_type(spec: Any, schema: Mapping[str, Any]) -> str:
    kinds = _kinds(spec, schema, _MOST_STEPS) - {"null"}
    if kinds == {"int64", "float64"}:
        return "float64"
    return kinds.pop() if len(kinds) == 1 else "json"


def _kinds(spec: Any, schema: Mapping[str, Any], steps: int) -> set[str]:
    """Returns the column types that values of `spec` may have; "json" stands for any other."""
    part = _resolved(spec, schema)
    if steps == 0:
        return {"json"}
    if "const" in part:
        return {_kind_of(part["const"])}
    if isinstance(part.get("enum"), list | tuple):
        return set(map(_kind_of, part["enum"]))
    if "type" in part:
        names = [part["type"]] if isinstance(part["type"], str) else part["type"]
        return {_named_kind(name, part, schema, steps) for name in names}
    for keyword in ("anyOf", "oneOf"):
        if part.get(keyword):
            return set().union(*(_kinds(option, schema, steps - 1) for option in part[keyword]))
    narrowed = [_kinds(option, schema, steps - 1) for option in part.get("allOf", ())]
    return next((kinds for kinds in narrowed if "json" not in kinds), {"json"})


def _named_kind(name: str, part: Mapping[str, Any], schema: Mapping[str, Any], steps: int) -> str:
    if name == "null":
        return "null"
    if name == "array" and "prefixItems" not in part:
        items = _kinds(part.get("items"), schema, steps - 1) - {"null"}
        item = "float64" if items == {"int64", "float64"} else items.pop() if len(items) == 1 else "json"
        return f"list<{item}>" if item in _SCALARS.values() else "json"
    return _SCALARS.get(name, "json")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds: Mapping[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}
    return kinds.get(type(value), "json")
