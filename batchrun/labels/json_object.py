"""Reads answers that hold one JSON object, valid against the job's schema."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from batchrun.errors import JobError
from batchrun.labels.columns import Column, columns, refuse_remote
from batchrun.labels.label import InvalidLabel, Label, excerpt
from batchrun.labels.unwrap import too_long, without_thinking

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_MOST_FAULTS = 3  # named in a reason
_MOST_CHARACTERS_FOR_ALL_FAULTS = 20_000  # a fault costs some ten microseconds, and a list may have many
_MOST_CHARACTERS = 1_000_000  # the limit of one answer, which bounds its work, as the blocks do
_MOST_BLOCKS = 32
_QUOTE_OR_BRACE = re.compile(r'["{}]')
_STRING_REST = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ObjectSchema:
    """The compiled schema, and the columns of its properties."""

    validator: "Validator"
    columns: tuple[Column, ...]


class _NotPlainError(Exception):
    """JSON that decoders read differently: `str(error)` is the reason."""


def make_schema(schema: Mapping[str, Any]) -> ObjectSchema:
    """Compiles the schema: draft 2020-12 unless its `$schema` names another. Raises JobError.

    `format` is checked. Patterns run on the engine that is linear in the text.
    """
    import jsonschema_rs

    try:
        refuse_remote(schema)
        validator = jsonschema_rs.validator_for(
            dict(schema), validate_formats=True, pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
        raise JobError(f"[labels] json_schema: {_schema_fault(error)}") from None
    return ObjectSchema(validator, columns(schema))


def read_object(schema: ObjectSchema, text: str, truncated: bool) -> Label | InvalidLabel:
    """Returns the single JSON object in the answer `text`, which may be in a fence or among words.

    The same answer gives the same reason, word for word: a repair is recognized by it.
    """
    answer = without_thinking(text).strip().removeprefix("\ufeff")
    if not answer:
        return InvalidLabel("empty", "the answer is empty")
    if len(answer) > _MOST_CHARACTERS:
        return InvalidLabel("too_long", too_long(answer, _MOST_CHARACTERS))
    found = _find(answer, truncated)
    if isinstance(found, InvalidLabel):
        return found
    faults = _faults(schema.validator, found, one=len(answer) > _MOST_CHARACTERS_FOR_ALL_FAULTS)
    if faults:
        more = "; and more" if len(faults) > _MOST_FAULTS else ""
        told = "; ".join(faults[:_MOST_FAULTS])
        return InvalidLabel("schema", f"the JSON doesn't fit the schema: {told}{more}")
    try:
        value = {column.name: _typed(column, found.get(column.name)) for column in schema.columns}
    except _NotPlainError as error:
        return InvalidLabel("out_of_range", str(error))
    return Label(_canonical({**found, **_exact(schema.columns, found, value)}), value)


def _find(answer: str, truncated: bool) -> dict[str, Any] | InvalidLabel:
    """Returns the answer as an object, else the single object in it."""
    try:
        whole = _parsed(answer)
    except _NotPlainError as error:
        return InvalidLabel("bad_json", f"the JSON is not valid: {error}")
    except ValueError as error:
        return _find_within(answer, truncated, str(error))
    if not isinstance(whole, dict):
        return InvalidLabel("no_object", f"the answer is {_json_kind(whole)}, not a JSON object")
    return whole


def _find_within(answer: str, truncated: bool, fault: str) -> dict[str, Any] | InvalidLabel:
    blocks = list(islice(_blocks(answer), _MOST_BLOCKS))
    if not blocks:
        return InvalidLabel("no_object", "the answer holds no JSON object")
    objects: list[dict[str, Any]] = []
    for block in blocks:
        try:
            objects.append(_parsed(block))
        except _NotPlainError as error:
            return InvalidLabel("bad_json", f"the JSON is not valid: {error}")
        except ValueError as error:
            fault = str(error)
    if len({_canonical(found) for found in objects}) > 1:
        return InvalidLabel("two_objects", f"the answer holds {len(objects)} JSON objects")
    if objects and len(objects) == sum(map(_is_meant_as_json, blocks)) and len(blocks) < _MOST_BLOCKS:
        return objects[0]
    if truncated or not blocks[-1].endswith("}"):
        return InvalidLabel("cut_off", "the JSON ends before it is complete")
    return InvalidLabel("bad_json", f"the JSON is not valid: {fault}")


def _is_meant_as_json(block: str) -> bool:
    """Whether braces begin an object: in prose, "{like these}", they are not a broken one."""
    return ":" in block or block == "{}"


def _blocks(answer: str) -> Iterator[str]:
    """Yields the outermost {...} of the answer, in order, the last one possibly cut. One pass."""
    depth, begin, position = 0, 0, 0
    while mark := _QUOTE_OR_BRACE.search(answer, position):
        position = mark.end()
        if mark[0] == "{":
            begin = mark.start() if depth == 0 else begin
            depth += 1
        elif mark[0] == "}" and depth:
            depth -= 1
            if depth == 0:
                yield answer[begin:position]
        elif mark[0] == '"' and depth:
            string = _STRING_REST.match(answer, position)
            if string is None:
                break
            position = string.end()
    if depth:
        yield answer[begin:]


def _parsed(text: str) -> Any:
    """Decodes standard JSON. Raises ValueError; _NotPlainError for a duplicate key."""
    try:
        value = msgspec.json.decode(text.encode())
        json.loads(text, object_pairs_hook=_without_twins)  # msgspec takes the last of two silently
    except RecursionError:
        raise _NotPlainError("it is nested too deep") from None
    except msgspec.ValidationError:
        raise _NotPlainError("a number in it is too large") from None
    except msgspec.DecodeError as error:
        fault = str(error).removeprefix("JSON is malformed: ")
        raise ValueError("a text in it isn't complete" if "truncated" in fault else fault) from None
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twin = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise _NotPlainError(f"the key {excerpt(twin)} stands in it twice")


def _typed(column: Column, value: Any) -> Any:
    """Returns the value for its column; None for a missing property."""
    if value is None:
        return None
    if column.type == "json":
        return _canonical(value)
    if column.type.startswith("list<"):
        item = Column(column.name, column.type[5:-1])
        return [_typed(item, part) for part in value]
    if column.type in ("int64", "float64"):
        return _number(column, value)
    return value


def _number(column: Column, value: float) -> int | float:
    """JSON Schema counts 2.0 as an integer, and 2 as a number."""
    whole = column.type == "int64"
    try:
        exact = int(value) if whole else float(value)
    except OverflowError:
        exact = 0
    if exact != value or (whole and not -(2**63) <= exact < 2**63):
        raise _NotPlainError(f"{column.name}: {excerpt(str(value))} doesn't fit a column of 64 bits")
    return exact


def _exact(of: Sequence[Column], found: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers as their columns' types, so that 2 and 2.0 are one label."""
    plain = [column.name for column in of if column.type != "json" and column.name in found]
    return {name: value[name] for name in plain}


def _canonical(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _faults(validator: "Validator", found: dict[str, Any], one: bool) -> list[str]:
    """Returns the schema's violations, in a fixed order; only the first where `one` is enough."""
    if not one:
        return sorted(map(_told, validator.iter_errors(found)))
    from jsonschema_rs import ValidationError

    try:
        validator.validate(found)
    except ValidationError as fault:
        return [_told(fault)]
    return []


def _told(fault: "ValidationError") -> str:
    return f"{_place(fault.instance_path)}{excerpt(fault.message, 200)}"


def _place(path: Sequence[str | int]) -> str:
    return f"{'.'.join(map(str, path))}: " if path else ""


def _json_kind(value: Any) -> str:
    kinds = {list: "a JSON list", str: "a JSON string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _schema_fault(error: Exception) -> str:
    message = getattr(error, "message", None) or (str(error).splitlines() or ["not usable"])[0]
    return f"not a valid schema: {_place(getattr(error, 'instance_path', ()))}{excerpt(message, 200)}"
