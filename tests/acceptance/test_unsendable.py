"""Rows that can't be rendered are told before anything is paid for, and wherever the run is looked at."""

import pytest

from batchrun.client.builder import InvalidRow
from batchrun.rows.unsendable import MOST_REASONS, UnsendableRows
from tests.acceptance.command import Place

LINE = "2 of 3 rows: template_error, prompt.template, line 1: "
FAILING = "prompt.template='A {{ [text][text | length - 1] }}'"


@pytest.fixture
def half_bad(place: Place) -> Place:
    place.texts("a", "long", "longer")
    return place


def test_the_start_of_a_run_says_which_rows_cannot_be_sent(half_bad: Place) -> None:
    done = half_bad.run(FAILING)
    told = next(line for line in done.err.splitlines() if LINE in line)
    assert told.startswith("batchrun: ")
    assert told.endswith("first in row 2")
    assert done.err.index(LINE) < done.err.index("this run ")


def test_the_end_of_a_run_and_the_status_say_it_and_do_not_advise_a_retry(half_bad: Place) -> None:
    done = half_bad.run(FAILING)
    assert done.code == 3
    assert "unsent    2 template_error: prompt.template, line 1" in done.err
    assert "2 rows can't be sent before the template or the input is fixed" in done.last_line
    assert "--retry-failed" not in done.last_line
    reason = half_bad.summary()["reasons"]["template_error"]
    assert (reason["rows"], reason["example"], reason["unsendable"]) == (2, 2, 2)
    assert "unsent    2 template_error: prompt.template, line 1" in half_bad.command("status", "job.toml").out


def test_a_quiet_run_speaks_only_where_somebody_has_to_act(half_bad: Place) -> None:
    """Its end names the rows that can't be sent; a note about the input is not worth a mail every night."""
    quiet = half_bad.command("run", "job.toml", "-q", "--set", FAILING)
    assert LINE not in quiet.err
    assert "unsent    2 template_error" in quiet.err
    fresh = ("--set", "output.path=other.parquet")
    same = half_bad.command("run", "job.toml", "-q", "--set", "prompt.template='Say {text}'", *fresh)
    assert (same.code, same.err) == (0, "")


def test_a_plan_says_that_they_cannot_be_sent_and_does_not_call_them_invalid(half_bad: Place) -> None:
    (rows,) = [
        line
        for line in half_bad.command("plan", "job.toml", "--set", FAILING).out.splitlines()
        if line.startswith("rows ")
    ]
    assert "2 can't be sent, 1 to send" in rows
    assert "invalid" not in rows


def test_a_prompt_without_a_column_is_a_warning_of_the_run(half_bad: Place) -> None:
    assert "the prompt uses no column" in half_bad.run("prompt.template='Say {text}'").err


def test_reasons_that_differ_by_row_take_few_lines() -> None:
    """As a column of texts has that is named for a number."""
    rows = UnsendableRows()
    rows.add(InvalidRow("invalid_parameter", f"not {row}") for row in range(100))
    rows.add([InvalidRow("empty_prompt", "empty")])
    assert len(rows.lines()) == MOST_REASONS + 2
    assert rows.lines()[0] == "96 of 101 rows: invalid_parameter, for other reasons, first in row 5"
