"""Waiting times and rate limits from headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.headers import rate_limits, retry_after, should_retry
from batchrun.exchange import RateLimits

NOON = 1_776_686_400.0  # 2026-04-20T12:00:00Z


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), text.encode()) for name, text in headers]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "Mon, 20 Apr 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Monday, 20-Apr-26 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Mon, 20 Apr 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        *[
            ({"retry-after": text}, None)
            for text in (
                "",
                "soon",
                "-5",
                "nan",
                "inf",
                "1e9",
                "0x10",
                "٣",
                "9" * 400,
                "Mon, 99 Apr 2026",
                "1 2",
            )
        ],
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOON) == seconds


@pytest.mark.parametrize(
    ("text", "told"), [("true", True), (" False ", False), ("", None), ("yes", None), ("1", None)]
)
def test_should_retry_is_true_or_false_or_not_said(text: str, told: bool | None) -> None:
    assert should_retry({"x-should-retry": text}) is told
    assert should_retry({}) is None


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ([("content-type", "application/json"), ("date", "now")], None),
        (
            [
                ("x-ratelimit-limit-requests", "600"),
                ("x-ratelimit-remaining-requests", "599"),
                ("x-ratelimit-limit-tokens", "2000000"),
                ("x-ratelimit-remaining-tokens", "1999954"),
                ("x-ratelimit-reset-requests", "2026-04-20T12:00:30Z"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            RateLimits(600, 599, 30.0, 2_000_000, 1_999_954, 360.0),
        ),
        (
            [
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "2026-04-20T12:00:01.5+00:00"),
                ("anthropic-ratelimit-tokens-limit", "80000"),
                ("anthropic-ratelimit-tokens-remaining", "79000"),
                ("anthropic-ratelimit-tokens-reset", "2026-04-20T11:59:00Z"),
                ("anthropic-ratelimit-input-tokens-limit", "1"),
                ("anthropic-ratelimit-output-tokens-remaining", "1"),
            ],
            RateLimits(50, 49, 1.5, 80_000, 79_000, 0.0),
        ),
        ([("x-ratelimit-limit-requests", "many"), ("x-ratelimit-remaining-requests", "-1")], None),
        ([("x-ratelimit-limit-requests", "60"), ("x-ratelimit-reset-requests", "soon")], RateLimits(60)),
        ([("ratelimit-limit", "60")], None),
        ([("ratelimit-policy", '"burst";q=300;w=10')], RateLimits(1_800)),
        (
            [("ratelimit-policy", "300;w=10"), ("ratelimit", "limit=300, remaining=50, reset=3")],
            RateLimits(1_800, 50, 3.0),
        ),
        (
            [
                ("ratelimit-policy", '"day";q=5000;w=86400, "minute";q=60;w=60'),
                ("ratelimit", '"m";r=7;t=2'),
            ],
            RateLimits(60, 7, 2.0),
        ),
        ([("ratelimit-policy", '"a, b;c";q=100;w=60;pk=:dGVzdA==:, "b";q=10;w=1')], RateLimits(100)),
        ([("ratelimit-policy", '"t";q=1000;qu="tokens";w=30')], RateLimits(limit_tokens=2_000)),
        ([("ratelimit-policy", '"c";q=8;qu="concurrent-requests";w=60')], None),
        ([("ratelimit-policy", '"x";q=0;w=60, "y";q=5;w=0, "z";w=60, ;;,=')], None),
        ([("ratelimit", '"a";r=1;t=1, "b";r=2;t=2')], None),
        (
            [("ratelimit-policy", '"b";q=300;w=10'), ("x-ratelimit-limit-requests", "600")],
            RateLimits(600),
        ),
    ],
)
def test_rate_limits_of_both_styles(headers: list[tuple[str, str]], limits: RateLimits | None) -> None:
    assert rate_limits(raw(headers), NOON) == limits
    assert rate_limits(raw([(name.title(), text) for name, text in headers]), NOON) == limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("250ms", 0.25),
        ("1m0.5s", 60.5),
        ("1h2m3s", 3723.0),
        ("1d", 86_400.0),
        ("12.5", 12.5),
        (str(int(NOON) + 10), 10.0),
        (str(int(NOON) - 10), 0.0),
        ("2026-04-20T14:00:10+02:00", 10.0),
        ("2026-04-20T12:00:10", 10.0),
        ("", None),
        ("s", None),
        ("1s1m", None),
        ("-1s", None),
        ("9999-99-99", None),
        ("0001-01-01T00:00:00+23:59", 0.0),
    ],
)
def test_reset_is_seconds_from_now(text: str, seconds: float | None) -> None:
    headers = [("x-ratelimit-limit-requests", "1"), ("x-ratelimit-reset-requests", text)]
    limits = rate_limits(raw(headers), NOON)
    assert limits == RateLimits(limit_requests=1, reset_requests=seconds)


@given(st.text() | st.from_regex(r"[0-9dhms.:TZ+-]{1,20}"))
def test_any_text_is_a_wait_of_zero_or_more_or_nothing(text: str) -> None:
    wait = retry_after({"retry-after": text, "retry-after-ms": text}, NOON)
    assert wait is None or wait >= 0
    limits = rate_limits(raw([("x-ratelimit-reset-tokens", text)]), NOON)
    assert limits is None or (limits.reset_tokens is not None and 0 <= limits.reset_tokens < float("inf"))
