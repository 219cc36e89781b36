"""What becomes of the values of a row, from the file to the request and back."""

import json

import pyarrow as pa
import pytest

from tests.acceptance.command import Place


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


CONVERSATIONS = [conversation("one"), conversation("one", "two", "three"), None, conversation("a", "b"), []]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_column_of_messages_is_sent_and_what_is_none_fails_its_row(place: Place, as_json: bool) -> None:
    """The third and fifth have nothing to send; the fourth is refused by the endpoint (422)."""
    cells = (
        [None if cell is None else json.dumps(cell) for cell in CONVERSATIONS] if as_json else CONVERSATIONS
    )
    place.parquet(pa.table({"chat": cells}))
    text = place.job_file.read_text().replace(
        'template = "Sentiment, one word: {{ text }}"', 'messages = "chat"'
    )
    place.job_file.write_text(text)
    assert place.run("input.path=in.parquet").code == 3
    assert place.column("status") == ["ok", "ok", "failed", "failed", "failed"]
    assert place.column("error_code") == [
        None,
        None,
        "invalid_messages",
        "invalid_history",
        "invalid_messages",
    ]
    assert place.column("attempts") == [1, 1, 0, 1, 0]
    assert place.requests == 3


def test_images_are_sent_and_billed_as_tokens_within_the_bound(place: Place) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    block = {"type": "text", "text": "What is it?"}
    place.parquet(pa.table({"chat": [json.dumps([{"role": "user", "content": [image, block]}])]}))
    text = place.job_file.read_text().replace(
        'template = "Sentiment, one word: {{ text }}"', 'messages = "chat"'
    )
    place.job_file.write_text(text)
    assert place.run("input.path=in.parquet", "budget.usd=1").code == 0
    assert place.column("input_tokens") == [place.bill()["input_tokens"]]
    assert place.bill()["input_tokens"] > 1600
    assert "overruns" not in place.command("plan", "job.toml").err
    assert place.summary()["overruns"] == 0


def test_parameters_by_row_are_sent_and_invalid_ones_fail_unsent(place: Place) -> None:
    place.parquet(
        pa.table(
            {
                "text": ["one", "two", "three", "four", "five"],
                "most": [3, None, 4, 0, 5],
                "which": [None, "abliterated-model-large", None, None, ""],
            }
        )
    )
    columns = ("request.columns.max_tokens=most", "request.columns.model=which")
    assert place.run("input.path=in.parquet", *columns, "request.max_tokens=6").code == 3
    assert place.column("output_tokens") == [3, 6, 4, 0, 0]
    assert place.column("response_model")[:3] == [
        "abliterated-model",
        "abliterated-model-large",
        "abliterated-model",
    ]
    assert place.column("status") == ["ok", "ok", "ok", "failed", "failed"]
    assert set(place.column("error_code")[3:]) == {"invalid_parameter"}
    assert "'most'" in place.column("error")[3]
    assert place.requests == 3


def test_a_row_without_max_tokens_is_not_sent_under_a_cap(place: Place) -> None:
    place.parquet(pa.table({"text": ["one", "two"], "most": [3, None]}))
    place.job_file.write_text(place.job_file.read_text().replace("max_tokens = 16\n", ""))
    settings = ("input.path=in.parquet", "request.columns.max_tokens=most", "budget.usd=1")
    assert place.run(*settings).code == 3
    assert place.column("status") == ["ok", "failed"]
    assert place.column("error_code")[1] == "no_max_tokens"
    assert place.requests == 1


def test_passed_on_fields_are_covered_by_the_worst_case(place: Place) -> None:
    place.texts("one")

    def worst(*settings: str) -> int:
        done = place.command("plan", "job.toml", "--json", *(part for s in settings for part in ("--set", s)))
        return int(done.summary["worst"]["tokens"])

    tools = json.dumps({"description": "t" * 3000}).replace(":", " =")
    assert worst(f"request.extra.tools=[{tools}]") >= worst() + 3000


def test_cells_of_a_csv_reach_the_request_as_they_are(place: Place) -> None:
    """Line breaks, quotes, emoji, template syntax and empty cells, through the plan's first request."""
    rows = [("schön 🙂", 'say "hi"\nbye'), ("{{ x }}", "\\"), ("", "b")]
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    for (first, second), line in zip(rows, lines, strict=True):
        (place.folder / "in.csv").write_text(f"review text,name\n{line}\n", encoding="utf-8")
        template = "prompt.template='<{{ row[\"review text\"] }}|{{ name }}>'"
        done = place.command("plan", "job.toml", "--json", "--set", template)
        assert done.summary["first_request"]["messages"][0]["content"] == f"<{first}|{second}>"


def test_a_template_that_fails_on_some_rows_fails_those_unsent(place: Place) -> None:
    place.parquet(pa.table({"text": ["one", None, "three"]}))
    done = place.run("input.path=in.parquet", 'prompt.template="{{ text | length }}"')
    assert done.code == 3
    assert place.column("status") == ["ok", "failed", "ok"]
    assert place.column("error_code")[1] == "template_error"
    assert place.requests == 2


def test_a_table_without_rows_is_said_to_have_none(place: Place) -> None:
    place.texts()
    done = place.run()
    assert (done.code, done.last_line) == (0, "The input has no rows, so nothing was sent.")
    assert place.rows() == []
