"""What a failed attempt calls for, decided once and kept as a value; and how long to wait then. No I/O."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tenacity import RetryCallState, stop_after_attempt, wait_exponential

from batchrun.exchange import Billed, Failure, RateLimits, Remedy
from batchrun.wire.error_body import ErrorBody, displayable, read_error_body, usable_code
from batchrun.wire.messages import AnswerTooLargeError, MessageError
from batchrun.wire.response_headers import retry_after, should_retry

# No other request can succeed either: wrong key, no credits, no permission, wrong URL.
_STOPS_RUN = frozenset((401, 402, 403, 404, 405))
_TRANSIENT_4XX = frozenset((408, 409))
# A 429 for good: no waiting brings the quota back.
_QUOTA_CODES = frozenset(("insufficient_quota", "insufficient_credits", "billing_hard_limit_reached"))
# The endpoint's own word that it failed. Other 5xx are written by proxies, which don't know what happened.
_OWN_5XX = frozenset((500, 503, 529))
# A time-out or a client that was taken for gone: the request may have been worked on.
_UNDECIDED_4XX = frozenset((408, 499))


def classify_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    url: str,
    now: float,
    key: str | None = None,
    latency: float = 0.0,
    limits: RateLimits | None = None,
) -> Failure:
    """The failure that a response with another status than 2xx stands for.

    `headers` have names in lower case, `now` is in seconds since 1970, `latency` in seconds. `url` is named
    where it may be what is wrong; `key` is cut out of what the server says.
    """
    error = read_error_body(body, key)
    code = error.code or f"http_{status}"
    return Failure(
        code=code,
        message=_refusal_text(status, headers, error, url, key),
        remedy=_remedy(status, code, should_retry(headers)),
        billed=_billed(status, error.stated),
        status=status,
        retry_after=retry_after(headers, now),
        latency=latency,
        limits=limits,
    )


def _refusal_text(
    status: int, headers: Mapping[str, str], error: ErrorBody, url: str, key: str | None
) -> str:
    if 300 <= status < 400:
        target = headers.get("location", "an unnamed place")
        return displayable(
            f"{url} redirects to {target}. Redirects are not followed, since the key would go along; "
            "set endpoint.base_url to the final address",
            key,
        )
    if status in (404, 405) and not error.stated:
        return displayable(f"POST {url} answered {status}; is endpoint.base_url right? {error.message}", key)
    return error.message or f"status {status} with an empty body"


def _remedy(status: int, code: str, told_to_retry: bool | None) -> Remedy:
    if status == 429 and code in _QUOTA_CODES:
        return Remedy.STOP_RUN
    remedy = _remedy_by_status(status)
    if told_to_retry is False and remedy in (Remedy.RETRY, Remedy.SLOW_DOWN):
        return Remedy.FAIL_ROW
    if told_to_retry is True and 400 <= status < 500 and remedy is not Remedy.SLOW_DOWN:
        return Remedy.RETRY
    return remedy


def _remedy_by_status(status: int) -> Remedy:
    if status in _STOPS_RUN or 300 <= status < 400:
        return Remedy.STOP_RUN
    if status == 429:
        return Remedy.SLOW_DOWN
    if 400 <= status < 500 and status not in _TRANSIENT_4XX:
        return Remedy.FAIL_ROW
    return Remedy.RETRY


def _billed(status: int, stated: bool) -> Billed:
    refused = 300 <= status < 500 and status not in _UNDECIDED_4XX
    failed = status in _OWN_5XX and stated
    return Billed.NO if refused or failed else Billed.UNKNOWN


def never_sent(code: str, message: str, latency: float, *, hopeless: bool = False) -> Failure:
    """No byte of the request left this machine. `hopeless` where no later attempt can do better."""
    remedy = Remedy.STOP_RUN if hopeless else Remedy.RETRY
    return Failure(code, message, remedy, Billed.NO, latency=latency)


def fate_unknown(code: str, message: str, latency: float) -> Failure:
    """The request may have arrived and been worked on, but no whole answer came back."""
    return Failure(code, message, Remedy.RETRY, Billed.UNKNOWN, latency=latency)


def broken_answer(
    error: MessageError, status: int, latency: float, limits: RateLimits | None = None, key: str | None = None
) -> Failure:
    """A response with a good status whose body is no whole message: paid for, as likely as not."""
    return Failure(
        code=usable_code(error.code, key) or "broken_answer",
        message=displayable(str(error), key),
        remedy=Remedy.FAIL_ROW if isinstance(error, AnswerTooLargeError) else Remedy.RETRY,
        billed=Billed.UNKNOWN,
        status=status,
        latency=latency,
        limits=limits,
    )


class UniformDraw(Protocol):
    """What of `random.Random` the jitter needs."""

    def uniform(self, a: float, b: float, /) -> float: ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    The wait before the n-th repetition is uniform(0, min(max_wait_seconds, 2^(n-1))) seconds: "Full Jitter"
    of the AWS Architecture Blog, "Exponential Backoff And Jitter". Its bound and the end of the attempts are
    tenacity's `wait_exponential` and `stop_after_attempt`. tenacity's own jitter can't be seeded.
    """

    max_attempts: int = 6
    max_wait_seconds: float = 120.0

    def delay(self, failure: Failure, attempts: int, draw: UniformDraw = random) -> float | None:
        """Seconds to wait before the row is sent again, or None where it must not be.

        `attempts` counts the row's attempts so far, without those that use up none. None means that
        they are used up, or that the failure is no matter of waiting. A `retry_after` is a minimum; it may be
        longer than `max_wait_seconds`: then the caller ends the run.
        """
        if failure.remedy in (Remedy.FAIL_ROW, Remedy.STOP_RUN):
            return None
        state = _state_after(attempts)
        used_up = attempts > 0 and stop_after_attempt(self.max_attempts)(state)
        if failure.remedy is Remedy.RETRY and used_up:
            return None
        bound = wait_exponential(max=self.max_wait_seconds)(state)
        return max(draw.uniform(0.0, bound), failure.retry_after or 0.0)


def _state_after(attempts: int) -> RetryCallState:
    # The strategies read nothing but the number.
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = max(1, attempts)
    return state
