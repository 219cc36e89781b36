"""`batchrun report`: what the page says, that it is inert, and that it stays small."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import batchrun
from batchrun.errors import OutputError, UsageError
from batchrun.journal.timeline import Interval
from batchrun.runs.evaluate import compare_jobs
from batchrun.runs.report.answers_part import answers_blocks, evaluation_blocks
from batchrun.runs.report.blocks import Block
from batchrun.runs.report.charts import number, powers, ticks, time_scale
from batchrun.runs.report.comparison_part import comparison_blocks
from batchrun.runs.report.distribution import EDGES, Distribution
from batchrun.runs.report.facts import Facts, facts_of
from batchrun.runs.report.page import page
from batchrun.runs.report.reading_part import MOST_BYTES, excerpt, reading_parts, text_bytes
from batchrun.runs.report.run_part import run_blocks, runs_blocks, tiles
from batchrun.runs.report.timeline import MOST_INTERVALS, interval_width, timeline
from batchrun.runs.report.write import page_values, report_path, write_report
from batchrun.sandbox import Sandbox
from tests.looking.conftest import HOSTILE_ANSWER, ROWS, TABLES, WRONG, Finished, finish

INERT = {"script", "style"}


class Elements(HTMLParser):
    """The elements of a page: names with attributes, the texts of scripts and styles, all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {name: [] for name in INERT}
        self.text = ""
        self._open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag if tag in INERT else None

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.inside[self._open].append(data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def facts(finished: Finished) -> Facts:
    return facts_of(finished.job, sandbox=True, by="language")


@pytest.fixture(scope="module")
def html(facts: Facts) -> str:
    return page(page_values(facts))


def block(blocks: list[Block], title: str) -> Block:
    return next(found for found in blocks if found["title"] == title)


def texts(found: Block) -> list[list[str]]:
    return [[cell["text"] for cell in row] for row in found["rows"]]


def test_the_page_loads_nothing_and_runs_its_own_script_alone(html: str) -> None:
    elements = Elements(html)
    names = [name for name, _ in elements.found]
    assert (names.count("script"), names.count("style")) == (1, 1)
    assert not {"img", "link", "iframe", "object", "embed", "base", "form", "audio", "video"} & set(names)
    for name, attributes in elements.found:
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "style", "action")], (
            name
        )
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(
        attributes["content"] for _, attributes in elements.found if attributes.get("http-equiv") is not None
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for kind, directive in (("script", "script-src"), ("style", "style-src")):
        digest = sha256("".join(elements.inside[kind]).encode()).digest()
        assert f"{directive} 'sha256-{b64encode(digest).decode()}'" in policy


def test_hostile_texts_are_shown_and_are_no_markup(html: str) -> None:
    assert HOSTILE_ANSWER not in html
    shown = Elements(html).text
    assert HOSTILE_ANSWER in shown
    assert "<script>alert(1)</script>" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)


def test_rows_spend_and_score_are_those_of_the_summary(facts: Facts, finished: Finished) -> None:
    rows = finished.summary["rows"]
    counts = {row[0]: row[2] for row in texts(block(run_blocks(facts), "Rows by status"))}
    assert counts == {status: str(rows[status]) for status in ("ok", "invalid", "failed", "pending")}
    assert facts.timeline is not None
    assert facts.timeline.settled[-1] == pytest.approx(finished.summary["usd"]["settled"])
    assert facts.timeline.in_flight[-1] == 0
    answered = sum(facts.timeline.answered) * facts.timeline.width
    refused = finished.summary["requests"]["by_error"]["content_flagged"]
    assert round(answered) == finished.summary["requests"]["sent"] - refused
    assert f"{finished.summary['evaluation']['estimate']:.3f}" in [tile["value"] for tile in tiles(facts)]


def test_groups_have_the_cost_and_the_score_of_their_rows(facts: Facts, finished: Finished) -> None:
    output = pl.read_parquet(finished.folder / "out.parquet")
    cost = {row[0]: row[2] for row in texts(block(answers_blocks(facts), "Cost by language"))}
    score = {row[0]: row[2] for row in texts(block(evaluation_blocks(facts), "Score by language"))}
    for language in ("en", "de"):
        rows = output.filter(pl.col("language") == language)
        assert float(cost[language]) == pytest.approx(rows["cost_usd"].sum(), rel=0.01)
        mean = rows["score"].mean()
        assert isinstance(mean, float)
        assert score[language] == f"{mean:.3f}"


def test_labels_and_tokens_are_counted(facts: Facts, finished: Finished) -> None:
    output = pl.read_parquet(finished.folder / "out.parquet")
    labels = {row[0]: row[2] for row in texts(block(answers_blocks(facts), "Labels"))}
    assert labels == {"yes": "57", '""': "2"}
    tokens = block(answers_blocks(facts), "Input tokens of a row")
    assert sum(int(row[2]) for row in texts(tokens)) == output["latency_ms"].drop_nulls().len()


def test_a_cell_of_the_confusion_matrix_leads_to_one_of_its_rows(facts: Facts, html: str) -> None:
    confusion = block(evaluation_blocks(facts), "Confusion")
    cells = {row[0]["text"]: row[1:] for row in confusion["rows"]}
    wrong = cells["no"][[head["text"] for head in confusion["head"]].index("yes") - 1]
    assert wrong["text"] == str(len(WRONG) - 3)  # one has failed, two are invalid
    assert wrong["href"] == "#disagree-1"
    assert '<details class="row" id="disagree-1">' in html


def test_every_kind_of_row_to_read_is_there(facts: Facts) -> None:
    kinds = {part["kind"]: part for part in reading_parts(facts.read)}
    assert list(kinds) == ["failed", "invalid", "disagree", "expensive", "random"]
    (failed,) = kinds["failed"]["rows"]
    assert failed["attempts"][0][2] == "refused"
    assert [row["row"] for row in kinds["invalid"]["rows"]] == ["21", "31"]
    assert kinds["expensive"]["rows"][0]["row"] == "31"


def test_the_interval_narrows_to_the_estimate(facts: Facts, finished: Finished) -> None:
    assert facts.narrowing is not None
    widths = [point["high"] - point["low"] for point in facts.narrowing]
    assert widths[-1] < widths[0] / 2
    assert facts.narrowing[-1]["estimate"] == pytest.approx(finished.summary["evaluation"]["estimate"])
    assert [point["rows"] for point in facts.narrowing][-1] == ROWS


def test_without_an_evaluation_or_labels_the_page_has_fewer_parts(tmp_path: Path, sandbox: Sandbox) -> None:
    tables = dict.fromkeys(("labels", "evaluation"))
    plain = finish(tmp_path, sandbox, **tables)
    values = page_values(facts_of(plain.job, sandbox=True))
    assert [part["id"] for part in values["parts"]] == ["run", "answers", "runs"]
    assert "alert" in page(values)


def test_each_run_says_what_it_changed(tmp_path: Path, sandbox: Sandbox) -> None:
    finish(tmp_path, sandbox, budget={"rows": 5})
    prompt = {"template": "Again: {{ text }}"}
    again = finish(tmp_path, sandbox, prompt=prompt, budget={"rows": 8})
    values = page_values(facts_of(again.job, sandbox=True))
    runs = next(part for part in values["parts"] if part["id"] == "runs")["blocks"][0]
    first, second = texts(runs)
    assert (first[2], second[2]) == ("", "prompt.template, prompt.system")
    assert (first[4], second[4]) == ("5", "8")
    spend = next(found for found in values["parts"][0]["blocks"] if found["title"] == "Spend, USD")
    assert "pending rows would cost about" in spend["note"]


def test_a_report_during_a_first_run_without_an_answer_has_no_charts(facts: Facts) -> None:
    nothing = replace(facts, timeline=None, shown_run=None, runs=[], failures=[])
    titles = [found["title"] for found in run_blocks(nothing)]
    assert "Spend, USD" not in titles


def test_a_run_that_is_going_on_is_not_called_one_without_a_record(facts: Facts) -> None:
    open_run = msgspec.structs.replace(facts.runs[-1], finished_at=None, exit_code=None, reason=None)
    for running, word in ((True, "going on"), (False, "no record")):
        now = replace(facts, runs=[open_run], status=facts.status | {"running": running})
        assert texts(runs_blocks(now, [""])[0])[0].count(word) == 1


def test_two_jobs_are_compared_by_score_cost_and_latency(
    finished: Finished, other: Finished, tmp_path: Path
) -> None:
    done = finished.command(
        "report", "--against", str(other.folder / "job.toml"), "-o", str(tmp_path / "page.html")
    )
    assert done.exit_code == 0
    shown = Elements((tmp_path / "page.html").read_text()).text
    assert "A is better: its accuracy is" in shown
    assert "Differences, row by row" in shown
    assert shown.count("expected: ") == 30


def test_paired_differences_are_those_of_the_outputs(finished: Finished, other: Finished) -> None:
    comparison = compare_jobs(finished.job, other.job, sandbox=True)
    a, b = (pl.read_parquet(each.folder / "out.parquet") for each in (finished, other))
    seconds = (a["latency_ms"] - b["latency_ms"]).drop_nulls().mean()
    assert comparison["seconds_difference"][0] * 1000 == pytest.approx(seconds)
    assert comparison["usd_difference"][0] == pytest.approx((a["cost_usd"] - b["cost_usd"]).mean())
    rows = texts(block(comparison_blocks(comparison, ("a", "b")), "Differences, row by row"))
    assert [row[0] for row in rows] == ["accuracy", "USD a row", "latency, s"]
    nothing = comparison | {"difference": None, "seconds_difference": None}
    rows = texts(block(comparison_blocks(nothing, ("a", "b")), "Differences, row by row"))
    assert rows[0][3:] == rows[2][3:] == ["–", "–"]


def test_the_command_writes_beside_the_output_or_elsewhere(finished: Finished, tmp_path: Path) -> None:
    assert finished.command("report").exit_code == 0
    assert report_path(finished.job) == finished.folder / "out-report.html"
    assert "<!doctype html>" in (finished.folder / "out-report.html").read_text()
    elsewhere = tmp_path / "page.html"
    assert finished.command("report", "-o", str(elsewhere), "--by", "language").exit_code == 0
    assert "Cost by language" in elsewhere.read_text()
    assert finished.command("report", "-o", "page.txt").exit_code == 2


def test_a_wrong_column_or_a_path_that_would_lose_something_is_an_error(
    finished: Finished, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="Did you mean 'language'"):
        write_report(finished.job, tmp_path / "a.html", sandbox=True, by="langage")
    with pytest.raises(OutputError, match="which would be lost"):
        write_report(finished.job, finished.folder / "in.parquet", sandbox=True)
    with pytest.raises(OutputError, match=r"a\.html can't be written: No such file or directory"):
        write_report(finished.job, tmp_path / "missing" / "a.html", sandbox=True)


def test_a_job_can_have_its_report_at_the_end_of_every_run(tmp_path: Path) -> None:
    job = TABLES | {"output": {"path": str(tmp_path / "out.parquet"), "report": str(tmp_path / "page.html")}}
    reviews = pl.DataFrame({"text": ["one", "two"], "gold": ["yes", "no"]})
    job.pop("input")
    result = batchrun.run(job, input=reviews, sandbox=True)
    assert result.summary["report"] == str(tmp_path / "page.html")
    assert "of 2 rows ok" in (tmp_path / "page.html").read_text()


def test_a_report_that_cannot_be_written_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    output = {"path": str(tmp_path / "out.parquet"), "report": str(tmp_path / "missing" / "page.html")}
    job = {name: table for name, table in TABLES.items() if name != "input"} | {"output": output}
    with pytest.raises(OutputError, match=r"page\.html can't be written"):
        batchrun.run(job, input=pl.DataFrame({"text": ["one"], "gold": ["yes"]}), sandbox=True)
    assert not (tmp_path / "out.run").exists()


def test_a_result_writes_its_report_unless_its_journal_is_gone(tmp_path: Path) -> None:
    job = {name: table for name, table in TABLES.items() if name not in ("input", "output")}
    table = pl.DataFrame({"text": ["one", "two"], "gold": ["yes", "no"]})
    kept = batchrun.run(job, input=table, journal=tmp_path / "labels.run", sandbox=True)
    kept.report(tmp_path / "page.html", by="gold")
    assert "Cost by gold" in (tmp_path / "page.html").read_text()
    with pytest.raises(UsageError, match="the journal was temporary"):
        batchrun.run(job, input=table, sandbox=True).report(tmp_path / "other.html")


def row_of_size(number_: int, size: int) -> dict[str, Any]:
    return {
        **dict.fromkeys(("error_code", "label_error", "error", "agreement", "samples", "latency_ms"), None),
        "row": number_,
        "status": "ok",
        "shared": False,
        "score": None,
        "cost_usd": 1.0,
        "input_tokens": 1,
        "output_tokens": 1,
        "input": {f"c{cell}": "<" * size for cell in range(40)},
        "label": None,
        "prompt": [("user", "<&>" * size)],
        "answer": "é\"'" * size,
        "expected": None,
        "attempts": [],
    }


def test_the_page_stays_small_for_any_size_of_texts(facts: Facts) -> None:
    rows = [row_of_size(place, 100_000) for place in range(100)]
    size = len(page(page_values(replace(facts, read={"failed": rows}))).encode())
    assert size < 450_000


@pytest.mark.parametrize("most", [200, 1000])
def test_an_excerpt_fits_as_it_stands_in_the_page(most: int) -> None:
    for text in ("<" * 10_000, "é" * 10_000, "a" * 10_000, "\ud800" * 1000):
        kept = excerpt(text, most).partition("…")[0]
        assert 0 < len(page_text(kept)) <= most
    assert excerpt("short", most) == "short"
    assert excerpt("x" * 5000, most).endswith(f"… [{5000 - most:,} more characters]")


def page_text(text: str) -> bytes:
    return text.replace("<", "&lt;").encode(errors="replace")


def test_more_texts_have_less_room_each() -> None:
    assert text_bytes(10) > text_bytes(100) > text_bytes(10_000)
    assert 100 * text_bytes(100) <= MOST_BYTES


def test_a_timeline_sums_up_to_the_run_and_never_loses_an_attempt() -> None:
    ended = [
        Interval(0, "answered", False, 2, 3_000_000_000),
        Interval(1, "refused", True, 1, 0),
        Interval(2, "answered", False, 1, 1_000_000_000),
        Interval(900, "uncertain", False, 1, 5_000_000_000),  # booked by the next run, days later
    ]
    series = timeline(ended, {0: 3, 1: 1, 2: 1}, width=500, length=1_400, before=(10**9, 0))
    assert series.ends == [0.5, 1.0, 1.5]
    assert series.settled == [4.0, 4.0, 5.0]
    assert series.uncertain == [0.0, 0.0, 5.0]
    assert (series.answered, series.refused) == ([4.0, 0.0, 2.0], [0.0, 2.0, 0.0])
    assert series.in_flight == [1, 1, 0]


@pytest.mark.parametrize("length", [1, 999, 60_000, 3_600_000, 86_400_000, 10**10])
def test_intervals_are_bounded_in_number(length: int) -> None:
    assert -(-length // interval_width(length)) <= MOST_INTERVALS


def test_a_distribution_counts_exactly_and_knows_its_quantiles() -> None:
    values = [0.0, *(float(value) for value in range(1, 1001))]
    found = Distribution()
    for value in values:
        found.add(value)
    for low, high, count in found.bars():
        assert count == sum(low <= value < high for value in values)
    assert sum(count for *_, count in found.bars()) == len(values)
    assert found.quantile(0.5) == pytest.approx(500, rel=0.01)
    assert found.quantile(0.99) == pytest.approx(990, rel=0.01)
    assert Distribution().quantile(0.5) is None
    assert Distribution().bars() == []
    assert list(EDGES) == sorted(set(EDGES))


def test_ticks_are_round_and_within_the_axis() -> None:
    assert ticks(0, 1.05) == [0, 0.5, 1.0]
    assert ticks(0.58, 1.0) == [0.6, 0.7, 0.8, 0.9, 1.0]
    assert ticks(3, 3) == [3]
    assert powers(5, 150) == [5, 10, 20, 50, 100]
    assert powers(5, 90_000) == [10, 100, 1000, 10_000]


def test_numbers_and_times_for_people() -> None:
    assert [number(value) for value in (0, 1234567, 0.000012345, 12.5, 3.0)] == [
        "0",
        "1,234,567",
        "0.00001234",
        "12.5",
        "3",
    ]
    assert [time_scale(seconds)[0] for seconds in (10, 200, 20_000)] == ["seconds", "minutes", "hours"]
    assert time_scale(7200 * 2)[1](7200) == 2


def test_facts_are_plain_values(facts: Facts) -> None:
    values = page_values(facts)
    assert json.loads(json.dumps(values))["title"] == "out.parquet"


def test_a_job_without_runs_of_this_kind_has_no_report(finished: Finished) -> None:
    """A page of an earlier report stays."""
    earlier = finished.folder / "page.html"
    earlier.write_text("an earlier page")
    with pytest.raises(UsageError, match="runs with the sandbox; --sandbox shows them"):
        write_report(finished.job, earlier, sandbox=False)
    assert earlier.read_text() == "an earlier page"
