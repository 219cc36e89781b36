"""Counts the labels that the job itself names: its choices, and properties of a JSON object that are true or
false or have an enum. What else a model says is not counted, since the counts are printed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from batchrun.labels.parser import Spec

MOST_SHOWN = 12


class LabelCounts:
    """The counts of values by column, "label" for choices."""

    def __init__(self, labels: Spec | None) -> None:
        self._columns = [(place, name, Counter[str]()) for place, name in _named_columns(labels)]

    def add(self, values: Sequence[Any]) -> None:
        """Adds a row's values of the labels' columns, in their order; None isn't counted."""
        for place, _, counts in self._columns:
            if (value := values[place]) is not None:
                counts[str(value).lower() if isinstance(value, bool) else str(value)] += 1

    def by_column(self) -> dict[str, dict[str, int]]:
        """Returns the counts of each column, the commonest value first."""
        return {name: dict(counts.most_common()) for _, name, counts in self._columns if counts}


def count_lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns a line for each column; the label of a job with choices needs no name."""
    names = {name: "" if name == "label" else f"{name}: " for name in counts}
    return [f"labels    {names[name]}{_shown(values)}" for name, values in counts.items()]


def _shown(values: Mapping[str, int]) -> str:
    shown = [f"{number:,} {value}" for value, number in list(values.items())[:MOST_SHOWN]]
    more = len(values) - len(shown)
    return ", ".join([*shown, *([f"{more:,} more labels"] if more else [])])


def _named_columns(labels: Spec | None) -> list[tuple[int, str]]:
    if labels is None or labels.pattern is not None:
        return []
    if labels.choices is not None:
        return [(0, "label")]
    properties = labels.json_schema.get("properties", {}) if isinstance(labels.json_schema, dict) else {}
    return [(place, name) for place, (name, spec) in enumerate(properties.items()) if _is_named(spec)]


def _is_named(spec: Any) -> bool:
    return isinstance(spec, Mapping) and ("enum" in spec or spec.get("type") == "boolean")
