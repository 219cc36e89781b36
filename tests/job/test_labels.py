"""The table [labels]."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.job.file import load_job, make_job
from batchrun.job.labels import Labels
from tests.job.conftest import MINIMAL, Refusal


def loaded(minimal: Path, labels: str) -> Labels:
    minimal.write_text(MINIMAL + labels)
    job = load_job(minimal)
    assert job.labels is not None
    return job.labels


def test_no_table_is_none(minimal: Path) -> None:
    assert load_job(minimal).labels is None


def test_choices(minimal: Path) -> None:
    labels = loaded(minimal, '[labels]\nchoices = ["good", "not good", "A+"]\n')
    assert labels == Labels(choices=("good", "not good", "A+"), repair=0, votes=1)


def test_schema_file_is_relative_to_the_job(
    minimal: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"score": {"type": "number", "maximum": 0.5}}}
    (minimal.parent / "schema.json").write_text(
        '{"type":"object","properties":{"score":{"type":"number","maximum":0.5}}}'
    )
    monkeypatch.chdir(tmp_path.parent)
    assert loaded(minimal, '[labels]\njson_schema = "schema.json"\n').json_schema == schema


def test_schema_in_the_job_has_floats(minimal: Path) -> None:
    """TOML's numbers are kept as decimals for amounts alone."""
    labels = loaded(
        minimal,
        '[labels.json_schema]\ntype = "object"\nproperties.score = {type = "number", maximum = 0.5}\n',
    )
    assert isinstance(labels.json_schema, dict)
    maximum = labels.json_schema["properties"]["score"]["maximum"]
    assert type(maximum) is float


def test_from_python(tmp_path: Path) -> None:
    tables = {
        "input": {"path": "a.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m"},
        "output": {"path": "b.csv"},
        "labels": {"pattern": "[1-5]", "repair": 2, "votes": 5},
    }
    assert make_job(tables, tmp_path).labels == Labels(pattern="[1-5]", repair=2, votes=5)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            "repair = 1",
            "one of labels.choices, labels.json_schema and labels.pattern; the job has none",
        ),
        ('pattern = "a"\nchoices = ["a", "b"]', "the job has choices and pattern"),
        ('choices = ["a"]', "[labels] choices: give two or more labels"),
        ('choices = ["a", "b", "a"]', "[labels] choices: 'a' is there twice"),
        ('choices = ["very good", "VERY_GOOD"]', "'very good' and 'VERY_GOOD' can't be told apart"),
        ('choices = ["good", "good!"]', "'good' and 'good!' can't be told apart"),
        ('choices = ["a", ""]', "[labels] choices: '' has no letter, digit or symbol to know it by"),
        ('choices = ["a", "..."]', "[labels] choices: '...' has no letter"),
        ("choices = [1, 2]", "[labels] choices[0]: expected text, got 1"),
        ('choices = "a"', '[labels] choices: expected a list, got "a"'),
        ("json_schema = 1", "[labels] json_schema: expected text"),
        ('json_schema = "none.json"', "[labels] json_schema: none.json: there is no such file"),
        ('pattern = "(a"', "[labels] pattern: not a regular expression: missing ), unterminated subpattern"),
        ('pattern = "a)|(b"', "[labels] pattern: not a regular expression: unbalanced parenthesis"),
        ("pattern = '(?=a)b'", "[labels] pattern: not understood by the engine"),
        ("pattern = '(a)\\1'", "[labels] pattern: not understood by the engine"),
        ('pattern = "a"\nrepair = 21', "[labels] repair: expected a whole number <= 20, got 21"),
        ('pattern = "a"\nrepair = -1', "[labels] repair: expected a whole number >= 0, got -1"),
        ('pattern = "a"\nvotes = 0', "[labels] votes: expected a whole number >= 1, got 0"),
        ('pattern = "a"\nvotes = 100', "[labels] votes: expected a whole number <= 99, got 100"),
        ('pattern = "a"\nvoting = 3', "[labels] voting: unknown key"),
    ],
)
def test_rule(refusal: Refusal, lines: str, text: str) -> None:
    assert text in refusal(f"[labels]\n{lines}\n")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "[labels] json_schema: s.json: not valid JSON"),
        (b"[]", "[labels] json_schema: s.json: expected a JSON object"),
        (b'{"a": "\xff"}', "[labels] json_schema: s.json: not valid JSON"),
    ],
)
def test_unreadable_schema_file(minimal: Path, refusal: Refusal, content: bytes, text: str) -> None:
    (minimal.parent / "s.json").write_bytes(content)
    assert text in refusal('[labels]\njson_schema = "s.json"\n')
