"""The words of one exchange with the endpoint: an attempt ends in an `Answer` or in a `Failure`."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Remedy(StrEnum):
    """What a failed attempt calls for. Decided once, where the failure is classified."""

    FAIL_ROW = "fail_row"  # 400, 422: this request can never succeed
    STOP_RUN = "stop_run"  # 401, 402, 403, 404: no other request can succeed either
    SLOW_DOWN = "slow_down"  # 429: the limiter's business, uses up none of the row's attempts
    RETRY = "retry"  # 408, 409, 5xx, broken connections and bodies, time-outs


class Billed(StrEnum):
    """What is known about the charge for a failed attempt."""

    NO = "no"  # never sent, or the endpoint said that it failed
    UNKNOWN = "unknown"  # may have been billed: its reservation is kept as uncertain spend


class RateLimits(msgspec.Struct, frozen=True, gc=False):
    """What the rate-limit headers of a response said; None where a header was missing.

    Limits are per minute. `reset_requests` and `reset_tokens` are seconds from now.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole message, as it came.

    `body` is the message as JSON, in one piece also where it was streamed. Token counts include
    cache reads and cache writes. `cost_nano_usd` (10^-9 USD), `credits_used` and
    `remaining_credits` are None where the endpoint didn't say. Times are in seconds.
    """

    body: bytes
    input_tokens: int | None
    output_tokens: int | None
    cost_nano_usd: int | None = None
    credits_used: int | None = None
    remaining_credits: int | None = None
    latency: float = 0.0
    first_token_latency: float | None = None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer.

    `code` is a short word for tables and counts ("timeout", "rate_limit_error", "http_502"),
    `message` a sentence for a person, without prompts or keys. `retry_after` is what the endpoint
    asked for, in seconds.
    """

    code: str
    message: str
    remedy: Remedy
    billed: Billed
    status: int | None = None
    retry_after: float | None = None
    latency: float = 0.0
    limits: RateLimits | None = None
