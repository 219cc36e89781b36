"""A reader of answers, made once from a job's labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from batchrun.labels.columns import Column
from batchrun.labels.label import InvalidLabel, Label

_MOST_SHOWN = 4_000  # characters of what is allowed: it is paid with each repair


@dataclass(frozen=True, slots=True)
class LabelParser:
    """`allowed`: for the model, what a valid answer is. `columns`: what a label's `value` fills."""

    _read: Callable[[str, bool], Label | InvalidLabel]
    allowed: str
    columns: tuple[Column, ...] = (Column("label", "string"),)

    def read(self, text: str, truncated: bool = False) -> Label | InvalidLabel:
        """Returns the label in the answer `text`, or why there is none. `truncated`: it ended at max_tokens.

        Linear in the length of the text. A label's own text gives that label again.
        """
        return self._read(text, truncated)


class Spec(Protocol):
    """What a valid answer is: exactly one of three."""

    @property
    def choices(self) -> tuple[str, ...] | None: ...
    @property
    def json_schema(self) -> str | dict[str, Any] | None: ...
    @property
    def pattern(self) -> str | None: ...


def make_parser(labels: Spec) -> LabelParser:
    """Returns the reader for one of choices, json_schema (the schema itself) and pattern.

    Raises JobError for a pattern or schema that can't be used.
    """
    if labels.choices is not None:
        from batchrun.labels.choices import make_choices, read_choice

        listed = _shown("these", "\n".join(labels.choices), "the choices that were named")
        allowed = f"Answer with nothing but one of {listed}"
        return LabelParser(partial(read_choice, make_choices(labels.choices)), allowed)
    if labels.pattern is not None:
        from batchrun.labels.pattern import compiled_pattern, read_pattern

        shown = _shown(
            "text that matches this regular expression", labels.pattern, "text as it was asked for"
        )
        read = partial(read_pattern, compiled_pattern(labels.pattern), labels.pattern)
        return LabelParser(read, f"Answer with nothing but {shown}")
    return _object_reader(labels)


def _object_reader(labels: Spec) -> LabelParser:
    from batchrun.labels.json_object import make_schema, read_object

    if not isinstance(labels.json_schema, dict):
        raise TypeError("the schema itself is wanted here, not the path of its file")
    schema = make_schema(labels.json_schema)
    text = msgspec.json.encode(labels.json_schema).decode()
    shown = _shown("that fits this JSON Schema", text, "as it was asked for")
    return LabelParser(
        partial(read_object, schema), f"Answer with nothing but one JSON object {shown}", schema.columns
    )


def _shown(name: str, text: str, otherwise: str) -> str:
    """What is allowed, by name where it is too long to be sent with each repair."""
    return f"{name}:\n{text}" if len(text) <= _MOST_SHOWN else f"{otherwise}."
