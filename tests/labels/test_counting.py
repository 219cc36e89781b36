"""Counts of labels, which are printed: classes that the job names, and never a model's own words."""

from typing import Any

import pytest

from batchrun.job.labels import Labels
from batchrun.labels.counting import MOST_SHOWN, LabelCounts, count_lines

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "urgency": {"enum": ["low", "high"]},
        "refund": {"type": "boolean"},
        "words": {"type": "integer"},
    },
}


def counted(labels: Labels | None, *rows: tuple[Any, ...]) -> dict[str, dict[str, int]]:
    counts = LabelCounts(labels)
    for row in rows:
        counts.add(row)
    return counts.by_column()


def test_choices_are_counted_the_commonest_first() -> None:
    rows = [("no", None), ("yes", None), ("yes", None), (None, "invalid")]
    counts = counted(Labels(choices=("yes", "no")), *rows)
    assert list(counts["label"].items()) == [("yes", 2), ("no", 1)]
    assert count_lines(counts) == ["labels    2 yes, 1 no"]


def test_of_an_object_only_properties_with_known_values_are_counted() -> None:
    rows = [("A private text.", "low", True, 3), ("Another one.", "low", False, 4), (None, None, None, None)]
    counts = counted(Labels(json_schema=SCHEMA), *rows)
    assert counts == {"urgency": {"low": 2}, "refund": {"true": 1, "false": 1}}
    assert count_lines(counts) == ["labels    urgency: 2 low", "labels    refund: 1 true, 1 false"]


@pytest.mark.parametrize("labels", [None, Labels(pattern="[a-z]+")], ids=["no labels", "pattern"])
def test_texts_are_not_counted(labels: Labels | None) -> None:
    assert counted(labels, ("secret", None)) == {}
    assert count_lines({}) == []


def test_of_many_classes_the_commonest_are_shown() -> None:
    choices = tuple(f"class {number}" for number in range(MOST_SHOWN + 3))
    (line,) = count_lines(counted(Labels(choices=choices), *((choice, None) for choice in choices)))
    assert line.endswith("class 11, 3 more labels")
