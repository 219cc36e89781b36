"""batchrun.run: tables in, tables out, with the promises of the command line."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import batchrun
from batchrun.rows.columns import COLUMNS
from batchrun.runs import output
from batchrun.sandbox import Sandbox, Settings, background
from tests.python_api.jobs import JOB, REQUEST, TEXTS, reviews


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary journals go; the present folder is another one."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def sent_by(result: batchrun.Result) -> int:
    """Requests of this run."""
    sent: int = result.summary["this_run"]["requests"]["sent"]
    return sent


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame,
        lambda frame: frame.to_arrow(),
        lambda frame: frame.to_arrow().to_batches()[0],
        lambda frame: pd.DataFrame(frame.to_dict(as_series=False), index=[9, 8, 7, 6]),
        lambda frame: pa.concat_tables([frame.to_arrow()[:1], frame.to_arrow()[1:]]),
    ],
    ids=["polars", "pyarrow", "record batch", "pandas", "pyarrow in two chunks"],
)
def test_a_table_of_any_library_gives_the_same_rows_back(convert: Callable[[pl.DataFrame], Any]) -> None:
    result = batchrun.run(JOB, input=convert(reviews()), sandbox=True)
    assert (result.exit_code, result.output) == (0, None)
    rows = result.to_polars()
    assert rows.columns == ["id", "text", *COLUMNS.names]
    assert rows.select("id", "text").equals(reviews())
    assert rows["status"].to_list() == ["ok"] * 4
    assert rows["shared"].to_list() == [False, False, True, False]
    assert result.to_pandas()["text"].tolist() == TEXTS
    assert result.summary["requests"]["sent"] == 3


def test_types_of_a_table_come_back_exactly() -> None:
    frame = pl.DataFrame(
        {
            "text": ["one", None],
            "kind": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
            "tags": [["x"], []],
            "price": pl.Series(["1.50", "2.25"]).cast(pl.Decimal(10, 2)),
            "nothing": [None, None],
        }
    )
    result = batchrun.run(JOB, input=frame, sandbox=True)
    assert result.to_polars().select(frame.columns).equals(frame)
    assert result.to_polars().select(frame.columns).schema == frame.schema


def test_a_table_without_rows_has_an_output_without_rows() -> None:
    result = batchrun.run(JOB, input=reviews([]), sandbox=True)
    assert (result.exit_code, result.table.num_rows) == (0, 0)
    assert result.table.schema.names == ["id", "text", *COLUMNS.names]


def test_without_output_and_journal_nothing_stays(temporary_folder: Path) -> None:
    batchrun.run(JOB, input=reviews(), sandbox=True)
    assert list(temporary_folder.iterdir()) == list(Path().iterdir()) == []


def test_a_journal_keeps_answers_for_the_next_call() -> None:
    first = batchrun.run(JOB, input=reviews(), journal="labels.run", sandbox=True)
    more = reviews([*TEXTS, "Another one."])
    second = batchrun.run(JOB, input=more, journal="labels.run", sandbox=True)
    assert [sent_by(first), sent_by(second)] == [3, 1]
    assert second.to_polars()["output"].to_list()[:4] == first.to_polars()["output"].to_list()
    assert second.summary["output"] is None
    assert [path.name for path in Path().iterdir()] == ["labels.run"]
    assert sorted(path.name for path in Path("labels.run").iterdir()) == [
        "digests.cache",
        "journal.sqlite",
        "lock",
        "log.jsonl",
        "summary.json",
    ]


def test_the_command_line_goes_on_where_python_stopped_and_back(tmp_path: Path) -> None:
    """Whether the rows are in a file or in memory, their requests are the same."""
    reviews().write_csv("reviews.csv")
    with background(Settings()) as sandbox:
        settings = {
            "endpoint.base_url": sandbox.base_url,
            "pricing": {"input_usd_per_million": 5, "output_usd_per_million": 5},
            "output.path": "labels.parquet",
        }
        one_row = {**settings, "budget.rows": 1}
        first = batchrun.run(JOB, input=reviews(), settings=one_row, api_key="k")
        assert (first.exit_code, sent_by(first)) == (4, 1)
        command = [sys.executable, "-m", "batchrun", "run", "--base-url", sandbox.base_url]
        command += ["--input", "reviews.csv", "--output", "labels.parquet", "--max-tokens", "16"]
        command += ["--set", 'output.accept=["truncated"]']
        command += ["--prompt", JOB["prompt"]["template"], "--model", "abliterated-model"]
        assert subprocess.run(command, env={"ABLIT_KEY": "k"}, timeout=40, check=False).returncode == 0
        third = batchrun.run(JOB, input=reviews(), settings=settings, api_key="k")
        assert (third.exit_code, sent_by(third)) == (0, 0)
        assert sandbox.bill()["total"]["requests"] == 3


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.jsonl"])
def test_an_output_file_is_written_and_read_back(name: str) -> None:
    result = batchrun.run(JOB, input=reviews(), settings={"output.path": Path(name)}, sandbox=True)
    assert result.output == Path(name).absolute()
    assert result.output.exists()
    assert result.to_polars().select("id", "text").equals(reviews())
    assert result.summary["output"] == str(result.output)


def test_a_job_file_a_dict_and_a_loaded_job_are_the_same_job(tmp_path: Path) -> None:
    reviews().write_csv("reviews.csv")
    text = """
        [input]
        path = "reviews.csv"
        [prompt]
        template = "Sentiment of this review, one word: {{ text }}"
        [request]
        model = "abliterated-model"
        max_tokens = 16
        [budget]
        usd = 2.5
        [output]
        path = "out.parquet"
        accept = ["truncated"]
    """
    Path("job.toml").write_text(text)
    tables = {
        **JOB,
        "input": {"path": "reviews.csv"},
        "output": {"path": "out.parquet", "accept": ["truncated"]},
    }
    sent = [
        sent_by(batchrun.run(job, sandbox=True))
        for job in ("job.toml", Path("job.toml"), tables, batchrun.load_job(Path("job.toml")))
    ]
    assert sent == [3, 0, 0, 0]
    warmer = {"request.temperature": 0.5}
    with pytest.warns(RuntimeWarning, match="no longer apply, since these have changed: request.temperature"):
        changed = batchrun.run(batchrun.load_job(Path("job.toml")), settings=warmer, sandbox=True)
    assert sent_by(changed) == 3


def test_a_cap_is_a_result_and_a_higher_one_goes_on() -> None:
    settings = {"limits.concurrency": 1}
    small = batchrun.run(
        JOB, input=reviews(), journal="a.run", settings=settings | {"budget.usd": 0.0009}, sandbox=True
    )
    assert small.exit_code == 4
    assert set(small.to_polars()["status"]) == {"ok", "pending"}
    assert small.summary["usd"]["settled"] + small.summary["usd"]["uncertain"] <= 0.0009
    assert batchrun.run(JOB, input=reviews(), journal="a.run", sandbox=True).exit_code == 0


def test_a_sandbox_as_one_wants_it(tmp_path: Path) -> None:
    replies = tmp_path / "replies.toml"
    rules = (("Broke", "negative"), (".", "fine"))
    replies.write_text("".join(f'[[reply]]\npattern = "{seen}"\ntext = "{said}"\n' for seen, said in rules))
    result = batchrun.run(JOB, input=reviews(), sandbox=batchrun.SandboxSettings(replies=replies))
    assert result.to_polars()["output"].to_list() == ["negative", "fine", "negative", "fine"]


def test_failed_rows_are_asked_again_when_wanted() -> None:
    refused = reviews(["[sandbox:flag self-harm] one", "two"])

    def sent(**options: Any) -> tuple[int, int]:
        result = batchrun.run(JOB, input=refused, journal="a.run", sandbox=True, **options)
        return result.exit_code, sent_by(result)

    assert [sent(), sent(), sent(retry_failed=True)] == [(3, 2), (3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"input": [1, 2]}, batchrun.InputError, "got list"),
        ({"input": pl.LazyFrame({"text": ["a"]})}, batchrun.InputError, "collect"),
        ({"input": pl.DataFrame({"text": [object()]})}, batchrun.InputError, "'text'"),
        ({"input": pd.DataFrame({"text": ["secret", 3]})}, batchrun.InputError, "column text"),
        ({"input": pl.DataFrame({" ": ["a"]})}, batchrun.InputError, "no name"),
        ({"input": pl.DataFrame()}, batchrun.InputError, "no columns"),
        ({"input": pl.DataFrame({"texts": ["a"]})}, batchrun.JobError, "It has: texts"),
        ({"input": pl.DataFrame({"text": ["a"], "status": ["b"]})}, batchrun.OutputError, "output.prefix"),
        ({}, batchrun.JobError, "input.path"),
        ({"input": "nowhere.csv"}, batchrun.InputError, "no such file"),
        ({"input": reviews(), "settings": {"budget.uds": 1}}, batchrun.JobError, "did you mean budget.usd"),
        ({"input": reviews(), "settings": {"budget.": 1}}, batchrun.JobError, "expected TABLE.KEY"),
        ({"input": reviews(), "journal": "labels"}, batchrun.UsageError, "ends in .run"),
        (
            {"input": reviews(), "journal": "a.run", "settings": {"output.path": "b.parquet"}},
            batchrun.UsageError,
            "remove",
        ),
        ({"input": reviews(), "local": True}, batchrun.UsageError, "not both"),
        ({"input": reviews(), "sandbox": False}, batchrun.JobError, "no API key"),
        (
            {"input": reviews(), "sandbox": False, "api_key": "two words"},
            batchrun.JobError,
            "the API key holds",
        ),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(
    arguments: dict[str, Any],
    error: type[batchrun.BatchrunError],
    says: str,
    temporary_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ABLIT_KEY", raising=False)
    with pytest.raises(error, match=says) as raised:
        batchrun.run(JOB, **{"sandbox": True, **arguments})
    assert issubclass(error, batchrun.UsageError)
    assert "secret" not in str(raised.value)
    assert list(temporary_folder.iterdir()) == []


def test_a_job_of_no_known_kind_is_refused() -> None:
    with pytest.raises(batchrun.JobError, match="got list"):
        batchrun.run([], sandbox=True)  # type: ignore[arg-type]
    with pytest.raises(batchrun.JobError, match=r"gone\.toml: there is no such job file"):
        batchrun.run("gone.toml", sandbox=True)


def test_a_second_run_of_the_same_journal_is_refused_while_the_first_goes_on() -> None:
    slow = batchrun.SandboxSettings(latency=0.3)

    async def both() -> list[Any]:
        calls = [batchrun.arun(JOB, input=reviews(), journal="a.run", sandbox=slow) for _ in range(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    ends = asyncio.run(both())
    assert sorted(type(end).__name__ for end in ends) == ["LockedError", "Result"]


def test_a_fault_keeps_the_temporary_journal_and_says_where(
    temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was paid for must not go with the folder."""

    def broken(*_: Any) -> None:
        raise batchrun.StorageError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("batchrun.runs.run.write_output", broken)
        with pytest.raises(batchrun.StorageError, match="no room") as raised:
            batchrun.run(JOB, input=reviews(), sandbox=True)
    (kept,) = temporary_folder.glob("*/output.run")
    assert raised.value.__notes__ == [
        f"Answers so far are kept: journal={str(kept)!r} in the call goes on from there."
    ]
    again = batchrun.run(JOB, input=reviews(), journal=kept, sandbox=True)
    assert (again.exit_code, sent_by(again)) == (0, 0)


def test_a_signal_that_comes_too_late_to_stop_anything_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes one run after the other has to end at Ctrl-C."""
    written = []

    def write_output(*arguments: Any) -> Any:
        written.append(output.write_output(*arguments))
        signal.raise_signal(signal.SIGINT)
        return written[0]

    monkeypatch.setattr("batchrun.runs.run.write_output", write_output)
    with pytest.raises(KeyboardInterrupt):
        batchrun.run(JOB, input=reviews(), settings={"output.path": "out.parquet"}, sandbox=True)
    assert pl.read_parquet("out.parquet")["status"].to_list() == ["ok"] * 4
    assert json.loads(Path("out.run/summary.json").read_text())["exit_code"] == 0


def test_run_inside_an_event_loop_points_to_arun() -> None:
    async def inside() -> None:
        batchrun.run(JOB, input=reviews(), sandbox=True)

    with pytest.raises(batchrun.UsageError, match="arun"):
        asyncio.run(inside())


def test_a_result_is_a_frozen_value() -> None:
    result = batchrun.run(JOB, input=reviews(), sandbox=True)
    with pytest.raises(AttributeError):
        result.output = Path("elsewhere")  # type: ignore[misc]
    assert "Broke" not in repr(result)


def test_the_key_shows_nowhere(tmp_path: Path, sandbox: Sandbox) -> None:
    settings = {
        "endpoint.base_url": sandbox.base_url,
        "pricing.input_usd_per_million": 5,
        "pricing.output_usd_per_million": 5,
    }
    result = batchrun.run(JOB, input=reviews(), settings=settings, journal="a.run", api_key="sk-geheim")
    assert result.exit_code == 0
    assert "sk-geheim" not in repr(result) + str(result.summary)
    assert all(b"sk-geheim" not in path.read_bytes() for path in Path("a.run").iterdir())


@pytest.fixture
def sandbox() -> Any:
    with background(Settings(keys=("sk-geheim",))) as running:
        yield running


def test_importing_batchrun_is_light_and_offers_what_it_says() -> None:
    heavy = "{'polars', 'pyarrow', 'httpx', 'starlette', 'anyio', 'msgspec', 'rich'}"
    code = f"import sys, batchrun; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(getattr(batchrun, name) is not None for name in batchrun.__all__)
    assert set(batchrun.__all__) <= set(dir(batchrun))
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = batchrun.rum


def test_plan_sends_nothing_and_leaves_nothing(temporary_folder: Path) -> None:
    plan = batchrun.plan(JOB, input=reviews())
    assert (plan["rows"]["to_send"], plan["rows"]["duplicates"]) == (3, 1)
    assert list(temporary_folder.iterdir()) == list(Path().iterdir()) == []
    with pytest.raises(batchrun.JobError, match="It has: id"):
        batchrun.plan(JOB, input=reviews().drop("text"))
    with pytest.raises(batchrun.UsageError, match="numbers of rows, got -1"):
        batchrun.plan(JOB, input=reviews(), show=-1)
    assert list(temporary_folder.iterdir()) == []


def test_the_sample_of_a_plan_is_journaled_and_a_run_asks_for_the_others() -> None:
    planned = batchrun.plan(JOB, input=reviews(), journal="a.run", sample=2, sandbox=True)
    assert (planned["rows"]["answered"], planned["rows"]["to_send"]) == (2, 1)
    assert planned["expected"]["basis"] == "a random sample of 2 rows"
    assert planned["stopped"] is None
    summary = batchrun.run(JOB, input=reviews(), journal="a.run", sandbox=True).summary
    assert summary["this_run"]["requests"]["sent"] == 1


def test_a_sample_that_would_be_forgotten_is_refused(temporary_folder: Path) -> None:
    with pytest.raises(batchrun.UsageError, match=r"name an output\.path or a journal"):
        batchrun.plan(JOB, input=reviews(), sample=2, sandbox=True)
    assert list(temporary_folder.iterdir()) == []


def test_a_sample_is_not_asked_for_inside_an_event_loop() -> None:
    async def inside() -> None:
        batchrun.plan(JOB, input=reviews(), journal="a.run", sample=2, sandbox=True)

    with pytest.raises(batchrun.UsageError, match=r"asyncio\.to_thread"):
        asyncio.run(inside())


def test_status_needs_no_input_and_export_writes_where_it_is_told() -> None:
    with pytest.raises(batchrun.UsageError, match="Nothing has been run yet"):
        batchrun.status(JOB, journal="a.run")
    batchrun.run(JOB, input=reviews(), journal="a.run", sandbox=True)
    assert batchrun.status(JOB, journal="a.run", sandbox=True)["answered"] == 3
    table = batchrun.export(JOB, input=reviews(), journal="a.run", sandbox=True)
    assert (table.output, table.exit_code, table.table.num_rows) == (None, 0, 4)
    file = batchrun.export(JOB, input=reviews(), journal="a.run", sandbox=True, to="b.csv")
    assert (file.output, file.to_polars().height) == (Path("b.csv"), 4)
    assert sorted(path.name for path in Path().iterdir()) == ["a.run", "b.csv"]


def test_the_sandbox_answers_a_job_that_has_choices_with_one_of_them() -> None:
    job = JOB | {"labels": {"choices": ["positive", "negative"]}}
    many = reviews([f"Review {n}" for n in range(20)])
    rows = batchrun.run(job, input=many, sandbox=True).to_polars()
    assert rows["status"].to_list() == ["ok"] * 20
    assert set(rows["label"]) == {"positive", "negative"}


@pytest.mark.parametrize("convert", [str, Path])
def test_the_sandbox_takes_its_reply_file_as_text_or_path(tmp_path: Path, convert: type) -> None:
    file = tmp_path / "replies.toml"
    file.write_text('[[reply]]\npattern = ""\ntext = "scripted"\n')
    settings = batchrun.SandboxSettings(replies=convert(file))
    rows = batchrun.run(JOB, input=reviews(), sandbox=settings).to_polars()
    assert set(rows["output"]) == {"scripted"}


def test_a_result_says_rows_cost_and_exit_code_in_a_notebook(tmp_path: Path) -> None:
    result = batchrun.run(JOB, input=reviews(), sandbox=True)
    usd = result.summary["usd"]["settled"]
    assert repr(result) == f"<Result: 4 ok of 4 rows, {usd:.4g} USD, exit code 0>"
    capped = {**JOB, "budget": {"rows": 1}, "output": {"path": str(tmp_path / "o.csv"), **JOB["output"]}}
    result = batchrun.run(capped, input=reviews(), sandbox=True)
    assert repr(result).startswith("<Result: 2 ok, 2 pending of 4 rows, 0.00")
    assert repr(result).endswith(f"exit code 4, written to {tmp_path / 'o.csv'}>")


def test_votes_with_temperature_0_are_told_to_be_alike() -> None:
    request = {**JOB["request"], "temperature": 0}
    job = {**JOB, "labels": {"choices": ["a", "b"], "votes": 3}}

    def warns(**changes: Any) -> bool:
        plan = batchrun.plan({**job, "request": request | changes}, input=reviews(), sandbox=True)
        return any("all votes are nearly the same answer" in note for note in plan["notes"])

    assert warns()
    assert not warns(temperature=0.7)
    assert not warns(columns={"temperature": "id"})


def test_the_sandbox_answers_a_job_that_has_a_schema_with_objects_that_fit() -> None:
    properties = {
        "urgency": {"enum": ["low", "high"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 2},
        "spam": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "note": {"type": ["null", "string"]},
        "any": True,
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    job = JOB | {"labels": {"json_schema": schema}, "request": {**REQUEST, "max_tokens": 64}}
    rows = batchrun.run(job, input=reviews([f"Ticket {n}" for n in range(20)]), sandbox=True).to_polars()
    assert rows["status"].to_list() == ["ok"] * 20
    assert set(rows["urgency"]) == {"low", "high"}
    assert set(rows["stars"]) == {1, 2}


def test_a_schema_that_needs_more_than_plain_values_gets_drawn_words() -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{5}[0-9]$"}}}
    job = JOB | {"labels": {"json_schema": schema}}
    rows = batchrun.run(job, input=reviews(), sandbox=True).to_polars()
    assert set(rows["status"]) == {"invalid"}
