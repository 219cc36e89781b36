"""Votes on the properties of JSON labels, each with a majority of its own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchrun
from batchrun.errors import JobError
from batchrun.evaluation.corrections import Correction, correction
from batchrun.job.labels import Labels
from batchrun.labels.label import Label
from batchrun.labels.parser import make_parser
from batchrun.labels.property_votes import Joined, join_majority, values_of
from batchrun.labels.votes import Ask, Decided, decide, decide_each

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "urgency": {"enum": ["low", "high"]},
        "team": {"enum": ["billing", "support"]},
        "score": {"type": "number"},
        "why": {"type": "string"},
    },
    "required": ["urgency", "why"],
}
PARSER = make_parser(Labels(json_schema=SCHEMA))
NAMES = ("urgency", "team")


def label(urgency: str, team: str | None = None, why: str = "") -> Label:
    found = PARSER.read(
        json.dumps({"urgency": urgency, "why": why} | ({} if team is None else {"team": team}))
    )
    assert isinstance(found, Label)
    return found


def joined(samples: Sequence[Label | None], names: Sequence[str] = NAMES) -> Joined:
    steps = decide_each(len(samples), [values_of(sample, names) for sample in samples])
    assert not isinstance(steps, Ask)
    return join_majority(names, steps, samples, PARSER)


def value(found: Joined) -> dict[str, Any]:
    assert found.label is not None
    assert isinstance(found.label.value, dict)
    return found.label.value


def test_a_free_text_that_always_differs_is_no_tie() -> None:
    found = joined(
        [label("high", "billing", "a"), label("high", "billing", "b"), label("low", "billing", "c")]
    )
    assert value(found) == {"urgency": "high", "team": "billing", "score": None, "why": "a"}
    assert (found.nearest, found.agreement, found.agreements) == (0, 2 / 3, (2 / 3, 1.0))


def test_majorities_of_different_samples_are_joined() -> None:
    samples = [label("low", "billing", "a"), label("high", "billing", "b"), label("low", "support", "c")]
    samples += [label("high", "support", "d"), label("high", "billing", "e")]
    assert value(joined(samples)) == {"urgency": "high", "team": "billing", "score": None, "why": "b"}
    samples = [label("low", "support", "a"), label("high", "billing", "b"), label("high", None, "c")]
    samples += [label("low", "support", "d"), label("high", "support", "e")]
    assert value(joined(samples))["why"] == "e"


def test_values_that_no_sample_has_together_are_joined() -> None:
    samples = [label("low", "support", "a"), label("low", "support", "b"), label("low", "support", "c")]
    samples += [label("high", "billing", "d"), label("high", "billing", "e"), label("high", None, "f")]
    found = joined([*samples, label("high", None, "g")])
    assert value(found) == {"urgency": "high", "team": "support", "score": None, "why": "a"}
    assert found.agreements == (4 / 7, 3 / 7)


def test_most_samples_without_a_property_leave_it_out() -> None:
    found = joined([label("low", "billing", "a"), label("low", None, "b"), label("low", None, "c")])
    assert found.label is not None
    assert json.loads(found.label.text) == {"urgency": "low", "why": "b"}


def test_a_tie_of_one_property_is_no_label() -> None:
    found = joined([label("low", "billing"), label("high", "billing")])
    assert found.label is None
    assert found.problem == 'urgency: a tie: "low", "high" have 1 of 2 samples each'
    assert found.agreements == (None, 1.0)


def test_samples_without_a_label_vote_for_nothing() -> None:
    assert joined([None, None]).problem == "none of the 2 samples has a valid label"
    found = joined([None, label("low", "billing", "a"), label("low", "billing", "b")])
    assert (value(found)["why"], found.agreement, found.nearest) == ("a", 2 / 3, 1)


def test_values_that_the_schema_forbids_together_are_no_label() -> None:
    schema = {
        **SCHEMA,
        "not": {
            "properties": {"urgency": {"const": "high"}, "team": {"const": "support"}},
            "required": ["team"],
        },
    }
    parser = make_parser(Labels(json_schema=schema))
    texts = ["low support", "low support", "high billing", "high billing", "high"]
    samples = [label(*text.split()) for text in texts] + [label("low", "support"), label("high")]
    steps = decide_each(7, [values_of(sample, NAMES) for sample in samples])
    assert not isinstance(steps, Ask)
    found = join_majority(NAMES, steps, samples, parser)
    assert found.label is None
    assert "don't go together: the JSON doesn't fit the schema" in str(found.problem)


ballots = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))), min_size=1, max_size=15
)


@given(ballots)
def test_each_value_is_that_which_all_votes_would_have_given(
    all_samples: list[tuple[str, str] | None],
) -> None:
    """Whatever the others need: voting ends with the values of votes on each property alone."""
    asked = 0
    while isinstance(step := decide_each(len(all_samples), all_samples[:asked]), Ask):
        asked += step.more
        assert asked <= len(all_samples)
    for place, decided in enumerate(step):
        alone = decide(len(all_samples), [None if found is None else found[place] for found in all_samples])
        assert isinstance(alone, Decided)
        assert decided.label == alone.label


REPLIES = """
[[reply]]
pattern = ""
choices = [
  {text = '{"urgency": "high", "team": "billing", "why": "one"}'},
  {text = '{"urgency": "high", "team": "support", "why": "two"}'},
  {text = '{"urgency": "low", "team": "support", "why": "three"}'},
]
"""


def run(tmp_path: Path, rows: int, **labels: Any) -> pl.DataFrame:
    (tmp_path / "replies.toml").write_text(REPLIES)
    job = {
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 64, "temperature": 1.0},
        "labels": {"json_schema": SCHEMA, "votes": 3, **labels},
    }
    table = pl.DataFrame({"text": [f"ticket {n}" for n in range(rows)]})
    sandbox = batchrun.SandboxSettings(replies=tmp_path / "replies.toml")
    result = batchrun.run(job, input=table, sandbox=sandbox, journal=tmp_path / "a.run")
    rows_of = result.to_polars()
    return rows_of.with_columns(requests=pl.lit(result.summary["this_run"]["requests"]["sent"]))


def test_a_run_labels_by_property_and_a_change_of_vote_on_sends_only_missing_votes(tmp_path: Path) -> None:
    whole = run(tmp_path, 40)
    by_property = run(tmp_path, 40, vote_on=["urgency", "team"])
    assert (whole["status"] == "invalid").sum() > 0
    assert by_property["status"].to_list() == ["ok"] * 40
    assert by_property["requests"][0] < 40, "answers of the first run are used"
    for row in by_property.iter_rows(named=True):
        samples = [json.loads(sample) for sample in row["samples"]]
        for name in ("urgency", "team"):
            share = sum(sample[name] == row[name] for sample in samples) / len(samples)
            assert row[f"agreement_{name}"] == share > 0.5
        assert row["agreement"] == min(row["agreement_urgency"], row["agreement_team"])
        assert row["why"] in [sample["why"] for sample in samples]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"vote_on": ["urgncy"]}, "vote_on: urgncy is not a property of the schema; did you mean urgency?"),
        ({"vote_on": ["urgency"], "votes": 1}, "vote_on: needs labels.json_schema, and labels.votes above 1"),
        ({"vote_on": ["urgency", "urgency"]}, "vote_on: a property is there twice"),
    ],
)
def test_vote_on_names_properties_of_votes(tmp_path: Path, labels: dict[str, Any], text: str) -> None:
    with pytest.raises(JobError, match=text.replace("?", r"\?")):
        run(tmp_path, 1, **labels)


@pytest.mark.parametrize(
    ("cell", "changed"),
    [
        ("urgency=low", {"urgency": "low"}),
        (" urgency = low ; team=support", {"urgency": "low", "team": "support"}),
        ("why=5; score=0.5", {"why": "5", "score": 0.5}),
    ],
)
def test_a_review_corrects_properties(cell: str, changed: dict[str, Any]) -> None:
    before = label("high", "billing", "because")
    found = correction(cell, before, PARSER)
    assert isinstance(found, Correction)
    assert found.label is not None
    assert json.loads(found.label.text) == json.loads(before.text) | changed


@pytest.mark.parametrize("cell", ["urgency=medium", "speed=low", "urgency", "urgency=low; none"])
def test_a_wrong_property_or_value_is_refused(cell: str) -> None:
    assert "is not a valid label" in str(correction(cell, label("high"), PARSER))


def test_properties_of_a_row_without_a_label_are_its_label() -> None:
    found = correction("urgency=low; why=x", None, PARSER)
    assert isinstance(found, Correction)
    assert found.label == label("low", None, "x")
