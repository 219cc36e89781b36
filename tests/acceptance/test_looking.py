"""plan, status, export, init and schema: looking before, beside and after a run."""

import csv
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.acceptance.command import Place, as_options, ended, paused, until
from tests.acceptance.test_signals import TEXTS

EXAMPLES = sorted((Path(__file__).parents[2] / "jobs").glob("*.toml"))


def plan(place: Place, *settings: str, show: int = 0) -> dict[str, Any]:
    options = ("--show", str(show)) if show else ()
    done = place.command("plan", "job.toml", "--json", *options, *as_options(settings))
    assert (done.code, done.err) == (0, "")
    return done.summary


def test_the_plan_s_numbers_are_those_of_the_run_that_follows(place: Place) -> None:
    place.texts("one", "two", "one", "", "three")
    settings = ("prompt.template={{ text }}", "budget.usd=1")
    before = plan(place, *settings)
    assert place.requests == 0
    assert not (place.folder / "out.run").exists()
    assert before["rows"] == {
        "total": 5,
        "answered": 0,
        "invalid_labels": 0,
        "failed": 0,
        "duplicates": 1,
        "invalid": 1,
        "to_send": 3,
        "half_done": 0,
    }
    assert place.run(*settings).code == 3
    bill = place.bill()
    assert bill["requests"] == before["rows"]["to_send"]
    assert bill["usd"] <= before["worst"]["usd"]
    assert bill["input_tokens"] + bill["output_tokens"] <= before["worst"]["tokens"]
    reserved = 3 * before["worst"]["usd_per_row"]
    assert before["worst"]["usd"] <= reserved
    after = plan(place, *settings)
    assert after["rows"] == {
        "total": 5,
        "answered": 3,
        "invalid_labels": 0,
        "failed": 0,
        "duplicates": 1,
        "invalid": 1,
        "to_send": 0,
        "half_done": 0,
    }
    assert after["budget"]["usd_left"] == round(1 - bill["usd"], 9)
    assert place.requests == 3


def test_the_plan_shows_the_first_request_as_it_is_then_sent(place: Place) -> None:
    place.texts("schön", "two")
    settings = ("prompt.system=Be brief.", "request.temperature=0.5", "request.extra.top_p=0.9")
    first = plan(place, *settings)["first_request"]
    assert first["messages"] == [{"role": "user", "content": "Sentiment, one word: schön"}]
    place.run(*settings, "budget.rows=1", "limits.concurrency=1")
    requests = httpx.get(f"{place.sandbox.base_url}/sandbox/bill").json()["requests"]
    digest = hashlib.sha256(msgspec.json.encode(first)).hexdigest()
    assert digest in {request["body_sha256"] for request in requests}


def test_the_plan_shows_random_rows_that_would_be_sent_and_the_longest(place: Place) -> None:
    place.texts("one", *(f"{number} text" for number in range(40)), "a longer text than the others", "one")
    shown = plan(place, show=3)["shown"]
    rows = [request["row"] for request in shown]
    assert len(rows) == 4
    assert rows[:3] == sorted(rows[:3])
    assert rows[3] == 42
    assert [request["longest"] for request in shown] == [False, False, False, True]
    assert "a longer text" in shown[3]["request"]["messages"][0]["content"]
    assert plan(place, show=3)["shown"] == shown
    assert len(plan(place, show=100)["shown"]) == 42  # the last row has the request of the first
    place.run()
    assert plan(place, show=3)["shown"] == []


def test_the_shown_requests_are_printed_in_place_of_the_first(place: Place) -> None:
    place.texts("a first text", "two")
    printed = place.command("plan", "job.toml", "--show", "1").out
    assert "the longest request:" in printed
    assert "first request" not in printed


def test_the_plan_learns_from_the_answers_in_the_journal(place: Place) -> None:
    place.texts(*TEXTS)
    place.run("budget.rows=20", "limits.concurrency=4")
    expected = plan(place)["expected"]
    assert "20 rows in the journal that have ended" in expected["basis"]
    before = place.bill()["usd"]
    place.run()
    assert expected["usd"] == pytest.approx(place.bill()["usd"] - before, rel=0.2)


def test_the_plan_for_people_says_how_far_the_budget_reaches(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.command("plan", "job.toml", "--max-usd", "0.002", "--rpm", "10")
    assert done.code == 0
    assert "40: 0 answered" in done.out
    assert "0.002 USD left of 0.002 USD" in done.out
    assert "at least 240 s" in done.out
    assert place.requests == 0


def test_status_and_export_look_at_a_run_that_goes_on(slow_place: Place) -> None:
    slow_place.texts(*TEXTS)
    with slow_place.start("run", "job.toml", "--set", "limits.concurrency=4") as process:
        until(lambda: slow_place.requests >= 10)
        with paused(process):
            status = slow_place.command("status", "job.toml", "--json").summary
            people = slow_place.command("status", "job.toml", "--max-usd", "1")
            export = slow_place.command("export", "job.toml", "--to", "so-far.csv")
        assert ended(process).code == 0
    assert status["running"]
    assert status["answered"] >= 2
    assert 1 <= status["in_flight"] <= 12
    assert status["usd"]["settled"] > 0
    rows = status["rows"]
    assert (rows["total"], rows["looked_at"], rows["failed"], rows["invalid"]) == (40, 40, 0, 0)
    assert rows["ok"] <= status["answered"]
    assert rows["pending"] == 40 - rows["ok"]
    assert "pending of 40 so far" in people.out
    spent = re.search(r"(\S+) USD \+ (\S+) reserved of 1 USD, (\S+) left", people.out)
    assert spent is not None
    assert sum(map(float, spent.groups())) == pytest.approx(1)
    assert people.code == 0
    assert "going on" in people.out
    assert export.code == 0
    with (slow_place.folder / "so-far.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    assert {row["status"] for row in rows} == {"ok", "pending"}
    final = dict(zip(TEXTS, slow_place.column("output"), strict=True))
    assert all(row["output"] == final[row["text"]] for row in rows if row["status"] == "ok")
    assert slow_place.requests == len(TEXTS)


def test_status_after_a_run_counts_rows_spend_and_failures(place: Place) -> None:
    place.texts("one", "two", "[sandbox:flag self-harm]")
    place.run("budget.usd=1")
    status = place.command("status", "job.toml", "--json", "--max-usd", "1").summary
    assert not status["running"]
    assert status["rows"] == {"total": 3, "ok": 2, "invalid": 0, "failed": 1, "pending": 0, "shared": 0}
    assert (status["answered"], status["failed"], status["in_flight"]) == (2, 1, 0)
    assert status["usd"]["settled"] == place.bill()["usd"]
    assert status["usd"]["left"] == round(1 - place.bill()["usd"], 9)
    assert status["requests"]["by_error"] == {"content_flagged": 1}
    assert status["last_run"]["exit_code"] == 3
    lines = place.command("status", "job.toml").out
    assert "content_flagged x1" in lines


def test_rows_that_failed_for_good_are_no_answered_ones(place: Place) -> None:
    """plan says so, and so does status while the next run goes on with other rows."""
    place.texts("one", "[sandbox:flag self-harm]", "two", "[sandbox:flag self-harm]")
    place.run()
    rows = plan(place)["rows"]
    assert (rows["total"], rows["answered"], rows["failed"], rows["duplicates"]) == (4, 2, 1, 1)
    assert (rows["invalid"], rows["to_send"]) == (0, 0)
    people = place.command("plan", "job.toml").out
    assert "4: 2 answered, 1 failed, 1 duplicates, 0 to send" in people


def test_status_counts_the_rows_that_earlier_runs_have_answered_or_failed(slow_place: Place) -> None:
    failing = ["[sandbox:flag self-harm] a", "[sandbox:flag self-harm] b"]
    slow_place.texts("one", *failing, "two", "two")
    slow_place.run()
    slow_place.texts("one", *failing, "two", "two", *TEXTS)
    with slow_place.start("run", "job.toml", "--set", "limits.concurrency=2") as process:
        until(lambda: slow_place.requests >= 4 + 8)
        rows = slow_place.command("status", "job.toml", "--json").summary["rows"]
        assert process.poll() is None
        process.kill()
    assert (rows["total"], rows["failed"]) == (45, 2)
    assert 3 + 2 <= rows["ok"] < 45 - 2, "a second old at most"
    assert rows["pending"] == 45 - 2 - rows["ok"]
    after_the_kill = slow_place.command("status", "job.toml").out
    assert "pending of 45 so far" in after_the_kill
    assert "ended without a record" in after_the_kill


def test_export_writes_the_output_again_and_sends_nothing(place: Place) -> None:
    place.texts("one", "two")
    place.run()
    rows = place.rows()
    place.output.unlink()
    done = place.command("export", "job.toml")
    assert (done.code, done.out) == (0, "")
    assert place.rows() == rows
    assert place.requests == 2


def test_a_table_comes_to_answers_by_init_plan_and_run(place: Place) -> None:
    place.texts("one", "two", name="reviews.csv")
    assert place.command("init", "reviews.csv").code == 0
    planned = place.command("plan", "reviews.toml", "--json")
    assert planned.summary["rows"]["to_send"] == 2
    assert "one" in planned.summary["first_request"]["messages"][0]["content"]
    done = place.command("run", "reviews.toml", "--sandbox", "--json", environment={"ABLIT_KEY": ""})
    assert done.summary["rows"]["ok"] == 2
    assert (place.folder / "reviews-answers.parquet").exists()


def test_a_catalogue_comes_to_a_job_that_needs_no_change(place: Place) -> None:
    """Its longest text is sent, and its column `status` doesn't collide with the output's."""
    lines = [f"400638133{n:04},Pen {n},A pen that writes well in blue and black,active" for n in range(3)]
    table = "\n".join(["ean,Product Name,about it,status", *lines])
    (place.folder / "catalogue.csv").write_text(table)
    assert place.command("init", "catalogue.csv").code == 0
    planned = place.command("plan", "catalogue.toml", "--json")
    assert planned.code == 0, planned.err
    assert "A pen that writes well" in planned.summary["first_request"]["messages"][0]["content"]


def test_init_of_a_table_without_rows_goes_by_the_names(place: Place) -> None:
    (place.folder / "empty.csv").write_text("id,text\n")
    assert place.command("init", "empty.csv").code == 0
    assert "{{ text }}" in (place.folder / "empty.toml").read_text()


def test_init_never_replaces_a_job_file(place: Place) -> None:
    place.texts("one")
    place.command("init", "in.csv")
    before = (place.folder / "in.toml").read_bytes()
    done = place.command("init", "in.csv")
    assert done.code == 2
    assert "--job" in done.err
    assert (place.folder / "in.toml").read_bytes() == before


def test_init_finds_the_table_from_another_folder(place: Place) -> None:
    place.texts("one")
    (place.folder / "jobs").mkdir()
    assert place.command("init", "in.csv", "--job", "jobs/mine.toml").code == 0
    assert place.command("plan", "jobs/mine.toml").code == 0


def test_init_reads_a_table_below_its_title(place: Place) -> None:
    (place.folder / "in.csv").write_text('Reviews of May\n\nid,text\n1,Works well.\n2,"Broke, at once."\n')
    assert "(init: --skip-lines 2)" in place.command("init", "in.csv").err
    assert place.command("init", "in.csv", "--skip-lines", "2").code == 0
    assert "skip_lines = 2\n" in (place.folder / "in.toml").read_text()
    assert place.command("plan", "in.toml", "--sandbox").code == 0


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory, quick_sandbox: Any) -> dict[str, Any]:
    done = Place(tmp_path_factory.mktemp("schema"), quick_sandbox, "sk").command("schema")
    assert (done.code, done.err) == (0, "")
    return done.summary


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_knows_every_key_of_the_example_jobs(schema: dict[str, Any], example: Path) -> None:
    """And its $refs lead somewhere: what an editor needs for completion and checks."""
    job = tomllib.loads(example.read_text())
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["required"]) <= set(job) <= set(schema["properties"])
    for table, keys in job.items():
        reference = json.dumps(schema["properties"][table]).partition('"#/$defs/')[2].partition('"')[0]
        definition = schema["$defs"][reference]
        assert set(definition.get("required", [])) <= set(keys) <= set(definition["properties"])
        assert definition["additionalProperties"] is False
