"""What goes over the wire, and what of a good answer comes back."""

import gzip
import zlib

import anyio
import httpx
import pyarrow as pa
import pytest

from batchrun import __version__
from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.errors import JobError
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits, Response

from .wire_server import (
    MESSAGE,
    REQUEST,
    Connection,
    always,
    answer_from,
    failure_from,
    once,
    response,
    send_once,
    wire_server,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]


def header_lines(request: bytes) -> list[str]:
    head = request.split(b"\r\n\r\n")[0].decode("ascii")
    return [line.lower() for line in head.split("\r\n")[1:]]


async def request_sent_by(**settings: object) -> bytes:
    async with wire_server(always(response(MESSAGE))) as server:
        outcome = await send_once(EndpointSettings(f"{server.url}/", **settings))  # type: ignore[arg-type]
        assert isinstance(outcome, Response)
        return server.requests[0]


async def test_answer_holds_the_message_and_its_price() -> None:
    answer = await answer_from(always(response(MESSAGE)))
    assert answer.body == MESSAGE
    assert (answer.input_tokens, answer.output_tokens, answer.cost_nano_usd) == (14, 32, 230_000)
    assert (answer.credits_used, answer.remaining_credits) == (1, 487)
    assert (answer.limits, answer.first_token_latency) == (None, None)
    assert 0 < answer.latency < 5


async def test_request_has_one_of_each_header_and_the_body_as_given() -> None:
    request = await request_sent_by(api_key="sk-test-key", headers={"Anthropic-Version": "2023-06-01"})
    assert request.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + REQUEST)
    lines = header_lines(request)
    names = [line.partition(":")[0] for line in lines]
    assert sorted(names) == sorted(set(names))
    assert "authorization: bearer sk-test-key" in lines
    assert "content-type: application/json" in lines
    assert f"content-length: {len(REQUEST)}" in lines
    assert f"user-agent: batchrun/{__version__}" in lines
    assert "anthropic-version: 2023-06-01" in lines
    assert {"cookie", "referer", "x-free-tier"}.isdisjoint(names)


@pytest.mark.parametrize(
    ("auth", "expected"),
    [("bearer", ["authorization: bearer k3y"]), ("x-api-key", ["x-api-key: k3y"]), ("none", [])],
)
async def test_key_goes_in_the_header_that_the_settings_name(auth: str, expected: list[str]) -> None:
    lines = header_lines(await request_sent_by(api_key="k3y", auth=auth))
    assert [line for line in lines if "k3y" in line] == expected


async def test_free_tier_is_asked_for_by_its_header() -> None:
    lines = header_lines(await request_sent_by(free_tier=True))
    assert "x-free-tier: true" in lines
    assert not any(line.startswith("authorization") for line in lines)


async def test_settings_do_not_show_the_key_or_headers() -> None:
    text = repr(EndpointSettings("http://127.0.0.1", "sk-secret", headers={"x-token": "t0ken"}))
    assert "sk-secret" not in text
    assert "t0ken" not in text


@pytest.mark.parametrize(
    "settings",
    [
        EndpointSettings("ftp://host"),
        EndpointSettings("https://"),
        EndpointSettings("http://host:port"),
        EndpointSettings("http://host:99999"),
        EndpointSettings("http://1.2.3.4.5"),
        EndpointSettings("http://a b"),
        EndpointSettings("http://xn--a"),
        EndpointSettings("http://host", "sk-se\ncret"),
        EndpointSettings("http://host", headers={"x-a": "sk-secrèt"}),
        EndpointSettings("http://host", headers={"x a": "b"}),
    ],
)
async def test_settings_that_cannot_be_sent_are_the_users_error(settings: EndpointSettings) -> None:
    with pytest.raises(JobError, match=r"\[endpoint\]") as raised:
        async with open_endpoint(settings):
            pass
    assert "sk-se" not in str(raised.value)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(MESSAGE, mtime=0)),
        ("deflate", zlib.compress(MESSAGE)),
        ("br", pa.compress(MESSAGE, codec="brotli", asbytes=True)),
        ("zstd", pa.compress(MESSAGE, codec="zstd", asbytes=True)),
    ],
)
async def test_compressed_bodies_are_decoded(coding: str, body: bytes) -> None:
    answer = await answer_from(always(response(body, b"content-encoding: %b\r\n" % coding.encode())))
    assert answer.body == MESSAGE


async def test_chunked_body_is_put_together() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, MESSAGE[i : i + 1]) for i in range(len(MESSAGE)))
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert (await answer_from(always(raw))).body == MESSAGE


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_at_the_bound_is_taken_and_one_byte_more_is_not(stream: bool) -> None:
    script = always(response(MESSAGE))
    assert (await answer_from(script, max_answer_bytes=len(MESSAGE), stream=stream)).body == MESSAGE
    failure = await failure_from(script, max_answer_bytes=len(MESSAGE) - 1, stream=stream)
    assert (failure.code, failure.action, failure.billing) == (
        "answer_too_large",
        FailureAction.FAIL_ROW,
        BillingStatus.UNKNOWN,
    )
    assert "endpoint.max_answer_bytes" in failure.message


async def test_compressed_bomb_is_cut_at_the_bound() -> None:
    bomb = gzip.compress(b" " * 20_000_000)
    failure = await failure_from(once(response(bomb, b"content-encoding: gzip\r\n")), max_answer_bytes=2**20)
    assert failure.code == "answer_too_large"


async def test_endless_body_is_cut_at_the_bound() -> None:
    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            await connection.write(b" " * 65536)

    assert (await failure_from(endless, max_answer_bytes=2**20)).code == "answer_too_large"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"<!doctype html><title>Sign in</title>", "HTML"),
        (b'{"choices":[]}', "not a message"),
        (b"[]", "not a message"),
        (b"null", "not a message"),
        (MESSAGE[:-1], "cut off"),
        (MESSAGE.replace(b'"text":"positive"', b'"text":["positive"]'), "not a message"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_good_status_with_anything_but_a_message_may_have_been_billed(
    body: bytes, words: str, stream: bool
) -> None:
    failure = await failure_from(always(response(body)), stream=stream)
    assert (failure.code, failure.action, failure.billing) == (
        "broken_answer",
        FailureAction.RETRY,
        BillingStatus.UNKNOWN,
    )
    assert failure.status == 200
    assert words in failure.message


async def test_rate_limits_come_with_answers_and_with_refusals() -> None:
    headers = b"X-RateLimit-Limit-Requests: 60\r\nx-ratelimit-remaining-requests: 59\r\n"
    expected = RateLimits(limit_requests=60, remaining_requests=59)
    assert (await answer_from(always(response(MESSAGE, headers)))).limits == expected
    refusal = response(b"{}", headers + b"retry-after: 7\r\n", b"429 Too Many Requests")
    failure = await failure_from(always(refusal))
    assert (failure.limits, failure.retry_after, failure.action) == (expected, 7.0, FailureAction.SLOW_DOWN)


async def test_header_that_is_not_ascii_costs_no_answer() -> None:
    headers = "x-served-by: café\r\nx-ratelimit-limit-tokens: 1000\r\n".encode("latin-1")
    answer = await answer_from(always(response(MESSAGE, headers)))
    assert answer.limits == RateLimits(limit_tokens=1000)


async def test_redirect_is_not_followed_and_says_where_to() -> None:
    async with wire_server(always(response(MESSAGE))) as target:
        location = f"location: {target.url}/v1/messages\r\n".encode()
        failure = await failure_from(always(response(b"", location, b"307 Temporary Redirect")))
        assert target.connections == 0
    assert (failure.action, failure.billing, failure.code) == (
        FailureAction.STOP_RUN,
        BillingStatus.NO,
        "http_307",
    )
    assert f"redirects to {target.url}/v1/messages" in failure.message


async def test_key_that_the_server_echoes_is_cut_out() -> None:
    body = b'{"error":{"type":"bad-sk-test-key","message":"no such key: sk-test-key\\u001b[31m"}}'
    failure = await failure_from(always(response(body, status=b"401 Unauthorized")))
    assert failure.message == "no such key: [key] [31m"
    assert (failure.code, failure.action) == ("http_401", FailureAction.STOP_RUN)


async def test_refusal_whose_page_breaks_off_still_counts_by_its_status() -> None:
    raw = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 900\r\n\r\n<html><title>401"
    failure = await failure_from(once(raw))
    assert (failure.status, failure.action, failure.billing) == (
        401,
        FailureAction.STOP_RUN,
        BillingStatus.NO,
    )


async def test_interim_response_is_passed_over() -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\n" + response(MESSAGE)
    assert (await answer_from(always(raw))).body == MESSAGE


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_send_ends_with_its_scope(stream: bool) -> None:
    """An anyio scope recognises the cancellation as its own: it neither leaks nor becomes a Failure."""

    async def never_answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.wait_for_end()

    with anyio.move_on_after(0.2) as scope:
        await failure_from(never_answer, stream=stream)
    assert scope.cancelled_caught


async def test_many_requests_at_once_each_get_their_answer() -> None:
    outcomes: list[Response | Failure] = []
    async with (
        wire_server(always(response(MESSAGE))) as server,
        open_endpoint(EndpointSettings(server.url)) as endpoint,
        anyio.create_task_group() as group,
    ):

        async def send() -> None:
            outcomes.append(await endpoint.send(REQUEST))

        for _ in range(200):
            group.start_soon(send)
    assert len(outcomes) == 200
    assert all(isinstance(outcome, Response) for outcome in outcomes)


async def test_another_transport_takes_the_networks_place() -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        assert request.content == REQUEST
        return httpx.Response(200, content=MESSAGE)

    settings = EndpointSettings("https://model.invalid", "sk-test-key")
    async with open_endpoint(settings, httpx.MockTransport(reply)) as endpoint:
        answer = await endpoint.send(REQUEST)
    assert isinstance(answer, Response)
    assert answer.body == MESSAGE


async def test_answer_counts_however_its_connection_ends() -> None:
    class Breaking(httpx.ByteStream):
        async def aclose(self) -> None:
            raise httpx.CloseError("broken pipe")

    settings = EndpointSettings("https://model.invalid", "sk-test-key")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Breaking(MESSAGE)))
    async with open_endpoint(settings, transport) as endpoint:
        assert isinstance(await endpoint.send(REQUEST), Response)


async def test_an_error_of_the_wire_becomes_a_failure_without_the_key() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("lost, with sk-test-key")

    settings = EndpointSettings("https://model.invalid", "sk-test-key")
    async with open_endpoint(settings, httpx.MockTransport(fail)) as endpoint:
        failure = await endpoint.send(REQUEST)
    assert isinstance(failure, Failure)
    assert failure.billing is BillingStatus.UNKNOWN
    assert "sk-test-key" not in failure.message


async def test_a_fault_of_batchruns_own_is_no_failure_of_the_endpoint() -> None:
    """It must end the run, and not be retried and booked as uncertain spend, row by row."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise AttributeError("a mistake in the transport")

    async with open_endpoint(
        EndpointSettings("https://model.invalid", "k"), httpx.MockTransport(fail)
    ) as endpoint:
        with pytest.raises(AttributeError):
            await endpoint.send(REQUEST)
