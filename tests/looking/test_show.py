"""`batchrun show`: the rows that were chosen, with all that is known of them."""

import json
import sqlite3
from typing import Any

import pytest

from batchrun.errors import UsageError
from batchrun.runs.reading import Lowest, cell_text
from tests.looking.conftest import HOSTILE_ANSWER, HOSTILE_PROMPT, ROWS, WRONG, Finished


def shown(finished: Finished, *options: str) -> list[dict[str, Any]]:
    done = finished.command("show", "--json", *options)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["row"] for row in rows]


def test_a_row_has_its_prompt_answer_label_cost_and_attempts(finished: Finished) -> None:
    (row,) = shown(finished, "--row", "6")
    assert row["prompt"] == [["system", "Yes or no?"], ["user", "text 5"]]
    assert (row["answer"], row["label"], row["expected"], row["score"]) == ("yes", "yes", "no", 0.0)
    assert row["input"] == {"id": "id-5", "gold": "no", "language": "de" if 5 % 4 == 0 else "en"}
    ((nano_usd,),) = journal(finished, "SELECT nano_usd FROM attempts JOIN responses USING (attempt) LIMIT 1")
    (attempt,) = row["attempts"]
    assert (attempt["outcome"], attempt["usd"]) == ("answered", nano_usd / 1e9)
    assert row["cost_usd"] == attempt["usd"]


def journal(finished: Finished, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(finished.folder / "out.run" / "journal.sqlite")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_failed_and_invalid_rows_have_their_reason(finished: Finished) -> None:
    (failed,) = shown(finished, "--failed")
    assert (failed["row"], failed["error_code"], failed["answer"]) == (11, "content_flagged", None)
    assert [made["outcome"] for made in failed["attempts"]] == ["refused"]
    (hostile,) = [row for row in shown(finished, "--invalid") if row["row"] == 21]
    assert (hostile["answer"], hostile["label"]) == (HOSTILE_ANSWER, None)
    assert hostile["label_error"]
    assert numbers(shown(finished, "--failed", "--invalid")) == [11, 21, 31]


def test_disagreements_are_the_rows_with_another_answer_than_expected(finished: Finished) -> None:
    expected = [row + 1 for row in WRONG if row != 10]
    assert numbers(shown(finished, "--disagree", "--limit", "100")) == expected


def test_where_compares_columns_of_the_input_and_of_the_output(finished: Finished) -> None:
    found = shown(finished, "--where", "language=de", "--where", "label=yes", "--limit", "100")
    assert numbers(found) == [row + 1 for row in range(0, ROWS, 4) if row != 20]
    assert numbers(shown(finished, "--where", "label=", "--limit", "100")) == [11, 21, 31]
    assert numbers(shown(finished, "--where", "shared=false", "--limit", "2")) == [1, 2]


def test_random_rows_are_the_same_each_time_and_in_the_input_s_order(finished: Finished) -> None:
    first = numbers(shown(finished, "--random", "7"))
    assert first == sorted(set(first)) == numbers(shown(finished, "--random", "7"))
    assert len(first) == 7
    assert first != numbers(shown(finished, "--limit", "7"))
    assert len(shown(finished, "--random", "500")) == ROWS


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--row", "61"), "The input has no row 61: it has 60 rows."),
        (
            ("--where", "lable=yes"),
            "the column 'lable', which the output doesn't have. Did you mean 'label'?",
        ),
    ],
)
def test_what_does_not_exist_is_an_error(finished: Finished, options: tuple[str, str], told: str) -> None:
    error = finished.command("show", *options).exception
    assert isinstance(error, UsageError)
    assert told in str(error)


def test_a_condition_without_an_equals_sign_is_an_error(finished: Finished) -> None:
    done = finished.command("show", "--where", "label")
    assert (done.exit_code, "write COLUMN=VALUE" in done.output) == (2, True)


def test_no_control_character_of_a_text_reaches_the_terminal(finished: Finished) -> None:
    printed = finished.command("show", "--row", "21").stdout
    assert HOSTILE_PROMPT.startswith("<script>alert(1)</script>")
    assert "<script>alert(1)</script>" in printed
    assert all(character.isprintable() or character == "\n" for character in printed)


def test_long_texts_are_cut_unless_a_row_is_named(finished: Finished) -> None:
    cut = finished.command("show", "--where", "id=id-30").stdout
    whole = finished.command("show", "--row", "31").stdout
    assert "... 1,000 more characters" in cut
    assert cut.count("very") == 200
    assert whole.count("very") == 400


def test_people_see_a_line_for_each_fact(finished: Finished) -> None:
    lines = finished.command("show", "--row", "11").stdout.splitlines()
    assert lines[0] == "row 11    failed (content_flagged), 0 USD"
    assert lines[1:4] == [
        "input     id=id-10, gold=no, language=en",
        "system    Yes or no?",
        "user      [sandbox:flag hate] ten",
    ]
    assert lines[4] == "label     expected no"
    assert lines[-1].startswith("attempts  1. ")
    assert "refused, content_flagged: " in lines[-1]


def test_lowest_keeps_the_first_of_equal_keys_and_makes_only_what_it_keeps() -> None:
    made: list[str] = []
    lowest = Lowest[str](2)
    for key, name in [(3, "a"), (1, "b"), (2, "c"), (2, "d"), (9, "e")]:
        lowest.add(key, lambda name=name: made.append(name) or name)  # type: ignore[misc,func-returns-value]
    assert lowest.items() == ["b", "c"]
    assert made == ["a", "b", "c"]


def test_cells_as_text() -> None:
    values = [None, True, b"ab", [1, "x"], {"a": None}, 1.5, "text"]
    assert list(map(cell_text, values)) == ["", "true", "2 bytes", '[1,"x"]', '{"a":null}', "1.5", "text"]
