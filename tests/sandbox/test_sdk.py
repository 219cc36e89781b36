"""The official Python SDK of Anthropic's Messages API works against the sandbox."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.conftest import Connected, Start, body

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anthropic


@contextmanager
def sdk(sandbox: Connected, key: str = "sk-test") -> "Iterator[anthropic.Anthropic]":
    import anthropic  # a second, which only the process that runs these tests has to wait

    with anthropic.Anthropic(
        base_url=sandbox.sandbox.base_url, api_key=key, max_retries=0, timeout=20
    ) as client:
        yield client


def ask(
    client: "anthropic.Anthropic", text: str = "Write one sentence about Stonehenge."
) -> "anthropic.types.Message":
    return client.messages.create(
        model="abliterated-model", max_tokens=256, messages=[{"role": "user", "content": text}]
    )


def test_a_message(plain: Connected) -> None:
    with sdk(plain) as client:
        message = ask(client)
    block = message.content[0]
    assert block.type == "text"
    assert block.text.startswith("Stonehenge is")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (14, 32)
    assert message.stop_reason == "end_turn"
    assert message._request_id == message.id.replace("msg", "req")


def test_a_streamed_message_is_the_same_as_the_whole_one(plain: Connected) -> None:
    with sdk(plain) as client:
        whole = ask(client)
        with client.messages.stream(
            model="abliterated-model",
            max_tokens=256,
            messages=[{"role": "user", "content": "Write one sentence about Stonehenge."}],
        ) as stream:
            pieces = list(stream.text_stream)
            streamed = stream.get_final_message()
    assert len(pieces) == 8
    assert streamed.content[0].text == "".join(pieces) == whole.content[0].text  # type: ignore[union-attr]
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (14, 32)
    assert streamed.stop_reason == "end_turn"


def test_the_order_of_a_streams_events(plain: Connected) -> None:
    text = plain.ask(body(stream=True, max_tokens=8)).text
    events = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
    assert events == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


ERRORS = [
    ({"faults": {"500": 1.0}}, "InternalServerError", 500),
    ({"faults": {"529": 1.0}}, "InternalServerError", 529),
    ({"faults": {"429": 1.0}}, "RateLimitError", 429),
    ({"keys": ("another",)}, "AuthenticationError", 401),
    ({"credits": 0}, "PaymentRequiredError", 402),
    ({"max_body_bytes": 20}, "ContentTooLargeError", 413),
]


@pytest.mark.parametrize(("settings", "error", "status"), ERRORS, ids=[str(status) for *_, status in ERRORS])
def test_errors_by_status(start: Start, settings: dict[str, object], error: str, status: int) -> None:
    import anthropic

    with sdk(start(**settings)) as client, pytest.raises(getattr(anthropic, error)) as raised:
        ask(client)
    assert raised.value.status_code == status
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["error"]["message"]


def test_errors_of_the_request(plain: Connected) -> None:
    import anthropic

    with sdk(plain) as client:
        with pytest.raises(anthropic.BadRequestError, match="is unknown"):
            client.messages.create(model="x", max_tokens=1, messages=[{"role": "user", "content": "Hi."}])
        with pytest.raises(anthropic.UnprocessableEntityError, match="must not be empty"):
            ask(client, " ")


@pytest.mark.parametrize("kind", ["reset-before", "reset-after", "truncated"])
def test_broken_connections_are_connection_errors(start: Start, kind: str) -> None:
    with sdk(start(faults={kind: 1.0})) as client, pytest.raises(Exception) as raised:  # noqa: PT011
        ask(client)
    names = {each.__name__ for each in type(raised.value).__mro__}
    assert names & {"APIConnectionError", "RemoteProtocolError"}


def test_a_hanging_request_is_a_timeout(start: Start) -> None:
    import anthropic

    with sdk(start(faults={"hang": 1.0})) as client, pytest.raises(anthropic.APITimeoutError):
        ask(client.with_options(timeout=0.3))


def test_an_error_in_mid_stream_is_raised(start: Start) -> None:
    import anthropic

    with (
        sdk(start(faults={"stream-error": 1.0})) as client,
        pytest.raises(anthropic.APIStatusError, match="injected fault"),
        client.messages.stream(
            model="abliterated-model", max_tokens=64, messages=[{"role": "user", "content": "Hi."}]
        ) as stream,
    ):
        stream.until_done()
