"""The types of one exchange with the endpoint: an attempt ends in a `Response` or in a `Failure`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

Hold = Literal["rate limit", "endpoint", "retry"]
"""What the next request waits for: a limit, a failing endpoint, or, if every row left has failed before, the
time at which the first of them is sent again."""


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """Why the next request is not sent yet.

    Times are seconds of one monotonic clock. `until` is infinite if only a response can tell. The run ends at
    `gives_up_at` if the endpoint lets nothing through until then; None if it doesn't fail everything.
    """

    by: Hold
    until: float
    gives_up_at: float | None = None


class FailureAction(StrEnum):
    """What to do about a failed attempt. Decided once, when the failure is classified."""

    FAIL_ROW = "fail_row"  # 400, 422: this request can never succeed
    STOP_RUN = "stop_run"  # 401, 402, 407, 501: no other request can succeed either
    REFUSE = "refuse"  # 403, 404, 405: one of these two; only other rows can tell which
    SLOW_DOWN = "slow_down"  # 429: handled by the limiter, uses up none of the row's attempts
    RETRY = "retry"  # 408, 409, 5xx, broken connections and bodies, time-outs


class BillingStatus(StrEnum):
    """Whether a failed attempt was billed, as far as known."""

    NO = "no"  # not sent, or the endpoint reported its failure
    UNKNOWN = "unknown"  # may have been billed: its reservation is kept as uncertain spend


class RateLimits(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Values of a response's rate-limit headers; None for a missing header.

    Limits are per minute. `reset_requests` and `reset_tokens` are seconds from now.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


CacheLifetime = Literal["5m", "1h"]
"""How long a server caches a part of a prompt for later requests."""


class CacheUsage(NamedTuple):
    """Input tokens that a server has read from its prompt cache, and written to it.

    `write_5m` and `write_1h` are the parts of `write` whose lifetime the response states.
    """

    read: int = 0
    write: int = 0
    write_5m: int = 0
    write_1h: int = 0

    def plus(self, other: "CacheUsage") -> "CacheUsage":
        return CacheUsage(*(a + b for a, b in zip(self, other, strict=True))) if any(other) else self


NO_CACHE = CacheUsage()

TRUNCATING = ("max_tokens", "model_context_window_exceeded")


class Completion(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A response's content, decoded once. `text` is None if the request failed permanently.

    `cache` has parts of the response's input tokens. `run` is the journal's number for the run that sent the
    request, `cap` the request's max_tokens, if known.
    """

    text: str | None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    run: int = 0
    cap: int | None = None
    cache: CacheUsage = NO_CACHE


NO_TEXT = Completion("")


class Response(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A whole message, as received.

    `body` is the message as JSON, in one piece even if it was streamed, and `completion` its decoded content.
    Token counts include cache reads and cache writes; they are None if not stated, or stated as impossible
    zeros. `cost_nano_usd` (10^-9 USD), `credits_used` and `remaining_credits` are None if the endpoint didn't
    state them. Times are in seconds.
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
    completion: Completion = NO_TEXT


WORKER_LOST = "worker_lost"
"""The code of a request whose worker was lost before it told its end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    `code` is a short word for tables and counts ("timeout", "rate_limit_error", "http_502"),
    `message` a sentence for a person, without prompts or keys. `retry_after` is the wait that the endpoint
    named, in seconds. `told_not_to_retry`: it has said that this request can't succeed later either.
    """

    code: str
    message: str
    action: FailureAction
    billing: BillingStatus
    status: int | None = None
    retry_after: float | None = None
    latency: float = 0.0
    limits: RateLimits | None = None
    told_not_to_retry: bool = False
