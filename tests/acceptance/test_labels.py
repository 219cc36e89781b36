"""Labels by the real command: what is asked, what it costs, and what stands in the output."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.sandbox import Settings, background
from tests.acceptance.command import JOB, Place, SandboxProcess, sandbox_process

REPLIES = """
[[reply]]
system = "stubborn"
pattern = ""
text = "hm"
[[reply]]
pattern = "two of the choices"
text = "good"
[[reply]]
pattern = "not a valid answer"
text = "good or bad"
[[reply]]
pattern = "valid"
text = "**Good.**"
[[reply]]
pattern = "drawn"
choices = [{text = "good", probability = 0.5}, {text = "bad", probability = 0.3}, {text = "hm"}]
[[reply]]
pattern = 'json (\\d+)'
text = '''Here it is:
```json
{"n": {1}, "share": 1, "kind": "b", "spam": true, "tags": ["x", "y"],
  "where": {"z": 1, "a": [2]}, "note": null}
```'''
[[reply]]
pattern = "code"
text = "Code: `AB-123`."
[[reply]]
pattern = "text"
text = "hm"
"""
CHOICES = 'labels.choices=["good", "bad"]'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "share": {"type": "number"},
        "kind": {"enum": ["a", "b"]},
        "spam": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {"type": "object"},
        "note": {"type": ["string", "null"]},
        "missing": {"type": "integer"},
    },
    "required": ["n"],
}
VALUES = {
    "n": 7,
    "share": 1.0,
    "kind": "b",
    "spam": True,
    "tags": ["x", "y"],
    "where": '{"a":[2],"z":1}',
    "note": None,
    "missing": None,
    "label_error": None,
}


@pytest.fixture(scope="module")
def scripted_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    replies = tmp_path_factory.mktemp("replies") / "replies.toml"
    replies.write_text(REPLIES)
    with sandbox_process("--replies", str(replies)) as sandbox:
        yield sandbox


@pytest.fixture
def place(tmp_path: Path, scripted_sandbox: SandboxProcess) -> Place:
    place = Place(tmp_path, scripted_sandbox, f"sk-test-{uuid.uuid4().hex}")
    place.job_file.write_text(JOB.replace("BASE_URL", scripted_sandbox.base_url).replace("= 16", "= 100"))
    return place


def test_choices(place: Place) -> None:
    """An answer with marks around it is the label; one that is none is invalid, with the reason."""
    place.texts("valid 1", "text 2", "valid 3")
    done = place.run(CHOICES)
    assert done.code == 3
    assert place.column("status") == ["ok", "invalid", "ok"]
    assert place.column("label") == ["good", None, "good"]
    assert place.column("output") == ["**Good.**", "hm", "**Good.**"]
    errors = place.column("label_error")
    assert (errors[0], errors[2]) == (None, None)
    assert "none of the choices" in errors[1]
    assert "label_error" in done.last_line
    assert "1 invalid" in done.err.splitlines()[0], "the display"
    assert place.summary()["rows"]["invalid"] == 1


def test_a_pattern(place: Place) -> None:
    place.texts("code please", "text")
    assert place.run('labels.pattern="[A-Z]{2}-[0-9]{3}"').code == 3
    assert place.column("label") == ["AB-123", None]


@pytest.mark.parametrize("given", ["as a file", "as a table"])
def test_a_schema_gives_typed_columns(place: Place, given: str) -> None:
    place.texts("json 7", "text")
    if given == "as a file":
        (place.folder / "schema.json").write_text(json.dumps(SCHEMA))
        settings = ['labels.json_schema="schema.json"']
    else:
        settings = []
        with place.job_file.open("a") as file:
            file.write(f"[labels]\njson_schema = {_toml(SCHEMA)}\n")
    assert place.run(*settings).code == 3
    schema = pq.read_schema(place.output)
    types = {name: schema.field(name).type for name in VALUES}
    assert types == {
        "n": pa.int64(),
        "share": pa.float64(),
        "kind": pa.string(),
        "spam": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "where": pa.string(),
        "note": pa.string(),
        "missing": pa.int64(),
        "label_error": pa.string(),
    }
    first, second = place.rows()
    assert {name: first[name] for name in VALUES} == VALUES
    assert [second[name] for name in VALUES if name != "label_error"] == [None] * 8
    assert second["label_error"] == "the answer holds no JSON object"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_a_schema_s_columns_in_csv_and_jsonl(place: Place) -> None:
    (place.folder / "schema.json").write_text(json.dumps(SCHEMA))
    place.texts("json 7", "text")
    setting = 'labels.json_schema="schema.json"'
    assert place.run(setting).code == 3
    options = ("--set", setting)
    for name in ("out.jsonl", "out.csv"):
        assert place.command("export", "job.toml", *options, "--to", name).code == 0
    lines = [json.loads(line) for line in (place.folder / "out.jsonl").read_text().splitlines()]
    assert {name: lines[0][name] for name in VALUES} == VALUES
    assert lines[1]["n"] is None
    row = pl.read_csv(place.folder / "out.csv").row(0, named=True)
    assert (row["n"], row["share"], row["spam"]) == (7, 1.0, True)
    assert (row["tags"], row["where"], row["note"]) == ('["x","y"]', '{"a":[2],"z":1}', None)


def test_repairs_and_what_a_raise_of_their_number_asks(place: Place) -> None:
    """Each answer goes back with its own reason; a finished job with more repairs asks only for those."""
    place.texts("text 1", "text 2", "valid 3")
    assert place.run(CHOICES).code == 3
    assert (place.requests, place.column("attempts")) == (3, [1, 1, 1])
    assert place.run(CHOICES, "labels.repair=1").code == 3
    assert (place.requests, place.column("attempts")) == (5, [2, 2, 1])
    assert "two of the choices" in place.column("label_error")[0]
    assert place.column("output")[0] == "good or bad", "the answer that stands for the row is the last one"
    assert place.run(CHOICES, "labels.repair=2").code == 0
    assert (place.requests, place.column("attempts")) == (7, [3, 3, 1])
    assert place.column("label") == ["good"] * 3
    assert place.column("status") == ["ok"] * 3
    assert sum(place.column("cost_usd")) == pytest.approx(place.bill()["nano_usd"] / 1e9)
    assert sum(place.column("input_tokens")) == place.bill()["input_tokens"]
    assert place.run(CHOICES, "labels.repair=1").code == 3, "with fewer, the label is another one again"
    assert place.requests == 7


def test_repairs_in_one_run(place: Place) -> None:
    place.texts(*(f"text {n}" for n in range(20)))
    assert place.run(CHOICES, "labels.repair=2").code == 0
    assert (place.requests, place.summary()["requests"]["sent"]) == (60, 60)


def test_votes_stop_where_the_majority_is_decided_and_say_what_that_saved(place: Place) -> None:
    """All agree: two of three decide, three of five. A finished job with more votes asks only for those."""
    place.texts(*(f"valid {n}" for n in range(10)))
    done = place.run(CHOICES, "labels.votes=3")
    assert done.code == 0
    assert (place.requests, place.summary()["labels"]["votes_saved"]) == (20, 10)
    assert "votes     10 were not sent" in done.err
    assert place.column("samples") == [["good", "good"]] * 10
    assert place.column("agreement") == [1.0] * 10
    assert place.run(CHOICES, "labels.votes=5").code == 0
    assert (place.requests, place.summary()["labels"]["votes_saved"]) == (30, 20)
    assert place.run(CHOICES).code == 0
    assert place.requests == 30
    assert "labels" not in pq.read_schema(place.output).names


def test_votes_that_differ(place: Place) -> None:
    """The label is what most samples say, as far as they were asked; a tie is none."""
    place.texts(*(f"drawn {n}" for n in range(40)))
    assert place.run(CHOICES, "labels.votes=5", "request.temperature=0.7").code in (0, 3)
    asked = 0
    for row in place.rows():
        samples = row["samples"]
        asked += len(samples)
        counts = {label: samples.count(label) for label in ("good", "bad")}
        most = max(counts.values())
        if row["label"] is None:
            assert most == min(counts.values()) or most == 0
            assert row["agreement"] is None
            assert "tie" in row["label_error"] or "none of" in row["label_error"]
        else:
            assert counts[row["label"]] == most > min(counts.values())
            assert row["agreement"] == most / len(samples)
    assert asked == place.requests < 200
    assert place.summary()["labels"]["votes_saved"] == 200 - asked
    assert len({tuple(row["samples"]) for row in place.rows()}) > 10


def test_a_tie_is_not_sent_again_and_the_last_line_does_not_advise_it(place: Place) -> None:
    place.texts(*(f"drawn {n}" for n in range(12)))
    settings = (CHOICES, "labels.votes=2", "request.temperature=0.7")
    place.run(*settings)
    ties = [row for row in place.rows() if row["error_code"] == "tie"]
    assert {tuple(sorted(row["samples"])) for row in ties} == {("bad", "good")}
    done, before = place.run(*settings, options=["--retry-failed"]), place.requests
    tied = place.column("error_code").count("tie")
    assert tied >= len(ties)
    assert f"more labels.votes can decide the {tied} rows with a tie" in done.last_line
    place.texts(*(row["text"] for row in place.rows() if row["error_code"] == "tie"))
    alone = place.run(*settings, options=["--retry-failed"])
    assert place.requests == before
    assert alone.code == 3
    assert "--retry-failed" not in alone.last_line
    assert "see the column label_error" in alone.last_line


def test_choices_that_change_give_other_labels_and_send_nothing(place: Place) -> None:
    place.texts("valid 1", "valid 2")
    assert place.run(CHOICES).code == 0
    assert place.run('labels.choices=["fine", "bad"]').code == 3
    assert place.column("status") == ["invalid"] * 2
    assert place.run('labels.choices=["Good", "bad"]').code == 0
    assert place.column("label") == ["Good"] * 2
    assert place.requests == 2


def test_invalid_rows_are_asked_anew_once_a_run_when_told_to(place: Place) -> None:
    place.texts("valid 1", "text 2", "text 3")
    settings = (CHOICES, 'prompt.system="stubborn"', "labels.repair=1")
    assert place.run(*settings).code == 3
    assert place.requests == 6
    assert place.run(*settings).code == 3
    assert place.requests == 6
    for run in (1, 2):
        assert place.run(*settings, options=["--retry-failed"]).code == 3
        assert place.requests == 6 + 6 * run, "the first request and its repair, of each of three rows"
    assert place.column("attempts") == [6, 6, 6]


def test_rows_that_were_asked_anew_are_known_by_later_runs(place: Place) -> None:
    place.texts(*(f"drawn {n}" for n in range(30)))
    settings = (CHOICES, "request.temperature=0.7")
    left = []
    for _ in range(3):
        place.run(*settings, options=["--retry-failed"])
        left.append(place.column("status").count("invalid"))
    assert left[0] > left[-1]
    labels, requests = place.column("label"), place.requests
    place.run(*settings)
    assert (place.column("label"), place.requests) == (labels, requests)


def test_a_cap_in_the_middle_of_repairs(place: Place) -> None:
    """The run stops, the rows are pending, and a higher cap goes on where it was."""
    place.texts(*(f"text {n}" for n in range(20)))
    settings = (CHOICES, "labels.repair=2", "limits.concurrency=1")
    done = place.run(*settings, "budget.usd=0.01")
    assert done.code == 4
    rows = place.rows()
    assert {row["status"] for row in rows} <= {"ok", "pending"}
    half = [row for row in rows if row["status"] == "pending" and row["attempts"]]
    assert all(row["cost_usd"] > 0 and row["label"] is None for row in half)
    assert place.bill()["nano_usd"] <= 10_000_000
    assert place.run(*settings, "budget.usd=1").code == 0
    assert place.requests == 60
    assert place.column("status") == ["ok"] * 20


def test_credits_that_run_out_between_the_votes_of_a_row(place: Place) -> None:
    """The endpoint refuses one vote while others of its row are in flight: the run drains, and goes on."""
    place.texts(*(f"drawn {n}" for n in range(40)))
    replies = place.folder / "replies.toml"
    replies.write_text(REPLIES)
    settings = [CHOICES, "labels.votes=3", "labels.repair=1", "request.temperature=0.7"]
    with background(Settings(credits=21, replies=replies, latency=0.05, latency_sigma=0.8)) as sandbox:
        settings.append(f"endpoint.base_url={sandbox.base_url}")
        done = place.run(*settings, "limits.concurrency=16")
        assert done.code == 5, done.err
        assert place.summary()["credits"]["used"] == 21 == sandbox.bill()["total"]["credits"]
        assert place.summary()["credits"]["uncertain"] == 0
        httpx.post(f"{sandbox.base_url}/sandbox/credits", json={"credits": None})
        assert place.run(*settings).code in (0, 3)
    assert "pending" not in place.column("status")


def test_a_cap_of_rows_counts_rows_and_not_their_requests(place: Place) -> None:
    place.texts(*(f"text {n}" for n in range(10)))
    settings = (CHOICES, "labels.repair=2", "budget.rows=4")
    assert place.run(*settings).code == 4
    assert (place.column("status").count("ok"), place.requests) == (4, 12)
    assert place.run(*settings).code == 4
    assert (place.column("status").count("ok"), place.requests) == (8, 24)


def test_duplicates_share_repairs_and_votes(place: Place) -> None:
    place.texts("text 1", "text 1", "text 2", "text 1")
    settings = (CHOICES, "labels.repair=2", "labels.votes=3")
    assert place.run(*settings).code == 0
    assert place.requests == 2 * 2 * 3
    assert place.column("shared") == [False, True, False, True]
    assert place.column("label") == ["good"] * 4
    assert place.column("attempts") == [6, 0, 6, 0]
    assert place.summary()["labels"]["votes_saved"] == 2
    assert place.run(*settings, "output.duplicates=separate").code == 0
    assert place.requests == 4 * 2 * 3


def test_names_that_clash(place: Place) -> None:
    """A property can't have the name of a column of batchrun's; an input column wants a prefix."""
    place.texts("json 7")
    schema = {"type": "object", "properties": {"status": {"type": "string"}}}
    (place.folder / "schema.json").write_text(json.dumps(schema))
    done = place.run('labels.json_schema="schema.json"')
    assert done.code == 2
    assert "'status' is also the name of one of batchrun's columns" in done.err
    (place.folder / "in.csv").write_text("label,text\nx,valid 1\n")
    done = place.run(CHOICES)
    assert (done.code, "output.prefix" in done.err) == (2, True)
    assert place.requests == 0
    assert place.run(CHOICES, "output.prefix=b_", "labels.votes=3").code == 0
    names = pq.read_schema(place.output).names
    assert names[:3] == ["label", "text", "b_status"]
    assert names[-4:] == ["b_label", "b_label_error", "b_agreement", "b_samples"]


def test_the_preview_shows_labels(place: Place) -> None:
    place.texts("valid 1", "text 2")
    done = place.run(CHOICES, "output.prefix=b_", options=["--preview", "2"])
    assert "b_label" in done.err
    assert any("valid 1" in line and "good" in line for line in done.err.splitlines())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["labels.choices=['a', 'A']"], "can't be told apart"),
        (["labels.pattern='('"], "labels"),
        (["labels.json_schema='gone.json'"], "no such file"),
        (["labels.repair=1"], "exactly one of"),
        ([CHOICES, "labels.votes=0"], "[labels] votes"),
    ],
)
def test_wrong_labels_are_told_before_anything_is_sent(
    place: Place, settings: list[str], message: str
) -> None:
    place.texts("valid 1")
    done = place.run(*settings)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert place.requests == 0
