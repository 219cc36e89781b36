"""`batchrun review`: the rows most worth a person's eye, and what that person's corrections say."""

import csv
import json
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.acceptance.command import JOB, Done, Place, SandboxProcess

REPLIES = """\
[[reply]]
pattern = "both"
text = "good or bad"

[[reply]]
pattern = "text [0-4]"
text = "good"

[[reply]]
pattern = "text"
text = "bad"
"""
SANDBOX = ("--sandbox", "--sandbox-replies", "replies.toml")
CHOICES = 'labels.choices=["good", "bad"]'

Sheet = list[dict[str, str]]


def run(place: Place, *settings: str) -> Done:
    (place.folder / "replies.toml").write_text(REPLIES)
    return place.run(*settings, options=SANDBOX)


@pytest.fixture(scope="session")
def labelled_once(tmp_path_factory: pytest.TempPathFactory, quick_sandbox: SandboxProcess) -> Place:
    """Forty-two rows with a label of the sandbox, and four invalid ones; the last row is the first again."""
    folder = tmp_path_factory.mktemp("labelled")
    place = Place(folder, quick_sandbox, "sk-test")
    place.job_file.write_text(
        JOB.replace("BASE_URL", quick_sandbox.base_url) + '[labels]\nchoices = ["good", "bad"]\n'
    )
    texts = [f"text {n % 10} of {n}" for n in range(40)]
    place.texts(*texts, *(f"both, {n}" for n in range(4)), "=1+1 text 0", texts[0])
    assert run(place).code == 3
    return place


@pytest.fixture
def labelled(place: Place, labelled_once: Place) -> Place:
    shutil.copytree(labelled_once.folder, place.folder, dirs_exist_ok=True)
    return place


def review(place: Place, *options: str) -> Done:
    return place.command("review", "job.toml", "--sandbox", *options)


def sheet(place: Place, name: str = "out-review.csv") -> Sheet:
    with (place.folder / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(place: Place, said: Callable[[dict[str, str]], str], name: str = "out-review.csv") -> None:
    rows = sheet(place, name)
    with (place.folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "correct": said(row)} for row in rows)


def read(place: Place, *options: str) -> dict[str, Any]:
    done = review(place, "--read", "out-review.csv", "--json", *options)
    assert done.code == 0, done.err
    return done.summary


def test_the_file_has_invalid_rows_and_an_audit_with_what_a_person_needs(labelled: Place) -> None:
    done = review(labelled, "--rows", "10")
    assert (done.code, done.out) == (0, "")
    rows = sheet(labelled)
    header = ["row", "why", "text", "output", "label", "label_error", "correct", "key"]
    assert list(rows[0]) == header
    texts = labelled.column("text")
    labels = labelled.column("label")
    for row in rows:
        index = int(row["row"]) - 1
        assert row["text"].removeprefix("'") == texts[index]
        assert row["label"] == (labels[index] or "")
        assert row["correct"] == ""
        assert bool(row["label_error"]) == (row["why"] == "invalid")
    assert sum(row["why"] == "invalid" for row in rows) == 4
    assert [row["why"] for row in rows if row["label"]] == [
        f"audit: {n} of 6, from 42 labels" for n in range(1, 7)
    ]
    assert "10 rows (6 drawn at random, 4 invalid)" in done.err


def test_a_formula_in_the_input_is_text_in_the_file(labelled: Place) -> None:
    review(labelled)
    (row,) = [row for row in sheet(labelled) if "1+1" in row["text"]]
    assert row["text"] == "'=1+1 text 0"


def test_a_file_that_is_there_is_written_over_only_when_told_to(labelled: Place) -> None:
    assert review(labelled, "--rows", "5").code == 0
    fill(labelled, lambda _: "ok")
    before = sheet(labelled)
    done = review(labelled, "--rows", "5")
    assert (done.code, sheet(labelled)) == (2, before)
    assert "--again" in done.err
    assert review(labelled, "--rows", "5", "--to", "other.csv").code == 0
    assert review(labelled, "--rows", "5", "--again").code == 0
    assert {row["correct"] for row in sheet(labelled)} == {""}


def test_the_seed_draws_the_audit(labelled: Place) -> None:
    drawn = []
    for seed in (0, 0, 1):
        review(labelled, "--again", "--rows", "8", "--seed", str(seed))
        drawn.append([row["row"] for row in sheet(labelled)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_precision_comes_from_the_audit_alone(labelled: Place) -> None:
    """Two of the audit's labels are wrong, and one is looked at not at all; the invalid rows say nothing."""
    review(labelled, "--rows", "20")
    audit = [row["row"] for row in sheet(labelled) if row["why"].startswith("audit")]
    assert len(audit) == 16

    def said(row: dict[str, str]) -> str:
        if row["row"] in audit[:2]:
            return "bad" if row["label"] == "good" else "Good."
        return "" if row["row"] == audit[2] else "ok" if row["label"] else "none"

    fill(labelled, said)
    report = read(labelled)
    found = report["precision"]
    assert (found["right"], found["checked"], found["unchecked"], found["of"]) == (13, 15, 1, 42)
    assert found["low"] < found["share"] == 13 / 15 < found["high"]
    assert sum(part["labelled"] for part in report["shares"].values()) == 1
    assert sum(part["share"] for part in report["shares"].values()) == pytest.approx(1)
    assert report["shares"]["good"]["low"] < report["shares"]["good"]["share"]
    assert report["rows"] == {
        "total": 20,
        "right": 13,
        "corrected": 2,
        "no_label": 4,
        "changed": 0,
        "not_looked_at": 1,
    }
    each = report["by_label"]
    assert each.keys() == {"good", "bad"}
    assert sum(part["right"] for part in each.values()) == 13
    assert sum(part["of"] for part in each.values()) == 42
    lines = review(labelled, "--read", "out-review.csv").out.splitlines()
    assert lines[0].startswith(
        "reviewed  20 rows: 13 right, 2 corrected, 4 where no label fits, 1 not looked"
    )
    assert lines[1].startswith("precision 86.7% (")


def test_an_empty_file_says_nothing_and_that(labelled: Place) -> None:
    review(labelled, "--rows", "20")
    done = review(labelled, "--read", "out-review.csv")
    assert done.code == 0
    assert "20 not looked at" in done.out
    assert "precision unknown" in done.out


def test_rows_taken_out_of_the_file_are_rows_nobody_looked_at(labelled: Place) -> None:
    review(labelled, "--rows", "20")
    fill(labelled, lambda row: "ok" if row["label"] else "")
    path = labelled.folder / "out-review.csv"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for n, line in enumerate(lines) if n == 0 or "audit: 3 of" not in line]
    path.write_text("".join(kept))
    assert read(labelled)["precision"]["unchecked"] == 1


def test_a_correction_that_is_no_label_is_named_by_its_row(labelled: Place) -> None:
    review(labelled, "--rows", "20")
    rows = sheet(labelled)
    fill(labelled, lambda row: "yes" if row == rows[3] else "ok" if row["label"] else "")
    done = review(labelled, "--read", "out-review.csv")
    assert (done.code, done.out) == (2, "")
    assert f"row {rows[3]['row']}: 'yes' is not a valid label" in done.err


@pytest.mark.parametrize(
    "change",
    ["prompt.template='In a word: {{ text }}'", "input.path='less.csv'", "request.temperature=0.5"],
)
def test_the_file_of_another_version_of_the_input_or_prompt_is_refused(labelled: Place, change: str) -> None:
    labelled.texts("text 1", "text 2", name="less.csv")
    review(labelled, "--rows", "20")
    fill(labelled, lambda row: "ok" if row["label"] else "")
    done = review(labelled, "--read", "out-review.csv", "--set", change)
    assert (done.code, done.out) == (2, "")
    assert "another version of the input or the prompt" in done.err


def test_rows_that_moved_are_other_rows(labelled: Place) -> None:
    review(labelled, "--rows", "20")
    texts = labelled.column("text")
    labelled.texts(*reversed(texts))
    assert review(labelled, "--read", "out-review.csv").code == 2


def test_a_sandbox_review_is_none_of_the_paid_run(labelled: Place) -> None:
    """And the other way round: the answers of the two are kept apart."""
    review(labelled, "--rows", "20")
    done = labelled.command("review", "job.toml", "--read", "out-review.csv")
    assert (done.code, "--sandbox" in done.err) == (2, True)
    done = labelled.command("review", "job.toml", "--to", "paid.csv")
    assert (done.code, "No row has been answered" in done.err) == (2, True)
    assert not (labelled.folder / "paid.csv").exists()
    assert labelled.requests == 0, "a review sends nothing"


def test_labels_that_have_changed_since_are_left_out(labelled: Place) -> None:
    """With more choices there are other labels: what a person said of the old ones says nothing of them."""
    review(labelled, "--rows", "20")
    fill(labelled, lambda row: "ok" if row["label"] else "")
    report = read(labelled, "--set", 'labels.choices=["good", "worse"]')
    bad = sum(row["label"] == "bad" for row in sheet(labelled))
    assert report["rows"]["changed"] == bad > 0
    assert "shares" not in report
    assert report["precision"]["unchecked"] == bad
    assert report["precision"]["checked"] == 16 - bad


def test_more_labels_since_are_said(labelled: Place) -> None:
    review(labelled, "--rows", "20")
    fill(labelled, lambda row: "ok" if row["label"] else "")
    labelled.texts(*labelled.column("text"), "text 1, new")
    assert run(labelled).code == 3
    assert read(labelled)["labels"] == {"then": 42, "now": 43}
    assert "There are 43 labels by now" in review(labelled, "--read", "out-review.csv").out


def test_the_output_is_written_with_the_corrections_and_nothing_else_changes(labelled: Place) -> None:
    """A correction holds for all rows with the same request."""
    review(labelled, "--rows", "100")
    rows = sheet(labelled)
    first, last = rows[0], rows[-1]
    assert (first["row"], last["row"], first["text"]) == ("1", "46", last["text"])
    fill(labelled, lambda row: "bad" if row["row"] == "1" else "none" if row["row"] == "2" else "")
    before, output = labelled.journal("SELECT * FROM attempts"), labelled.output.read_bytes()
    read(labelled, "--corrected", "corrected.parquet")
    table = pq.read_table(labelled.folder / "corrected.parquet").to_pylist()
    assert [row["reviewed"] for row in table[:3]] == ["bad", None, "good"]
    assert [row["looked_at"] for row in table] == [True, True, *[False] * 43, True]
    assert table[45]["reviewed"] == "bad"
    assert [row["reviewed"] for row in table[2:45]] == labelled.column("label")[2:45]
    plain = [{k: v for k, v in row.items() if k not in ("reviewed", "looked_at")} for row in table]
    assert plain == labelled.rows()
    assert labelled.journal("SELECT * FROM attempts") == before
    assert labelled.output.read_bytes() == output


def test_two_corrections_of_one_request_must_agree(labelled: Place) -> None:
    review(labelled, "--rows", "100")
    fill(labelled, lambda row: {"1": "bad", "46": "good"}.get(row["row"], ""))
    done = review(labelled, "--read", "out-review.csv")
    assert (done.code, "row 46: the same request as row 1" in done.err) == (2, True)


@pytest.mark.parametrize("name", ["out.parquet", "in.csv", "out-review.csv"])
def test_what_the_job_needs_is_not_written_over(labelled: Place, name: str) -> None:
    review(labelled)
    before = (labelled.folder / name).read_bytes()
    assert review(labelled, "--read", "out-review.csv", "--corrected", name).code == 2
    assert (labelled.folder / name).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--corrected", "c.csv"), "--corrected goes with --read"),
        (("--read", "f.csv", "--again"), "--again are for writing"),
        (("--to", "f.xlsx"), "ends in .csv"),
        (("--to", "in.csv"), "is the job's input"),
        (("--read", "gone.csv"), "can't be read"),
        (("--rows", "0"), "--rows"),
    ],
)
def test_a_wrong_command_is_told_in_a_line_or_two(
    labelled: Place, options: tuple[str, ...], message: str
) -> None:
    done = review(labelled, *options)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_job_without_labels_has_nothing_to_review(place: Place) -> None:
    place.texts("text 1")
    done = review(place)
    assert (done.code, "has no [labels]" in done.err) == (2, True)


def test_a_column_of_the_same_name_wants_a_prefix(place: Place) -> None:
    path = place.folder / "in.csv"
    path.write_text("row,text\n1,text 1\n2,text 2\n")
    template = 'prompt.template="{{ text }} {{ row }}"'
    assert run(place, CHOICES, template).code == 0
    options = ("--set", CHOICES, "--set", template)
    done = review(place, *options)
    assert (done.code, "output.prefix" in done.err) == (2, True)
    assert review(place, *options, "--set", "output.prefix=b_").code == 0
    fill_prefixed = sheet(place)
    assert list(fill_prefixed[0])[:4] == ["b_row", "b_why", "row", "text"]
    done = review(place, *options, "--set", "output.prefix=b_", "--read", "out-review.csv")
    assert done.code == 0


def test_json_labels_are_corrected_as_json_and_told_by_column(place: Place) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
        "required": ["n", "kind"],
    }
    (place.folder / "schema.json").write_text(json.dumps(schema))
    (place.folder / "replies.toml").write_text(
        '[[reply]]\npattern = \'text (\\d+)\'\ntext = \'{"kind": "a", "n": {1}}\'\n'
    )
    place.texts(*(f"text {n}" for n in range(12)))
    setting = 'labels.json_schema="schema.json"'
    assert place.run(setting, options=SANDBOX).code == 0
    assert review(place, "--set", setting).code == 0
    assert sheet(place)[0]["label"] == '{"kind":"a","n":0}'
    fill(
        place, lambda row: '{"n": 0, "kind": "b"}' if row["row"] == "1" else "ok" if row["row"] < "6" else ""
    )
    options = ("--read", "out-review.csv", "--json", "--set", setting, "--corrected", "c.jsonl")
    done = review(place, *options)
    assert done.code == 0, done.err
    columns = done.summary["by_column"]
    assert (columns["n"]["share"], columns["kind"]["right"]) == (1.0, columns["kind"]["checked"] - 1)
    assert "by_label" not in done.summary
    first = json.loads((place.folder / "c.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["reviewed"]) == ("a", '{"kind":"b","n":0}')


def test_low_agreement_comes_with_its_share(place: Place) -> None:
    (place.folder / "replies.toml").write_text(
        '[[reply]]\npattern = ""\nchoices = [{text = "good", probability = 0.6}, {text = "bad"}]\n'
    )
    place.texts(*(f"text {n}" for n in range(40)))
    settings = (CHOICES, "labels.votes=3", "request.temperature=0.9")
    assert place.run(*settings, options=SANDBOX).code == 0
    options = [part for setting in settings for part in ("--set", setting)]
    assert review(place, *options, "--rows", "10").code == 0
    doubtful = [row for row in sheet(place) if row["why"] == "low agreement"]
    assert len(doubtful) == 5
    assert {row["agreement"] for row in doubtful} == {"0.67"}
