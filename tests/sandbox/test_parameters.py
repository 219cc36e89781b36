"""Every parameter of the reference page: what is taken, and which field an error names."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sandbox import Settings
from batchrun.sandbox.payload import MessagesBody
from batchrun.sandbox.provider import Provider
from tests.sandbox.conftest import Connected, Start, body, png

IMAGE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(750, 2)).decode()}


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def turns(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": "Hi."} for role in roles]


def image(**source: Any) -> list[dict[str, Any]]:
    return user([{"type": "image", "source": IMAGE | source}])


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in body().items() if name != field}


INVALID = [
    (without("model"), "model: field required"),
    (body(model=7), "model: expected str, got int"),
    (body(model="gpt-4"), "model: 'gpt-4' is unknown; known are abliterated-model,"),
    (without("messages"), "messages: field required"),
    (body(messages=[]), "messages: expected array of length >= 1"),
    (body(messages="Hi."), "messages: expected array, got str"),
    (body(messages=["Hi."]), "messages.0: expected object, got str"),
    (body(messages=[{"content": "Hi."}]), "messages.0.role: field required"),
    (body(messages=[{"role": "user"}]), "messages.0.content: field required"),
    (
        body(messages=[{"role": "system", "content": "Hi."}]),
        "messages.0.role: invalid enum value 'system'; use user or assistant",
    ),
    (body(messages=user(7)), "messages.0.content: expected str | array, got int"),
    (body(messages=user([{"type": "text"}])), "messages.0.content.0.text: field required"),
    (body(messages=user([{"text": "Hi."}])), "messages.0.content.0.type: field required"),
    (
        body(messages=user([{"type": "audio"}])),
        "messages.0.content.0.type: invalid value 'audio'; use text or",
    ),
    (body(messages=user([{"type": "image"}])), "messages.0.content.0.source: field required"),
    (body(messages=image(type="file")), "messages.0.content.0.source.type: invalid value 'file'"),
    (
        body(messages=image(media_type="image/bmp")),
        "messages.0.content.0.source.media_type: invalid enum value",
    ),
    (
        body(messages=image(media_type="image/gif")),
        "messages.0.content.0.source.data: the data is not an image/gif",
    ),
    (body(messages=image(data="####")), "messages.0.content.0.source.data: is not valid base64"),
    (
        body(messages=image(data="aGk=")),
        "messages.0.content.0.source.data: the data is not an image/png image",
    ),
    (body(messages=image(type="url", url="file:///a")), "messages.0.content.0.source.url: must be an http"),
    (body(max_tokens=0), "max_tokens: must be at least 1"),
    (body(max_tokens=1.5), "max_tokens: expected int, got float"),
    (body(max_tokens="9"), "max_tokens: expected int, got str"),
    (body(max_tokens=True), "max_tokens: expected int, got bool"),
    (body(temperature=2.01), "temperature: must be between 0 and 2"),
    (body(temperature=-0.01), "temperature: must be between 0 and 2"),
    (body(temperature="hot"), "temperature: expected float, got str"),
    (body(temperature=None), "temperature: expected float, got null"),
    (body(stream="yes"), "stream: expected bool, got str"),
    (body(system=7), "system: expected str | array, got int"),
    (body(system=[{"type": "image", "source": IMAGE}]), "system.0.type: invalid value 'image'"),
    (body(flagged_categories="hate"), "flagged_categories: expected array, got str"),
    (
        body(flagged_categories=["violence"]),
        "flagged_categories.0: invalid enum value 'violence'; use harassment,",
    ),
    (body(stop_sequences=[""]), "stop_sequences.0: expected str of length >= 1"),
    ([], "the body must be a JSON object"),
    (b'{"model":', "the body is not valid JSON"),
    (b'{"model": "\xff"}', "the body is not valid JSON"),
    (b"[" * 100_000, "the body is not valid JSON"),
    (b"", "the body is not valid JSON"),
]


@pytest.mark.parametrize(("request_body", "message"), INVALID, ids=[message for _, message in INVALID])
def test_an_invalid_parameter_is_a_400_that_names_it(
    plain: Connected, request_body: object, message: str
) -> None:
    response = plain.ask(request_body)
    error = response.json()
    assert response.status_code == 400
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["message"].startswith(message)
    assert error["error"]["code"] in ("invalid_parameter", "invalid_json", "model_not_found")


VALID = [
    without("max_tokens"),
    body(max_tokens=1),
    body(max_tokens=10**9),
    body(temperature=0),
    body(temperature=2),
    body(temperature=0.7),
    body(stream=False),
    body(system="Be brief."),
    body(system=""),
    body(system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]),
    body(flagged_categories=[]),
    body(flagged_categories=["harassment", "hate", "illicit", "sexual"]),
    body(messages=user([{"type": "text", "text": "Hi."}, {"type": "image", "source": IMAGE}])),
    body(messages=turns("user", "assistant", "user")),
    body(model="abliterated-model-large"),
    body(model="abliterated-model-large-v2"),
    body(top_p=0.9, metadata={"user_id": "7"}),
]


@pytest.mark.parametrize("request_body", VALID, ids=json.dumps)
def test_a_valid_request_is_answered(plain: Connected, request_body: dict[str, Any]) -> None:
    message = plain.ask(request_body).json()
    assert message["type"] == "message"
    assert message["model"] == request_body["model"]
    assert message["content"][0]["text"]


SENSELESS = [
    (turns("assistant"), "messages.0.role: user and assistant must alternate"),
    (turns("user", "user"), "messages.1.role: user and assistant must alternate"),
    (turns("user", "assistant"), "messages.1.role: the last message must be the user's"),
    (user(""), "messages.0.content: must not be empty"),
    (user(" \n"), "messages.0.content: must not be empty"),
    (user([]), "messages.0.content: must not be empty"),
    (user([{"type": "text", "text": ""}]), "messages.0.content: must not be empty"),
    (
        [
            *turns("user"),
            {"role": "assistant", "content": [{"type": "image", "source": IMAGE}]},
            *turns("user"),
        ],
        "messages.1.content: only user messages may hold images",
    ),
]


@pytest.mark.parametrize(("messages", "message"), SENSELESS, ids=[message for _, message in SENSELESS])
def test_a_senseless_history_is_a_422(plain: Connected, messages: list[Any], message: str) -> None:
    response = plain.ask(body(messages=messages))
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith(message)
    assert response.json()["error"]["code"] == "invalid_history"


@pytest.mark.parametrize(
    ("marker", "categories", "status"),
    [
        ("hate", ["hate"], 400),
        ("hate", ["sexual"], 200),
        ("hate", [], 200),
        ("self-harm", [], 400),
        ("sexual/minors", [], 400),
        ("sexual", ["sexual"], 400),
    ],
)
@pytest.mark.parametrize("place", ["system", "message"])
def test_flagged_categories_block_what_is_marked(
    plain: Connected, marker: str, categories: list[str], status: int, place: str
) -> None:
    """A marked request is refused, unbilled, if its category is asked for or always blocked."""
    before = plain.total()["nano_usd"]
    text = f"See this: [sandbox:flag {marker}]."
    request = body(system=text) if place == "system" else body(text)
    response = plain.ask(request | {"flagged_categories": categories})
    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["code"] == "content_flagged"
        assert marker in response.json()["error"]["message"]
        assert plain.total()["nano_usd"] == before


def test_a_body_over_the_size_limit_is_a_413_and_the_connection_goes_on(start: Start) -> None:
    sandbox = start(max_body_bytes=1_000)
    response = sandbox.ask(body("word " * 100_000))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert sandbox.ask(body()).status_code == 200
    assert [entry["status"] for entry in sandbox.sandbox.bill()["requests"]] == [413, 200]


def test_a_model_can_be_added(start: Start) -> None:
    assert start(models=("my-model",)).ask(body(model="my-model")).status_code == 200


def test_max_tokens_cuts_the_answer_and_says_so(plain: Connected) -> None:
    message = plain.ask(body(max_tokens=3)).json()
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 3


def test_without_max_tokens_the_default_applies(start: Start) -> None:
    request = without("max_tokens")
    assert start(default_max_tokens=2).ask(request).json()["usage"]["output_tokens"] == 2


def test_wrong_paths_and_methods_are_told_in_the_same_shape(plain: Connected) -> None:
    missing = plain.client.post("/v1/message", content=b"{}")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    wrong = plain.client.get("/v1/messages")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert plain.client.post("/sandbox/bill").status_code == 405


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "source", "data", "url"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(list(MessagesBody.__struct_fields__)), json_values)
def test_any_value_of_any_parameter_is_answered_or_refused(field: str, value: object) -> None:
    """No value brings the server down: what isn't answered is a 400 or a 422 with a message."""
    response = Provider(Settings()).respond(
        {b"x-api-key": b"k"}, json.dumps(body() | {field: value}).encode()
    )
    assert response.status in (200, 400, 422)
    assert response.status == 200 or json.loads(response.body)["error"]["message"]


@given(st.binary(max_size=40))
def test_any_bytes_are_refused(content: bytes) -> None:
    assert Provider(Settings()).respond({b"x-api-key": b"k"}, content).status == 400
