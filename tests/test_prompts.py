"""From a row to its request: what templates make of values, what bounds a request, and what is no request."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.messages.images import IMAGE_TOKENS
from batchrun.client.request import Request, nth_occurrence
from batchrun.errors import JobError
from batchrun.job.caps import CAPS
from batchrun.job.file import make_job
from batchrun.sandbox.payload import parse_prompt
from tests.sandbox.conftest import png

MODEL = "abliterated-model"


def builder(
    names: tuple[str, ...],
    /,
    *,
    prompt: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    endpoint: str = "sandbox",
    **request: Any,
) -> RequestBuilder:
    tables: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": prompt or {"template": "{{ x }}"},
        "request": {"model": MODEL, "max_tokens": 5, **request},
        "budget": budget or {},
        "output": {"path": "out.parquet"},
    }
    if tables["request"]["max_tokens"] is None:
        del tables["request"]["max_tokens"]
    return RequestBuilder(make_job(tables, Path("/"), sandbox=True), names, endpoint)


def built(row: Mapping[str, Any], **settings: Any) -> Request | InvalidRow:
    requests = builder(tuple(row), **settings)
    return requests.build({name: row[name] for name in requests.columns})


def request(row: Mapping[str, Any], **settings: Any) -> Request:
    made = built(row, **settings)
    assert isinstance(made, Request), made
    return made


def invalid(row: Mapping[str, Any], **settings: Any) -> InvalidRow:
    made = built(row, **settings)
    assert isinstance(made, InvalidRow), made
    return made


def body(row: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(request(row, **settings).body)
    return decoded


def text(template: str, **row: Any) -> str:
    """The user message that a template makes of a row."""
    return str(body(row, prompt={"template": template})["messages"][0]["content"])


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("<{{ x }}>", None, "<>"),
        ("<{{ x or 'none' }}>", None, "<none>"),
        ("{% if x is none %}null{% endif %}", None, "null"),
        ("<{{ x }}>", "", "<>"),
        ("{{ x }}", 'a < b & "c"', 'a < b & "c"'),
        ("{{ x }}", "{{ y }} {% raw %}", "{{ y }} {% raw %}"),
        ("{{ x }}\n", "a", "a\n"),
        ("{{ x }}", 2**63 - 1, "9223372036854775807"),
        ("{{ x }}", 0.1, "0.1"),
        ("{{ x }}", True, "True"),
        ("{{ x }}", Decimal("1.25"), "1.25"),
        ("{{ x > 1 and x * 2 < 3 }}", Decimal("1.25"), "True"),
        ("{{ '%.2f' | format(x) }}", Decimal("1.50"), "1.50"),
        ("{{ x }}", Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        ("{{ x }}", date(2024, 2, 29), "2024-02-29"),
        ("{{ x.year }}/{{ x.strftime('%d %B') }}", date(2024, 2, 29), "2024/29 February"),
        ("{{ x }}", datetime(2024, 2, 29, 12, 30, tzinfo=UTC), "2024-02-29 12:30:00+00:00"),
        ("{{ x }}", ["a", None, Decimal("1.10"), date(2024, 2, 29)], '["a",null,1.10,"2024-02-29"]'),
        ("{{ x }}", {"a": None, "b": ["ü"]}, '{"a":null,"b":["ü"]}'),
        ("{{ x.a }}|{{ x.b[0] }}", {"a": None, "b": ["ü"]}, "|ü"),
        ("{% for y in x %}{{ loop.index }}{{ y }} {% endfor %}", ["a", None], "1a 2 "),
        ("{{ row }}", 1, '{"x":1}'),
    ],
)
def test_values_in_a_template(template: str, value: Any, expected: str) -> None:
    assert text(template, x=value) == expected


@pytest.mark.parametrize("name", ["name", "row", "source", "template_name", "range", "dict", "loop", "debug"])
def test_columns_may_have_names_that_mean_something_to_the_machinery(name: str) -> None:
    assert text(f"{{{{ {name} }}}}", **{name: "value"}) == "value"


@pytest.mark.parametrize("name", ["self", "review text", "1st", "ünïcode!", "{{", "a'b"])
def test_every_column_is_there_as_an_item_of_row(name: str) -> None:
    row = {name: "value", "other": "x"}
    template = f"{{{{ row[{json.dumps(name)}] }}}}"
    assert body(row, prompt={"template": template})["messages"][0]["content"] == "value"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ({"template": "{{ y }}"}, "prompt.template names the column 'y'"),
        ({"template": "{{ x }}", "system": "{{ y }}"}, "prompt.system names the column 'y'"),
        ({"messages": "y"}, "names the column 'y'"),
        ({"template": "{{ x }}", "image": "y"}, "names the column 'y'"),
        ({"template": "a\n{{ x"}, "prompt.template, line 2"),
    ],
)
def test_a_template_that_can_t_work_is_an_error_of_the_job(prompt: Mapping[str, Any], named: str) -> None:
    with pytest.raises(JobError, match=named):
        builder(("x",), prompt=prompt)


@pytest.mark.parametrize(
    ("template", "row", "named"),
    [
        ("{{ row['nope'] }}", {"x": 1}, "line 1: `row['nope']` is undefined"),
        ("a\n{{ x.nope }}", {"x": {"a": 1}}, "line 2: `x.nope` is undefined"),
        ("{{ x | length }}", {"x": None}, "line 1: cannot calculate length"),
        ("{% include 'other' %}", {"x": 1}, "other"),
        ("{{ x | nofilter }}", {"x": 1}, "nofilter"),
        ("{{ x.__class__ }}", {"x": "a"}, "`x.__class__` is undefined"),
    ],
)
def test_a_template_that_fails_on_a_row_names_line_and_cause(
    template: str, row: Mapping[str, Any], named: str
) -> None:
    failed = invalid(row, prompt={"template": template})
    assert failed.code == "template_error"
    assert named in failed.message


@pytest.mark.parametrize("value", ["", " \n\t", None])
def test_a_prompt_of_nothing_is_not_sent(value: str | None) -> None:
    assert invalid({"x": value}).code == "empty_prompt"


def test_a_system_prompt_of_nothing_is_left_out() -> None:
    prompt = {"template": "{{ x }}", "system": "{{ s }}"}
    assert "system" not in body({"x": "a", "s": None}, prompt=prompt)
    assert body({"x": "a", "s": "be brief"}, prompt=prompt)["system"] == "be brief"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]),
        ('[{"role": "user", "content": "a"}]', [{"role": "user", "content": "a"}]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a", "source": None}], "name": None}],
            [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
    ],
)
def test_messages_come_as_structs_or_as_json(cell: Any, expected: Any) -> None:
    assert body({"x": cell}, prompt={"messages": "x"})["messages"] == expected


@pytest.mark.parametrize(
    "cell",
    [
        *(None, "", "no JSON", "[]", [], "{}", 5, [None], [{"role": "system", "content": "a"}]),
        *([{"role": "user"}], [{"role": "user", "content": " "}], [{"role": "user", "content": []}]),
        *([{"role": "user", "content": 5}], [{"role": ["user"], "content": "a"}]),
        [{"role": "user", "content": ["text"]}],
        [{"role": "user", "content": [{"text": "a"}]}],
        [{"role": "user", "content": [{"type": "text", "text": " "}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
    ],
)
def test_messages_that_are_none_fail_their_row(cell: Any) -> None:
    assert invalid({"x": cell}, prompt={"messages": "x"}).code == "invalid_messages"


def test_a_system_turn_is_sent_to_its_key() -> None:
    """As files for OpenAI's API begin with one."""
    cell = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    message = invalid({"x": cell}, prompt={"messages": "x"}).message
    assert message.startswith(
        "messages.0: role must be user or assistant. A system prompt belongs in prompt.system"
    )


def test_a_null_cell_leaves_the_job_s_parameter() -> None:
    columns = {"temperature": "t", "max_tokens": "m"}
    row = {"x": "a", "t": None, "m": 7}
    sent = body(row, columns=columns, temperature=0.5)
    assert (sent["temperature"], sent["max_tokens"]) == (0.5, 7)
    assert request(row, columns=columns).output_bound == 7


def test_a_row_without_max_tokens_is_not_sent_under_a_cap() -> None:
    """There is no worst case to reserve for it."""
    settings: dict[str, Any] = {"columns": {"max_tokens": "m"}, "max_tokens": None}
    row = {"x": "a", "m": None}
    assert request(row, **settings).output_bound is None
    for cap in CAPS:
        if cap.needs_worst_case:
            assert (
                invalid(row, budget={cap.key: "a" if cap.key == "pool" else 1}, **settings).code
                == "no_max_tokens"
            )
        else:
            assert request(row, budget={cap.key: 1}, **settings).output_bound is None
    assert request({"x": "a", "m": 3}, budget={"usd": 1}, **settings).output_bound == 3


def test_what_is_passed_on_in_extra_counts_for_the_bound() -> None:
    plain = request({"x": "a"}).input_bound
    tools = [{"name": "tool", "description": "t" * 5000}]
    assert request({"x": "a"}, extra={"tools": tools}).input_bound >= plain + 5000
    by_row = {"x": "a", "t": tools}
    made = request(by_row, extra={"tools": []}, columns={"tools": "t"})
    assert json.loads(made.body)["tools"] == tools
    assert made.input_bound >= plain + 5000


@pytest.mark.parametrize("value", ["a", "ü" * 100, "1 2 3 " * 50, '\n\t\\"', "🙂" * 50, "a" * 1000])
@pytest.mark.parametrize("system", ["be brief", "ß" * 50])
def test_the_bound_covers_what_the_sandbox_counts(value: str, system: str) -> None:
    made = request({"x": value}, prompt={"template": "One word: {{ x }}", "system": system})
    assert parse_prompt(made.body, [MODEL]).input_tokens <= made.input_bound


def image(source: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "image", "source": source}


def user(*blocks: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def test_an_image_is_bounded_by_its_size_in_tokens_and_not_by_its_bytes() -> None:
    by_url = image({"type": "url", "url": "https://example.com/" + "a" * 50_000})
    large = png(8, 8) + bytes(50_000)
    by_data = image({"type": "base64", "media_type": "image/png", "data": b64encode(large).decode()})
    for block in (by_url, by_data):
        made = request({"x": user(block)}, prompt={"messages": "x"})
        assert parse_prompt(made.body, [MODEL]).input_tokens <= made.input_bound < 10_000


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (640, 480), (1092, 1092), (8000, 8000), (1, 20_000)])
def test_the_bound_covers_what_the_sandbox_meters_for_an_image_of_any_size(size: tuple[int, int]) -> None:
    """From a column of images, several in a cell, and as a block of a messages column."""
    data = png(*size)
    block = image({"type": "base64", "media_type": "image/png", "data": b64encode(data).decode()})
    for row, prompt in (
        ({"x": data}, {"template": "What?", "image": "x"}),
        ({"x": [data, data, "https://example.com/a.png"]}, {"template": "What?", "image": "x"}),
        ({"x": user(block, block)}, {"messages": "x"}),
    ):
        made = request(row, prompt=prompt)
        assert parse_prompt(made.body, [MODEL]).input_tokens <= made.input_bound


def test_an_image_inside_a_tool_s_result_counts_as_an_image() -> None:
    """Its URL is short, its tokens are not."""
    inner = image({"type": "url", "url": "https://a.de"})
    result = {"type": "tool_result", "tool_use_id": "t", "content": [inner, {"type": "text", "text": "a"}]}
    assert request({"x": user(result)}, prompt={"messages": "x"}).input_bound > IMAGE_TOKENS


@pytest.mark.parametrize(
    "source", [{"type": "url", "url": "https://a.de/a.pdf"}, {"type": "base64", "data": "JVBERi0="}]
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_nothing_bounds_is_not_sent_under_a_cap(source: dict[str, str], inside: bool) -> None:
    """A PDF has a price by page: neither its URL nor its bytes say how many."""
    block: dict[str, Any] = {"type": "document", "source": source}
    block = {"type": "tool_result", "content": [block]} if inside else block
    row = {"x": user(block)}
    assert request(row, prompt={"messages": "x"})
    assert invalid(row, prompt={"messages": "x"}, budget={"usd": 1}).code == "no_worst_case"


def test_a_file_of_text_is_bounded_by_its_bytes() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "a" * 5_000}
    row = {"x": user({"type": "document", "source": source})}
    assert request(row, prompt={"messages": "x"}, budget={"usd": 1}).input_bound > 5_000


def test_images_come_before_the_text_and_a_null_cell_leaves_plain_text() -> None:
    prompt = {"template": "What?", "image": "x"}
    blocks = body({"x": ["https://a.de/1.png", png(1, 1)]}, prompt=prompt)["messages"][0]["content"]
    assert [block["type"] for block in blocks] == ["image", "image", "text"]
    nothing: tuple[Any, ...] = (None, "", [])
    for cell in nothing:
        assert body({"x": cell}, prompt=prompt)["messages"] == [{"role": "user", "content": "What?"}]


def test_an_image_that_is_none_fails_its_row_by_column() -> None:
    failed = invalid({"x": b"BM"}, prompt={"template": "What?", "image": "x"})
    assert failed.code == "invalid_image"
    assert failed.message == "Column 'x': The data is not a PNG, JPEG, GIF or WebP image."


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (
            {"type": "base64", "media_type": "image/jpeg", "data": b64encode(png(1, 1)).decode()},
            "is image/png",
        ),
        ({"type": "base64", "media_type": "image/png", "data": "%%%"}, "not valid base64"),
        ({"type": "base64", "media_type": "image/png", "data": ""}, "not a PNG, JPEG, GIF or WebP"),
        ({"type": "base64", "data": b64encode(png(1, 1)).decode()}, "needs a source"),
        ({"type": "url", "url": "file:///etc/passwd"}, "needs a source"),
        (None, "needs a source"),
    ],
)
def test_an_image_block_without_a_right_source_fails_its_row_by_place(source: Any, named: str) -> None:
    cell = user({"type": "text", "text": "a"}, {"type": "image", "source": source})
    failed = invalid({"x": cell}, prompt={"messages": "x"})
    assert failed.code == "invalid_image"
    assert failed.message.startswith("messages.0.content.1: ")
    assert named in failed.message


def test_binary_data_of_an_image_block_is_sent_as_base64() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": png(1, 1), "url": None}
    (sent,) = body({"x": user(image(source))}, prompt={"messages": "x"})["messages"][0]["content"]
    assert sent == image({"type": "base64", "media_type": "image/png", "data": b64encode(png(1, 1)).decode()})


def test_the_blocks_of_a_system_prompt_are_templates_and_empty_ones_are_left_out() -> None:
    cached = {"type": "text", "text": "Speak {{ x }}.", "cache_control": {"type": "ephemeral"}}
    prompt = {"template": "a", "system": [cached, {"type": "text", "text": "{{ y }}"}]}
    assert body({"x": "French", "y": None}, prompt=prompt)["system"] == [cached | {"text": "Speak French."}]
    made = request({"x": "ü" * 100, "y": "b"}, prompt=prompt)
    assert parse_prompt(made.body, [MODEL]).input_tokens <= made.input_bound
    only = {"template": "a", "system": [{"type": "text", "text": "{{ y }}"}]}
    assert "system" not in body({"y": None}, prompt=only)


def test_a_block_of_a_system_prompt_that_can_t_work_is_named() -> None:
    system = [{"type": "text", "text": "a"}, {"type": "text", "text": "{{ nope }}"}]
    with pytest.raises(JobError, match=r"prompt\.system\[1\]\.text names the column 'nope'"):
        builder(("x",), prompt={"template": "{{ x }}", "system": system})


def test_the_identity_is_the_content_and_the_server() -> None:
    same = [
        request({"x": "a"}),
        request({"x": "a", "other": 5}),
        request({"y": "a"}, prompt={"template": "{{ y }}"}),
        request({"x": "a"}, max_tokens=6),
    ]
    assert len({made.digest for made in same}) == 1
    others = [
        request({"x": "b"}),
        request({"x": "a"}, temperature=0.0),
        request({"x": "a"}, endpoint="https://other.example"),
        request({"x": "a"}, extra={"top_p": 0.5}),
        request({"x": "a"}, prompt={"template": "{{ x }}", "system": "s"}),
    ]
    assert len({made.digest for made in (same[0], *others)}) == 1 + len(others)


def test_the_order_of_extra_fields_in_the_job_is_no_part_of_the_identity() -> None:
    one = request({"x": "a"}, extra={"top_p": 0.5, "top_k": 3})
    other = request({"x": "a"}, extra={"top_k": 3, "top_p": 0.5})
    assert one.digest == other.digest


def test_separate_occurrences_have_identities_of_their_own() -> None:
    made = request({"x": "a"})
    digests = {nth_occurrence(made, occurrence).digest for occurrence in (1, 2, 3)}
    assert len(digests) == 3
    assert nth_occurrence(made, 1) == made
    assert nth_occurrence(made, 2).body == made.body


def test_only_the_columns_that_are_used_are_read() -> None:
    made = builder(("a", "b", "c"), prompt={"template": "{{ c }}", "system": "{{ a }}"})
    assert made.columns == ("a", "c")
    assert builder(("a", "b"), prompt={"template": "{{ row['b'] }}"}).columns == ("a", "b")
