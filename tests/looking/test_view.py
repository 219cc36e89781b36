"""The live pages as functions and values, apart from HTTP: what is shown, chosen, sorted and kept."""

import csv
import io
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.cli.review_lines import precision_lines
from batchrun.clock import milliseconds
from batchrun.errors import JobError, UsageError
from batchrun.job.file import load_job
from batchrun.journal.timeline import runs_of
from batchrun.runs.by_hand import Remark
from batchrun.runs.report.facts import facts_of
from batchrun.runs.report.run_part import run_blocks
from batchrun.runs.report.write import page_values
from batchrun.runs.review import read_review, write_review
from batchrun.runs.run_folder import open_journal_of
from batchrun.runs.view import pages
from batchrun.runs.view.jobs import find_jobs
from batchrun.runs.view.kept import Kept
from batchrun.runs.view.table import (
    ROWS_OF_A_PAGE,
    Choice,
    RowsFile,
    choice_of,
    csv_parts,
    found_rows,
    neighbors,
    rows_of_page,
    values_of,
)
from batchrun.runs.view.viewed import ViewedJob
from batchrun.runs.view.watch import Watch
from batchrun.sandbox import Sandbox
from tests.looking.conftest import HOSTILE_PROMPT, ROWS, WRONG, Finished, finish, write_job
from tests.looking.test_report import block, texts


@pytest.fixture(scope="module")
def viewed(finished: Finished) -> ViewedJob:
    return ViewedJob(finished.job)


@pytest.fixture(scope="module")
def file(viewed: ViewedJob) -> RowsFile:
    return made(viewed)


def made(viewed: ViewedJob) -> RowsFile:
    until = time.monotonic() + 20
    while (file := viewed.rows()) is None:
        assert time.monotonic() < until
    return file


def indexes(file: RowsFile, **choice: Any) -> list[int]:
    found = found_rows(file, Choice(**choice))
    return [*range(file.rows)] if found is None else found.to_list()


# What is known of a run.


def test_a_watch_of_a_finished_run_says_what_the_report_says(finished: Finished) -> None:
    state = Watch(finished.job).look()
    assert state is not None
    facts = facts_of(finished.job, sandbox=True)
    live, whole = run_blocks(state), run_blocks(facts)
    for title in ("Rows by status", "Attempts without an answer"):
        assert texts(block(live, title)) == texts(block(whole, title))
    assert state.timeline is not None
    assert state.timeline.settled[-1] == pytest.approx(finished.summary["usd"]["settled"])
    live_page, whole_page = pages.live_values(state, facts), page_values(facts)
    assert live_page["tiles"] == whole_page["tiles"]
    assert live_page["parts"] == whole_page["parts"][:1]  # else a look would make its charts coarser
    assert pages.live_values(state, None)["parts"] != live_page["parts"]
    assert (state.sandbox, state.rows["ok"]) == (True, finished.summary["rows"]["ok"])


def test_a_journal_that_nobody_writes_is_not_read_again(finished: Finished) -> None:
    watch = Watch(finished.job)
    assert watch.look() is watch.look()


def test_a_job_without_a_run_has_nothing_to_show(tmp_path: Path) -> None:
    viewed = ViewedJob(write_job(tmp_path))
    assert viewed.state() is None
    assert viewed.facts() == (None, None)
    with pytest.raises(UsageError, match="Nothing has been run yet"):
        viewed.rows()


def test_a_watch_takes_up_a_new_run(tmp_path: Path, sandbox: Sandbox) -> None:
    done = finish(tmp_path, sandbox, evaluation=None, labels=None)
    watch = Watch(done.job)
    first = watch.look()
    (tmp_path / "out.parquet").unlink()
    finish(tmp_path, sandbox, evaluation=None, labels={"choices": ["yes", "no", "maybe"], "repair": 1})
    second = watch.look()
    assert first is not None
    assert second is not None
    assert [len(state.runs) for state in (first, second)] == [1, 2]


def test_sums_of_runs_are_those_over_their_attempts(finished: Finished) -> None:
    with closing(open_journal_of(finished.job)) as journal:
        (run,) = runs_of(journal, sandbox=True)
        requests, settled = journal.connection.execute(
            "SELECT count(*), sum(nano_usd) FROM attempts WHERE outcome = 'answered'"
        ).fetchone()
    assert (run.answered, run.nano_usd) == (requests, settled)


# The table of jobs.


def test_the_jobs_of_a_folder_are_its_job_files(finished: Finished, tmp_path: Path) -> None:
    write_job(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "broken.toml").write_text((tmp_path / "job.toml").read_text() + "[budegt]\nusd = 1\n")
    broken, job = find_jobs([tmp_path], load_job)
    assert (broken.job, job.error) == (None, None)
    assert "budget" in (broken.error or "")
    with pytest.raises(JobError):
        find_jobs([tmp_path / "broken.toml"], load_job)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no job file"):
        find_jobs([tmp_path / "empty"], load_job)


def test_a_job_s_line_has_rows_spend_and_how_it_ended(finished: Finished) -> None:
    line = pages.job_line(1, "job.toml", Watch(finished.job).look(), None)
    assert line["state"] == f"ended with {finished.summary['exit_code']}"
    assert line["rows"] == f"{ROWS} of {ROWS}"
    assert line["spent"].endswith(" of 1 USD")
    assert line["faults"] == ["1 failed", "2 invalid"]
    assert pages.job_line(2, "x", None, None)["state"] == "not run yet"
    assert pages.job_line(3, "x", None, "why")["error"] == "why"


# The table of rows.


def test_a_finished_run_s_output_is_read_in_place(file: RowsFile, finished: Finished) -> None:
    assert file.path == finished.folder / "out.parquet"
    assert (file.rows, file.prompt, file.expected) == (ROWS, ("text",), "gold")


def test_an_output_that_is_gone_is_made_again_apart(tmp_path: Path, sandbox: Sandbox) -> None:
    done = finish(tmp_path, sandbox)
    viewed = ViewedJob(done.job)
    output = tmp_path / "out.parquet"
    before = pl.read_parquet(output)
    output.unlink()
    file = made(viewed)
    assert file.path.parent.parent == tmp_path
    assert pl.read_parquet(file.path).equals(before)
    assert not output.exists()
    viewed.close()
    assert not file.path.parent.exists()


def test_rows_are_chosen_by_status_reason_label_text_and_any_column(file: RowsFile) -> None:
    assert indexes(file) == [*range(ROWS)]
    assert indexes(file, status="failed") == [10]
    assert indexes(file, status="invalid", reason="invalid_label") == [20, 30]
    assert indexes(file, label="yes", disagree=True) == [row for row in WRONG if row not in (10, 20, 30)]
    assert indexes(file, text="TEXT 7") == [7]
    assert indexes(file, text=HOSTILE_PROMPT[:12]) == [20]
    assert indexes(file, where=(("language", "de"), ("id", "id-8"))) == [8]
    assert 10 in indexes(file, where=(("cost_usd", "0.0"),))
    assert 10 in indexes(file, where=(("output", ""),))
    assert indexes(file, label="never") == []


def test_cells_of_other_types_are_compared_as_a_person_types_them(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "n": [1, 2, None],
            "x": [0.00001, 2.5, -1.0],
            "yes": [True, False, None],
            "at": [datetime(2026, 11, 29, hour, tzinfo=UTC) for hour in (1, 2, 3)],
            "list": [[1], [2], []],
            "kind": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        }
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    file = RowsFile(tmp_path / "rows.parquet", 0, 3, tuple(frame.columns), tuple(frame.columns), ())
    for column, text, found in [
        ("n", "2", [1]),
        ("n", "2.0", [1]),
        ("n", "", [2]),
        ("n", "two", []),
        ("x", "1e-5", [0]),
        ("x", "0.00001", [0]),
        ("yes", "true", [0]),
        ("at", "2026-11-29", [0, 1, 2]),
        ("at", "2026-11-29 02", [1]),
        ("kind", "a", [0, 2]),
    ]:
        assert indexes(file, where=((column, text),)) == found, (column, text)
    for query in ("column=list&value=1", "sort=list"):
        with pytest.raises(UsageError, match="can't be compared"):
            choice_of(file, parsed(query))


def test_rows_are_sorted_with_empty_cells_last(file: RowsFile) -> None:
    order = indexes(file, sort="latency_ms", descending=True)
    latencies = pl.read_parquet(file.path)["latency_ms"]
    known = [latencies[index] for index in order if latencies[index] is not None]
    assert known == sorted(known, reverse=True)
    assert latencies[order[-1]] is None
    assert sorted(order) == [*range(ROWS)]


def test_pages_together_are_all_rows_in_the_chosen_order(file: RowsFile) -> None:
    for choice in (Choice(), Choice(sort="cost_usd")):
        found = found_rows(file, choice)
        read = [
            index
            for page in (1, 2, 3)
            for index in rows_of_page(file, choice, page, pages.columns_of_page(file))
        ]
        assert read == (indexes(file) if found is None else found.to_list())
    assert len(rows_of_page(file, Choice(), 1, ["id"])) == ROWS_OF_A_PAGE
    assert rows_of_page(file, Choice(), 2, ["id"])[55] == {"id": "id-55"}


def test_every_row_of_a_large_table_is_on_one_page_in_its_order(tmp_path: Path) -> None:
    numbers = [n * 7_919 % 30_000 for n in range(30_000)]  # neighbors in the order lie far apart
    frame = pl.DataFrame({"n": numbers, "status": ["ok"] * 30_000})
    frame.write_parquet(tmp_path / "rows.parquet", row_group_size=1_000)
    file = RowsFile(tmp_path / "rows.parquet", 0, 30_000, ("n", "status"), ("n",), ("n",))
    choice = Choice(sort="n")
    for page in (1, 2, 11, 599, 600):
        read = rows_of_page(file, choice, page, ["n"])
        first = (page - 1) * ROWS_OF_A_PAGE
        assert [row["n"] for row in read.values()] == list(range(first, first + ROWS_OF_A_PAGE))
        assert all(numbers[index] == row["n"] for index, row in read.items())
    assert rows_of_page(file, choice, 601, ["n"]) == {}


def test_a_choice_is_in_the_url_and_comes_back_from_it(file: RowsFile) -> None:
    choice = Choice("ok", "why", "yes", True, "a & b", (("language", "d=e"), ("id", "")), "id", True)
    assert choice_of(file, parsed(choice.query(3))) == (choice, 3)
    assert choice_of(file, parsed(Choice().query())) == (Choice(), 1)
    assert choice_of(file, [("page", "-1"), ("unknown", "x")]) == (Choice(), 1)
    with pytest.raises(UsageError, match="nope"):
        choice_of(file, [("column", "nope"), ("value", "x")])


def parsed(query: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl

    return parse_qsl(query, keep_blank_values=True)


def test_the_rows_beside_one_are_those_of_the_chosen_order() -> None:
    assert neighbors(None, 3, 0) == (None, 1)
    assert neighbors(None, 3, 2) == (1, None)
    order = pl.Series([7, 2, 9])
    assert neighbors(order, 10, 2) == (7, 9)
    assert neighbors(order, 10, 9) == (2, None)
    assert neighbors(order, 10, 5) == (None, None)


def test_a_table_s_line_is_short_and_marks_what_differs(file: RowsFile) -> None:
    rows = rows_of_page(file, Choice(), 1, pages.columns_of_page(file))
    counts = {"status": values_of(file, "status"), "reason": (), "label": values_of(file, "label")}
    values = pages.rows_values(file, Choice(), 1, ROWS, rows, counts)
    lines = {line["number"]: line for line in values["rows"]}
    assert (lines[1]["label"], lines[1]["expected"], lines[1]["differs"]) == ("yes", "no", True)
    assert not lines[2]["differs"]
    assert lines[11]["status"] == "failed"
    assert all(len(line["line"]) <= pages.MOST_OF_A_LINE for line in lines.values())
    assert values_of(file, "error_code") == (("invalid_label", 2), ("content_flagged", 1))
    assert (values["previous"], values["next"]) == (None, "page=2")
    assert {"value": "yes", "text": f"yes ({ROWS - 3})"} in values["choices"]["label"]


def test_a_download_has_the_chosen_rows_in_the_input_s_order(file: RowsFile) -> None:
    chosen = found_rows(file, Choice(where=(("language", "de"),), sort="cost_usd", descending=True))
    read = list(csv.DictReader(io.StringIO(b"".join(csv_parts(file, chosen)).decode())))
    assert [row["id"] for row in read] == [f"id-{row}" for row in range(0, ROWS, 4)]
    assert tuple(read[0]) == file.columns
    assert len(b"".join(csv_parts(file, None)).splitlines()) > ROWS


def test_a_download_runs_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["=1+1"], "status": ["=2+2"]}).write_parquet(tmp_path / "rows.parquet")
    file = RowsFile(
        tmp_path / "rows.parquet",
        0,
        1,
        ("text", "status"),
        ("text",),
        ("text",),
        harmless=frozenset(["status"]),
    )
    assert b"".join(csv_parts(file, None)).splitlines()[1] == b"=1+1,'=2+2"


def test_a_download_s_header_runs_no_formula_either(tmp_path: Path) -> None:
    pl.DataFrame({"=cmd": ["a"], "'=cmd": ["b"]}).write_parquet(tmp_path / "rows.parquet")
    columns = ("=cmd", "'=cmd")
    file = RowsFile(tmp_path / "rows.parquet", 0, 1, columns, columns, columns, harmless=frozenset(columns))
    assert b"".join(csv_parts(file, None)).splitlines() == [b"'=cmd,'=cmd", b"a,b"]


# A row.


def test_a_row_is_read_alone_as_show_prints_it(viewed: ViewedJob, finished: Finished) -> None:
    import json

    for number in (1, 11, 21, ROWS):
        shown = json.loads(finished.command("show", "--row", str(number), "--json").stdout)
        assert json.loads(json.dumps(viewed.row(number - 1)[0])) == shown
    with pytest.raises(UsageError, match="no row 61"):
        viewed.row(ROWS)


def test_a_row_s_page_has_whole_texts(viewed: ViewedJob) -> None:
    values = pages.row_page_values(*viewed.row(30), Choice(status="ok"), (29, None))
    assert values["row"]["prompt"][-1] == ("user", "long 30")
    assert (values["before"], values["after"], values["query"]) == (30, None, "status=ok")


def test_an_input_that_has_changed_is_opened_again(tmp_path: Path, sandbox: Sandbox) -> None:
    done = finish(tmp_path, sandbox)
    viewed = ViewedJob(done.job)
    assert viewed.row(0)[0]["status"] != "pending"
    frame = pl.read_parquet(tmp_path / "in.parquet")
    pl.concat([frame, frame.head(1).with_columns(text=pl.lit("more"))]).write_parquet(tmp_path / "in.parquet")
    added, _ = viewed.row(ROWS)
    assert (added["prompt"][-1], added["status"]) == (("user", "more"), "pending")


def test_a_row_that_shares_an_answer_has_no_cost_of_its_own(viewed: ViewedJob) -> None:
    read, _ = viewed.row(1)
    own = pages.row_page_values(read, None, Choice())["row"]["facts"]
    shared = pages.row_page_values(read, None, Choice(), shared=True)["row"]["facts"]
    assert any("USD" in fact for fact in own)
    assert not any("USD" in fact for fact in shared)
    assert shared[0] == "shares an earlier row's answer"


# What a person says of rows.


def test_corrections_end_where_the_review_reads_them(tmp_path: Path, sandbox: Sandbox) -> None:
    done = finish(tmp_path, sandbox)
    viewed = ViewedJob(done.job)
    viewed.say(0, Remark("no", "=says the opposite"))
    viewed.say(1, Remark("ok"))
    viewed.say(0, Remark("no", "=says it again"))
    assert viewed.row(0)[1] == Remark("no", "=says it again")
    assert viewed.row(2)[1] == Remark()
    path = tmp_path / "out-review.csv"
    assert path.read_text(encoding="utf-8-sig").count("by hand") == 2
    report = read_review(done.job, path, corrected=tmp_path / "corrected.parquet", sandbox=True)
    assert report["rows"] | {"right": 1, "corrected": 1, "total": 2} == report["rows"]
    reviewed, none_drawn = precision_lines(report)
    assert reviewed == "reviewed  2 rows: 1 right, 1 corrected"
    assert none_drawn.startswith("None of them was drawn at random")
    labels = pl.read_parquet(tmp_path / "corrected.parquet")["reviewed"].to_list()
    assert labels[:2] == ["no", "yes"]


def test_a_remark_keeps_the_audit_and_its_reason(tmp_path: Path, sandbox: Sandbox) -> None:
    done = finish(tmp_path, sandbox)
    path = tmp_path / "out-review.csv"
    write_review(done.job, path, rows=12, seed=0, again=False, sandbox=True)
    before = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    drawn = next(row for row in before if row["why"].startswith("audit"))
    ViewedJob(done.job).say(int(drawn["row"]) - 1, Remark("ok", "looked at"))
    after = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    changed = [row for row in after if row["note"]]
    assert changed == [drawn | {"correct": "ok", "note": "looked at"}]
    assert [{name: row[name] for name in before[0]} for row in after if not row["note"]] == [
        row for row in before if row is not drawn
    ]


@pytest.mark.parametrize(
    ("index", "said", "why"), [(0, "maybe", "not a valid label"), (10, "yes", "no label")]
)
def test_a_correction_that_is_no_label_is_refused(
    viewed: ViewedJob, finished: Finished, index: int, said: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        viewed.say(index, Remark(said))
    assert not (finished.folder / "out-review.csv").exists()


# Caps and limits of a run that is going on.


def test_only_what_was_changed_in_the_form_is_set() -> None:
    form = {
        "was.budget.usd": "1",
        "budget.usd": " 5 ",
        "was.limits.concurrency": "8",
        "limits.concurrency": "8",
    }
    assert pages.changed_settings(form) == ["budget.usd=5"]
    assert pages.changed_settings({"stop": "true", "request.model": "x"}) == ["stop=true"]
    assert pages.changed_settings({"was.limits.tokens_per_minute": "9", "limits.tokens_per_minute": ""}) == [
        "limits.tokens_per_minute=null"
    ]


def test_the_form_has_the_caps_that_are_given_and_the_limits(finished: Finished) -> None:
    settings = {each["key"]: each["value"] for each in pages.settings_of(finished.job)}
    assert settings == {
        "budget.usd": "1.0",
        "limits.concurrency": "8",
        "limits.requests_per_minute": "",
        "limits.tokens_per_minute": "",
    }


# What takes a while.


def test_a_value_is_made_again_only_when_its_stamp_is_another_one() -> None:
    made_so_far: list[int] = []

    def make() -> int:
        made_so_far.append(0)
        return len(made_so_far)

    kept = Kept(make)
    assert kept.refresh("a", running=False, patience=10) == 1
    assert kept.refresh("a", running=False, patience=10) == 1
    assert kept.refresh("b", running=False, patience=10) == 2


def test_beside_a_run_a_value_takes_a_small_share_of_the_time_unless_a_person_asks() -> None:
    now = [0.0]

    def make() -> float:
        now[0] += 2
        return now[0]

    kept = Kept(make, clock=lambda: now[0])
    assert kept.refresh("a", running=True, patience=10) == 2
    now[0] += 199
    assert kept.refresh("b", running=True, patience=10) == 2
    now[0] += 2
    assert kept.refresh("b", running=True, patience=10) == 205
    assert kept.refresh("c", running=True, patience=10) == 205
    kept.hurry()
    assert kept.refresh("c", running=True, patience=10) == 207
    assert kept.refresh("d", running=False, patience=10) == 209


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_batchrun_is_said_and_ends_the_waiting() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    kept = Kept(fail)
    assert kept.refresh("a", running=False, patience=10) is None
    assert "ZeroDivisionError" in str(kept.error)


def test_a_value_that_can_t_be_made_says_why_and_the_last_one_stays() -> None:
    faults = [UsageError("broken")]

    def make() -> int:
        if faults:
            raise faults[0]
        return milliseconds()

    kept = Kept(make)
    assert kept.refresh("a", running=False, patience=10) is None
    assert kept.error is faults.pop()
    assert kept.refresh("b", running=False, patience=10) is not None
    assert not kept.error
