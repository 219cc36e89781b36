"""What a run leaves behind: columns, metadata, summary, files, and what it prints where."""

import json
import shutil
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun import __version__
from tests.acceptance.command import Place

# The table of docs/output.md, in its order.
COLUMNS = {
    "status": pa.string(),
    "output": pa.string(),
    "stop_reason": pa.string(),
    "stop_sequence": pa.string(),
    "response_id": pa.string(),
    "response_model": pa.string(),
    "input_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "cache_read_tokens": pa.int64(),
    "cache_write_tokens": pa.int64(),
    "credits_used": pa.int64(),
    "cost_usd": pa.float64(),
    "uncertain_usd": pa.float64(),
    "remaining_credits": pa.int64(),
    "attempts": pa.int32(),
    "shared": pa.bool_(),
    "error_code": pa.string(),
    "error": pa.string(),
    "latency_ms": pa.float64(),
    "first_token_ms": pa.float64(),
    "answered_at": pa.timestamp("ms", tz="UTC"),
}


def test_the_columns_and_their_types_are_those_of_the_documentation(place: Place) -> None:
    place.texts("one")
    place.run()
    schema = pq.read_schema(place.output)
    assert {field.name: field.type for field in schema} == {
        "id": pa.int64(),
        "text": pa.string(),
        **COLUMNS,
    }
    assert schema.names == ["id", "text", *COLUMNS]


def test_the_schema_is_the_same_whatever_became_of_the_rows(place: Place) -> None:
    """All pending, all failed and all answered give one schema, so that outputs can be put together."""
    place.texts("one", "two")
    place.sandbox.set("credits", {"credits": 0})
    assert place.run().code == 5
    pending = pq.read_schema(place.output)
    place.sandbox.set("credits", {"credits": None})
    assert place.run('prompt.template="[sandbox:flag self-harm] {{ text }}"').code == 3
    failed = pq.read_schema(place.output)
    assert place.run().code == 0
    answered = pq.read_schema(place.output)
    assert pending.equals(failed)
    assert failed.equals(answered)


def test_every_answered_row_says_what_was_answered_and_what_it_took(place: Place) -> None:
    place.texts("one", "two")
    place.sandbox.set("credits", {"credits": 100})
    place.run("request.max_tokens=4", "limits.concurrency=1")
    for row, left in zip(place.rows(), (99, 98), strict=True):
        assert row["output"]
        assert row["response_id"].startswith("msg_")
        assert row["response_model"] == "abliterated-model"
        assert (row["stop_reason"], row["stop_sequence"]) == ("max_tokens", None)
        assert row["cost_usd"] == round((row["input_tokens"] + row["output_tokens"]) * 5e-6, 9)
        assert (row["credits_used"], row["remaining_credits"]) == (1, left)
        assert (row["attempts"], row["shared"], row["uncertain_usd"]) == (1, False, 0.0)
        assert (row["error_code"], row["error"], row["first_token_ms"]) == (None, None, None)
        assert 0 < row["latency_ms"] < 20_000
        assert row["answered_at"].tzname() == "UTC"


def test_a_stream_gives_the_same_answers_and_the_time_to_the_first_token(place: Place) -> None:
    place.texts("one", "two")
    place.run()
    whole = place.rows()
    shutil.rmtree(place.output.with_suffix(".run"))  # else the stream would take the answers bought before
    place.run("request.stream=true")
    streamed = place.rows()
    for name in ("output", "input_tokens", "output_tokens", "cost_usd", "stop_reason", "credits_used"):
        assert [row[name] for row in streamed] == [row[name] for row in whole]
    assert all(0 < row["first_token_ms"] <= row["latency_ms"] for row in streamed)


def test_the_metadata_carries_version_job_and_summary_without_secrets(place: Place) -> None:
    place.texts("one")
    place.run('endpoint.headers.x-team="s3cret-header"')
    metadata = {
        name.decode(): value.decode() for name, value in pq.read_metadata(place.output).metadata.items()
    }
    assert metadata["batchrun.version"] == __version__
    told = {key: value for key, value in place.summary().items() if key != "adjustments"}  # names a person
    assert json.loads(metadata["batchrun.summary"]) == told
    job = json.loads(metadata["batchrun.job"])
    assert job["prompt"]["template"] == "Sentiment, one word: {{ text }}"
    assert job["endpoint"]["headers"] == {"x-team": "***"}


def test_the_summary_has_the_documented_keys(place: Place) -> None:
    place.texts("one", "two", "one")
    done = place.run("budget.usd=1", options=["--json"])
    summary = place.summary()
    assert done.summary == summary
    assert summary["exit_code"] == 0
    assert summary["reason"] == "Every row has an answer (3 rows)."
    assert summary["rows"] == {"total": 3, "ok": 3, "invalid": 0, "failed": 0, "pending": 0, "shared": 1}
    assert summary["seconds"] > 0
    assert summary["started_at"] < summary["finished_at"]
    bill = place.bill()
    for part in (summary, summary["this_run"]):
        assert part["requests"] == {"sent": 2, "retried": 0, "by_error": {}}
        assert part["tokens"] == {"input": bill["input_tokens"], "output": bill["output_tokens"]}
        assert (part["usd"]["settled"], part["usd"]["uncertain"]) == (bill["usd"], 0)
        assert (part["credits"]["used"], part["credits"]["remaining"]) == (2, None)
    assert summary["usd"]["budget"] == 1


def test_the_summary_counts_the_journal_s_life_and_this_run_apart(place: Place) -> None:
    place.texts("one")
    place.run()
    place.texts("one", "two", "three")
    place.run()
    summary = place.summary()
    assert summary["requests"]["sent"] == 3
    assert summary["this_run"]["requests"]["sent"] == 2


def test_the_folder_of_a_run_is_for_its_owner_alone(place: Place) -> None:
    place.texts("one")
    place.run()
    folder = place.folder / "out.run"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"journal.sqlite", "summary.json", "lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_nothing_but_the_output_and_its_folder_is_left_behind(place: Place) -> None:
    place.texts("one")
    place.run()
    assert {path.name for path in place.folder.iterdir()} == {"in.csv", "job.toml", "out.parquet", "out.run"}


def test_people_read_stderr_and_stdout_stays_empty(place: Place) -> None:
    place.texts("one", "two")
    done = place.run()
    assert done.out == ""
    assert done.last_line == "Every row has an answer (2 rows)."
    assert "out.parquet" in done.err


def test_json_is_one_object_on_stdout_and_nothing_else(place: Place) -> None:
    place.texts("one")
    done = place.run(options=["--json", "--preview", "1"])
    assert done.out.count("\n") == 1
    assert done.summary["rows"]["total"] == 1


@pytest.mark.parametrize("options", [["-q"], ["--quiet"]])
def test_quiet_says_nothing_where_nothing_needs_a_person(place: Place, options: list[str]) -> None:
    place.texts("one")
    done = place.run(options=options)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_quiet_still_speaks_when_rows_have_failed(place: Place) -> None:
    place.texts("[sandbox:flag self-harm]")
    done = place.run(options=["-q"])
    assert done.code == 3
    assert "--retry-failed" in done.last_line


def test_answers_and_prompts_are_not_printed_unless_asked_for(place: Place) -> None:
    place.texts("wombat")
    done = place.run()
    (answer,) = place.column("output")
    assert "wombat" not in done.err
    assert answer not in done.err
    shown = place.run(options=["--preview", "1"])
    assert "wombat" in shown.err
    assert answer[:20] in shown.err


def test_a_symbolic_link_as_output_is_kept_and_its_target_replaced(place: Place) -> None:
    place.texts("one")
    (place.folder / "real").mkdir()
    target = place.folder / "real" / "answers.parquet"
    place.output.symlink_to(target)
    refused = place.run()
    assert refused.code == 2
    assert "output.follow_links = true" in refused.err
    assert place.run("output.follow_links=true").code == 0
    assert place.output.is_symlink()
    assert pq.read_table(target).num_rows == 1


def test_paths_of_a_job_are_relative_to_its_file(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place.texts("one")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    other = Place(elsewhere, place.sandbox, place.key)
    assert other.command("run", str(place.job_file)).code == 0
    assert place.column("status") == ["ok"]
    assert list(Path(elsewhere).iterdir()) == []
