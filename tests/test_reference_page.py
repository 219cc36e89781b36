"""Every row of the API's reference page: from the job file or a column, over the wire, into the output.

A proxy before the sandbox keeps what is really sent and answered.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.client.server import Server
from batchrun.errors import JobError
from batchrun.job.file import load_job
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.recording import Exchange, Recording, recording
from tests.sandbox.conftest import png

PAGE_PARAMETERS = {"model", "messages", "max_tokens", "temperature", "stream", "system", "flagged_categories"}
KEY = "sk-of-the-reference-page"
JOB = """\
[input]
path = "in.parquet"

[request]
model = "abliterated-model"
max_tokens = 64

[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0

[output]
path = "out.parquet"
accept = ["truncated"]
order = "input"
"""
ASK = 'prompt.template="{{ text }}"'
PICTURE = png(30, 20)
ENCODED = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE).decode()}
URL = "https://example.com/a.png"
CONVERSATION = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": [{"type": "text", "text": "Three?"}]},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    replies = tmp_path_factory.mktemp("replies") / "replies.toml"
    replies.write_text('[[reply]]\npattern = "count"\ntext = "one two three four five"\n')
    with background(Settings(credits=1000, replies=replies)) as sandbox, recording(sandbox.base_url) as proxy:
        yield proxy


def asked(
    folder: Path, server: Recording, *settings: str, **row: Any
) -> tuple[list[Exchange], dict[str, Any]]:
    """Runs a job for a table of one row: what went over the wire, and the row of the output."""
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), folder / "in.parquet")
    (folder / "job.toml").write_text(JOB)
    before = len(server.exchanges)
    job = load_job(folder / "job.toml", [f"endpoint.base_url={server.base_url}", *settings])
    run_job(job, Server(server.base_url, None if job.request.free_tier else KEY))
    (written,) = pq.read_table(folder / "out.parquet").to_pylist()
    return server.exchanges[before:], written


def user(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is it?"}]}]


def text(content: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


SENT: list[tuple[str, tuple[str, ...], dict[str, Any], Any]] = [
    ("model", (ASK, "request.model=abliterated-model-large"), {}, "abliterated-model-large"),
    (
        "model",
        (ASK, "request.columns.model=m"),
        {"m": "abliterated-model-large-v2"},
        "abliterated-model-large-v2",
    ),
    ("messages", ('prompt.template="Say: {{ text }}"',), {"text": "ü 🙂"}, text("Say: ü 🙂")),
    (
        "messages",
        ("prompt.messages=m",),
        {"m": CONVERSATION[:2] + text("Three?")},
        CONVERSATION[:2] + text("Three?"),
    ),
    ("messages", ("prompt.messages=m",), {"m": json.dumps(CONVERSATION)}, CONVERSATION),
    (
        "messages",
        ("prompt.messages=m",),
        {"m": json.dumps(user({"type": "image", "source": ENCODED}))},
        user({"type": "image", "source": ENCODED}),
    ),
    ("messages", (ASK, "prompt.image=i"), {"i": PICTURE}, user({"type": "image", "source": ENCODED})),
    (
        "messages",
        (ASK, "prompt.image=i"),
        {"i": "pictures/a.jpg"},
        user({"type": "image", "source": ENCODED}),
    ),
    (
        "messages",
        (ASK, "prompt.image=i"),
        {"i": URL},
        user({"type": "image", "source": {"type": "url", "url": URL}}),
    ),
    ("messages", (ASK, "prompt.image=i"), {"i": None}, text("What is it?")),
    ("max_tokens", (ASK, "request.max_tokens=1"), {}, 1),
    ("max_tokens", (ASK, "request.columns.max_tokens=n"), {"n": 7}, 7),
    ("max_tokens", (ASK, "request.columns.max_tokens=n"), {"n": None}, 64),
    ("temperature", (ASK,), {}, None),
    ("temperature", (ASK, "request.temperature=0"), {}, 0),
    ("temperature", (ASK, "request.temperature=2"), {}, 2),
    ("temperature", (ASK, "request.columns.temperature=t"), {"t": 0.25}, 0.25),
    ("stream", (ASK,), {}, None),
    ("stream", (ASK, "request.stream=false"), {}, None),
    ("stream", (ASK, "request.stream=true"), {}, True),
    ("system", (ASK,), {}, None),
    ("system", (ASK, 'prompt.system="Be brief: {{ s }}"'), {"s": "yes"}, "Be brief: yes"),
    (
        "system",
        (ASK, 'prompt.system=[{type = "text", text = "A {{ s }}"}, {type = "text", text = "{{ n }}"}]'),
        {"s": "b", "n": None},
        [{"type": "text", "text": "A b"}],
    ),
    ("flagged_categories", (ASK,), {}, None),
    ("flagged_categories", (ASK, 'request.flagged_categories=["hate", "illicit"]'), {}, ["hate", "illicit"]),
    ("flagged_categories", (ASK, "request.columns.flagged_categories=f"), {"f": ["sexual"]}, ["sexual"]),
    (
        "flagged_categories",
        (ASK, "request.columns.flagged_categories=f"),
        {"f": "hate, sexual"},
        ["hate", "sexual"],
    ),
    ("stop_sequences", (ASK, 'request.extra.stop_sequences=["."]'), {}, ["."]),
]


@pytest.mark.parametrize(
    ("parameter", "settings", "row", "value"), SENT, ids=[f"{sent[0]}-{n}" for n, sent in enumerate(SENT)]
)
def test_a_parameter_arrives_as_the_job_and_the_row_say(
    tmp_path: Path,
    server: Recording,
    parameter: str,
    settings: tuple[str, ...],
    row: dict[str, Any],
    value: Any,
) -> None:
    """Exactly this value stands in the body, and the sandbox, which checks it too, answers."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(PICTURE)  # a PNG, whatever it is called
    (exchange,), written = asked(tmp_path, server, *settings, **{"text": "What is it?", **row})
    assert exchange.path == "/v1/messages"
    assert exchange.request.get(parameter) == value
    assert (parameter in exchange.request) == (value is not None)
    assert (exchange.status, written["status"]) == (200, "ok")
    assert written["output"] == exchange.message["content"][0]["text"]


def test_every_parameter_of_the_page_is_tried() -> None:
    """Each with a value and, where the page doesn't require it, without one."""
    values = {name: [sent[3] for sent in SENT if sent[0] == name] for name in PAGE_PARAMETERS}
    for name, tried in values.items():
        assert any(value is not None for value in tried), name
        assert None in tried or name in {"model", "messages", "max_tokens"}, name


def test_nothing_is_sent_that_was_not_asked_for(tmp_path: Path, server: Recording) -> None:
    (exchange,), _ = asked(tmp_path, server, ASK, text="What is it?")
    assert set(exchange.request) == {"model", "messages", "max_tokens"}


def test_max_tokens_may_be_left_out_where_no_cap_needs_it(tmp_path: Path, server: Recording) -> None:
    row = {"text": "What is it?", "n": None}
    without = JOB.replace("max_tokens = 64\n", "")
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), tmp_path / "in.parquet")
    (tmp_path / "job.toml").write_text(without)
    before = len(server.exchanges)
    job = load_job(tmp_path / "job.toml", [f"endpoint.base_url={server.base_url}", ASK])
    assert run_job(job, Server(server.base_url, KEY))["exit_code"] == 0
    assert "max_tokens" not in server.exchanges[before].request


def test_the_key_goes_as_a_bearer_token_and_the_body_as_json(tmp_path: Path, server: Recording) -> None:
    (exchange,), _ = asked(tmp_path, server, ASK, text="What is it?")
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.headers["content-type"] == "application/json"
    assert "x-free-tier" not in exchange.headers


def test_the_free_request_has_its_header_and_no_key(tmp_path: Path, server: Recording) -> None:
    (exchange,), written = asked(tmp_path, server, ASK, "request.free_tier=true", text="What is it?")
    assert exchange.headers["x-free-tier"] == "true"
    assert {"authorization", "x-api-key"}.isdisjoint(exchange.headers)
    assert (exchange.status, written["status"]) == (200, "ok")


def test_a_category_of_the_job_blocks_a_row(tmp_path: Path, server: Recording) -> None:
    """The same text passes without the category: the parameter has its effect."""
    row = {"text": "[sandbox:flag hate]"}
    _, passed = asked(tmp_path, server, ASK, **row)
    (exchange,), blocked = asked(tmp_path, server, ASK, 'request.flagged_categories=["hate"]', **row)
    assert passed["status"] == "ok"
    assert exchange.status == 400
    assert (blocked["status"], blocked["error_code"]) == ("failed", "content_flagged")


@pytest.mark.parametrize(
    "setting",
    [
        *("request.model=", "request.max_tokens=0", "request.max_tokens=1.5"),
        *("request.temperature=-0.01", "request.temperature=2.01", "request.temperature=warm"),
        *("request.stream=yes", 'request.flagged_categories=["violence"]', "prompt.messages=m"),
        *(
            "prompt.system=[]",
            'prompt.system=[{type = "image"}]',
            'prompt.system=[{type = "text", text = ""}]',
        ),
        *("prompt.image=", "prompt.image=nowhere", "request.extra.model=m"),
    ],
)
def test_a_wrong_value_in_the_job_stops_it_before_anything_is_sent(
    tmp_path: Path, server: Recording, setting: str
) -> None:
    before = len(server.exchanges)
    with pytest.raises(JobError):
        asked(tmp_path, server, ASK, setting, text="What is it?")
    assert server.exchanges[before:] == []


@pytest.mark.parametrize(
    ("settings", "cell", "code"),
    [
        ((ASK, "request.columns.model=c"), "", "invalid_parameter"),
        ((ASK, "request.columns.max_tokens=c"), 0, "invalid_parameter"),
        ((ASK, "request.columns.temperature=c"), -0.01, "invalid_parameter"),
        ((ASK, "request.columns.temperature=c"), 2.01, "invalid_parameter"),
        ((ASK, "request.columns.flagged_categories=c"), ["violence"], "invalid_parameter"),
        (("prompt.messages=c",), "[]", "invalid_messages"),
        (("prompt.messages=c",), '[{"role": "system", "content": "a"}]', "invalid_messages"),
        (("prompt.messages=c",), '[{"role": "user", "content": ""}]', "invalid_messages"),
        (("prompt.messages=c",), '[{"role": "user", "content": [{"type": "text"}]}]', "invalid_messages"),
        (("prompt.messages=c",), '[{"role": "user", "content": [{"type": "image"}]}]', "invalid_image"),
        (('prompt.template="{{ c }}"',), " ", "empty_prompt"),
        ((ASK, "prompt.image=c"), b"no image", "invalid_image"),
        ((ASK, "prompt.image=c"), "missing.png", "unreadable_image"),
        ((ASK, "prompt.image=c"), "s3://bucket/a.png", "invalid_image"),
    ],
)
def test_a_wrong_value_in_a_cell_fails_its_row_unsent(
    tmp_path: Path, server: Recording, settings: tuple[str, ...], cell: Any, code: str
) -> None:
    exchanges, written = asked(tmp_path, server, *settings, text="What is it?", c=cell)
    assert exchanges == []
    assert (written["status"], written["error_code"], written["attempts"]) == ("failed", code, 0)


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize(
    ("settings", "row", "stop"),
    [
        ((), "count", ("end_turn", None)),
        (("request.max_tokens=2",), "count", ("max_tokens", None)),
        (('request.extra.stop_sequences=["four"]',), "count", ("stop_sequence", "four")),
    ],
    ids=["end_turn", "max_tokens", "stop_sequence"],
)
def test_every_field_of_the_answer_reaches_the_output(
    tmp_path: Path,
    server: Recording,
    stream: str,
    settings: tuple[str, ...],
    row: str,
    stop: tuple[str, str | None],
) -> None:
    """What the answer says and what the row says are the same, plain and streamed."""
    (exchange,), written = asked(tmp_path, server, ASK, f"request.stream={stream}", *settings, text=row)
    message = exchange.message
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert exchange.answer.startswith(b"event:") == (stream == "true")
    assert written["response_id"] == message["id"]
    assert written["response_model"] == message["model"]
    assert written["output"] == message["content"][0]["text"]
    assert (message["stop_reason"], message["stop_sequence"]) == stop
    assert (written["stop_reason"], written["stop_sequence"]) == stop
    assert written["input_tokens"] == message["usage"]["input_tokens"]
    assert written["output_tokens"] == message["usage"]["output_tokens"]
    assert written["remaining_credits"] == message["remaining_credits"]
    assert written["credits_used"] == message["estimated_credits_used"]
    assert written["cost_usd"] == message["estimated_cost_usd"]
    assert (written["first_token_ms"] is not None) == (stream == "true")


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("cost_fields", ["null", "absent"])
def test_missing_credits_and_cost_are_no_error(tmp_path: Path, stream: str, cost_fields: Any) -> None:
    """The cost is then tokens times prices; a balance that nobody states is null."""
    settings = (ASK, f"request.stream={stream}", "request.temperature=1")
    with background(Settings(cost_fields=cost_fields)) as sandbox, recording(sandbox.base_url) as server:
        (exchange,), written = asked(tmp_path, server, *settings, text="What is it?")
    named = {"remaining_credits", "estimated_credits_used", "estimated_cost_usd"} & set(exchange.message)
    assert (named == set()) == (cost_fields == "absent")
    assert all(exchange.message[name] is None for name in named)
    tokens = written["input_tokens"] + written["output_tokens"]
    assert written["status"] == "ok"
    assert written["cost_usd"] == round(tokens * 5e-6, 9)
    assert (written["credits_used"], written["remaining_credits"]) == (0, None)
