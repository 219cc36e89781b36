"""Every fault as a raw client sees it, and what the bill says about it."""

import json
import math
import socket
import statistics
import time
from collections import Counter

import pytest

from batchrun.sandbox import Settings, SettingsError
from batchrun.sandbox.faults import BILLED_KINDS, KINDS, FaultDraw
from batchrun.sandbox.provider import Provider
from tests.sandbox.conftest import Connected, Start, body


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes; ConnectionResetError if it resets."""
    parts = []
    with connection:
        connection.settimeout(10)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def entry(sandbox: Connected) -> tuple[int, str | None, bool]:
    """Status, fault and whether billed, of the only request in the bill."""
    (request,) = sandbox.sandbox.bill()["requests"]
    return request["status"], request["fault"], request["billed"]


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [
        ("429", "rate_limit_error"),
        ("500", "api_error"),
        ("529", "overloaded_error"),
        ("403", "permission_error"),
        ("400-credit", "invalid_request_error"),
        ("503-no-retry", "api_error"),
        ("200-error", "overloaded_error"),
    ],
)
def test_error_statuses_are_not_billed(start: Start, kind: str, error_type: str) -> None:
    sandbox = start(faults={kind: 1.0})
    response = sandbox.ask(body())
    assert response.status_code == int(kind[:3])
    assert response.json()["error"]["type"] == error_type
    assert response.headers.get("retry-after") == ("1" if kind == "429" else None)
    assert response.headers.get("x-should-retry") == ("false" if kind == "503-no-retry" else None)
    assert entry(sandbox) == (int(kind[:3]), kind, False)


@pytest.mark.parametrize(("seconds", "stated"), [(0.05, "0.05"), (30, "30"), (0, None)])
def test_a_refusal_at_random_states_the_wait_that_was_set_and_the_keys_limits(
    start: Start, seconds: float, stated: str | None
) -> None:
    sandbox = start(rpm=600, faults={"429-random": 1.0}, retry_after=seconds)
    response = sandbox.ask(body())
    assert response.status_code == 429
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert response.headers.get("retry-after") == stated
    assert response.headers["x-ratelimit-limit-requests"] == "600"
    assert response.headers["x-ratelimit-remaining-requests"] == "600", "it counts towards no limit"
    assert entry(sandbox) == (429, "429-random", False)


def test_a_wrong_key_is_not_refused_at_random(start: Start) -> None:
    sandbox = start(keys=("right",), faults={"429-random": 1.0})
    assert sandbox.ask(body(), key="wrong").status_code == 401
    assert sandbox.ask(body(), key="right").status_code == 429


@pytest.mark.parametrize(("kind", "billed"), [("reset-before", False), ("reset-after", True)])
@pytest.mark.parametrize("stream", [False, True])
def test_resets_are_real_ones_before_any_byte(start: Start, kind: str, billed: bool, stream: bool) -> None:
    sandbox = start(faults={kind: 1.0})
    connection = sandbox.raw(body(stream=stream))
    connection.settimeout(10)
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert entry(sandbox) == (0, kind, billed)


def test_a_truncated_body_is_shorter_than_its_content_length(start: Start) -> None:
    sandbox = start(faults={"truncated": 1.0})
    head, _, content = received(sandbox.raw(body())).partition(b"\r\n\r\n")
    promised = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert head.startswith(b"HTTP/1.1 200")
    assert 0 < len(content) == promised // 2
    assert entry(sandbox) == (200, "truncated", True)


def test_a_truncated_stream_ends_without_its_last_chunk(start: Start) -> None:
    sandbox = start(faults={"truncated": 1.0})
    answer = received(sandbox.raw(body(stream=True)))
    assert b"message_start" in answer
    assert b"message_stop" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert entry(sandbox) == (200, "truncated", True)


def test_a_page_of_html_is_not_billed(start: Start) -> None:
    sandbox = start(faults={"html": 1.0})
    response = sandbox.ask(body())
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<html>")
    assert entry(sandbox) == (200, "html", False)


@pytest.mark.parametrize("stream", [False, True])
def test_slow_headers_come_late_with_a_whole_answer(start: Start, stream: bool) -> None:
    sandbox = start(faults={"slow-headers": 1.0}, slow_seconds=0.2)
    begun = time.monotonic()
    response = sandbox.ask(body(stream=stream))
    assert time.monotonic() - begun >= 0.2
    assert response.status_code == 200
    assert entry(sandbox) == (200, "slow-headers", True)


def test_a_hanging_request_is_billed_and_never_answered(start: Start) -> None:
    sandbox = start(faults={"hang": 1.0})
    connection = sandbox.raw(body())
    connection.settimeout(0.3)
    with connection, pytest.raises(TimeoutError):
        connection.recv(1)
    assert entry(sandbox) == (0, "hang", True)


def test_a_stream_error_ends_the_stream_and_bills_what_was_streamed(start: Start) -> None:
    whole_tokens = start().ask(body()).json()["usage"]["output_tokens"]
    sandbox = start(faults={"stream-error": 1.0})
    response = sandbox.ask(body(stream=True))
    *events, last = response.text.strip().split("\n\n")
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.split("data: ")[1])["error"]["type"] == "overloaded_error"
    assert "message_stop" not in response.text
    assert events[0].startswith("event: message_start")
    texts = [
        json.loads(event.split("data: ")[1])["delta"]["text"] for event in events if "text_delta" in event
    ]
    (request,) = sandbox.sandbox.bill()["requests"]
    assert texts
    assert request["output_tokens"] == whole_tokens // 2
    assert request["fault"] == "stream-error"


def test_a_stream_error_leaves_unstreamed_requests_alone(start: Start) -> None:
    sandbox = start(faults={"stream-error": 1.0})
    assert sandbox.ask(body()).status_code == 200
    assert entry(sandbox) == (200, None, True)


@pytest.mark.parametrize("kind", BILLED_KINDS)
def test_a_request_that_is_refused_meets_no_billed_fault(start: Start, kind: str) -> None:
    sandbox = start(faults={kind: 1.0})
    assert sandbox.ask(body(max_tokens=0)).status_code == 400
    assert entry(sandbox) == (400, None, False)


def test_faults_are_drawn_for_each_arrival_by_share_and_seed() -> None:
    """The same seed gives the same faults in order; a retry of a failed request has a new draw."""
    shares = {"500": 0.2, "hang": 0.1}
    draw = FaultDraw(shares, seed=1)
    drawn = [draw.draw() for _ in range(5000)]
    again, other = FaultDraw(shares, seed=1), FaultDraw(shares, seed=2)
    assert drawn == [again.draw() for _ in range(5000)]
    assert drawn != [other.draw() for _ in range(5000)]
    counts = Counter(drawn)
    assert set(counts) == {None, "500", "hang"}
    assert 850 <= counts["500"] <= 1150
    assert 400 <= counts["hang"] <= 600


def test_faults_can_be_changed_while_it_runs(start: Start) -> None:
    """The posted shares take the place of the old ones."""
    sandbox = start(faults={"500": 1.0})
    assert sandbox.ask(body()).status_code == 500
    assert sandbox.client.post("/sandbox/faults", json={"529": 1}).json() == {"529": 1.0}
    assert sandbox.ask(body()).status_code == 529
    assert sandbox.client.post("/sandbox/faults", json={}).json() == {}
    assert sandbox.ask(body()).status_code == 200


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"503": 0.1}, f"unknown fault kind '503'; the kinds are {', '.join(KINDS)}"),
        ({"500": 1.1}, "the share of fault 500 must be a number from 0 to 1, not 1.1"),
        ({"500": -0.1}, "the share of fault 500 must be"),
        ({"500": "x"}, "the share of fault 500 must be"),
        ({"500": float("nan")}, "the share of fault 500 must be"),
        ({"500": 0.6, "529": 0.6}, "the shares of all faults together must be at most 1, not 1.2"),
    ],
)
def test_senseless_shares_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings(faults=shares)
    assert str(raised.value).startswith(message)


def test_senseless_shares_are_refused_while_it_runs(start: Start) -> None:
    response = start().client.post("/sandbox/faults", json={"503": 0.1})
    assert response.status_code == 400
    assert "unknown fault kind" in response.json()["error"]["message"]


def test_latencies_are_log_normal_around_the_median() -> None:
    """The logarithms of 2,000 delays have the mean and deviation that were set; the seed repeats them."""
    settings = Settings(latency=2.0, latency_sigma=0.5)
    delays = []
    for provider in (Provider(settings), Provider(settings)):
        request = json.dumps(body()).encode()
        delays.append([provider.respond({b"x-api-key": b"k"}, request).delay for _ in range(2000)])
    logarithms = [math.log(delay) for delay in delays[0]]
    assert delays[0] == delays[1]
    assert abs(statistics.mean(logarithms) - math.log(2.0)) < 0.05
    assert abs(statistics.stdev(logarithms) - 0.5) < 0.05


def test_generation_takes_its_time(start: Start) -> None:
    """10 tokens at 100 a second, 0.1 s to the first token and 0.1 s latency: 0.3 s, streamed or not."""
    sandbox = start(latency=0.1, first_token=0.1, tokens_per_second=100)
    for stream in (False, True):
        begun = time.monotonic()
        response = sandbox.ask(body(max_tokens=10, stream=stream))
        assert response.status_code == 200
        assert 0.29 <= time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "settings",
    [
        {"rpm": 0},
        {"concurrency": 0},
        {"credits": -1},
        {"latency": math.nan},
        {"retry_after": -1},
        {"cost_fields": "some"},
        {"keys": ("",)},
    ],
)
def test_senseless_settings_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        Settings(**settings)  # type: ignore[arg-type]
