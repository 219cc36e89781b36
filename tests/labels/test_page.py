"""docs/labels.md says what happens."""

import re
from pathlib import Path

import pytest

from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import make_parser

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.*`.*) \| (positive|no|invalid) \|", PAGE, re.MULTILINE)
EXAMPLES = [(answer, label) for cell, label in ROWS for answer in re.findall("`([^`]+)`", cell)]


def test_the_table_is_found() -> None:
    assert len(EXAMPLES) >= 20


@pytest.mark.parametrize(("answer", "label"), EXAMPLES)
def test_example(answer: str, label: str) -> None:
    choices = ("yes", "no") if label == "no" else ("positive", "negative", "neutral", "4", "5")
    found = make_parser(Labels(choices=choices)).read(answer.replace("⏎", "\n"))
    assert isinstance(found, InvalidLabel) if label == "invalid" else found == Label(label, label)
