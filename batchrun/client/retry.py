"""Decides what a failed attempt calls for, as a value, and how long to wait before a retry. No I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_random_exponential

from batchrun.client.error_body import ErrorBody, read_error_body, sanitize, shortened, usable_code
from batchrun.client.error_words import named_status, says_body_was_cut, speaks_of_the_account
from batchrun.client.headers import retry_after, should_retry
from batchrun.client.messages.message import AnswerTooLargeError, MessageError
from batchrun.client.redaction import NOTHING, Private
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits

# No other request can succeed either: wrong key, no credits, a proxy's log-in, a server without the method,
# with another HTTP version or with a required upgrade, a network that requires a log-in.
_STOPS_RUN = frozenset((401, 402, 407, 426, 501, 505, 511))
# Wrong permission, address or request format; or a firewall that rejects one prompt, or one row's model.
_REFUSES = frozenset((403, 404, 405, 406, 410, 411, 415, 421, 451))
_TRANSIENT_4XX = frozenset((408, 409, 425))
# Used where a server says that it could not parse the request, which is always valid JSON when sent.
_UNREADABLE_BODY = frozenset((400, 422))
# The endpoint itself says that it failed. Other 5xx come from proxies, which don't know what happened.
_OWN_5XX = frozenset((500, 501, 503, 529))
# A time-out, or a client that the server believed gone: the request may have been processed.
_UNDECIDED_4XX = frozenset((408, 499))
_HINTS = {
    404: "is endpoint.base_url right?",
    405: "is endpoint.base_url right?",
    407: "the proxy that the environment names wants a user and a password in its URL:",
    501: "is endpoint.base_url right?",
    511: "the network wants a log-in first:",
}
_EMPTY = "an empty body"


def classify_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    private: Private = NOTHING,
    latency: float = 0.0,
    limits: RateLimits | None = None,
) -> Failure:
    """Returns the failure for a response whose status is not 2xx.

    `headers` have names in lower case, `now` is in seconds since 1970, `latency` in seconds. Text that is
    `private` is removed from the server's message.
    """
    error = read_error_body(body, private)
    told = should_retry(headers)
    return Failure(
        code=error.code or f"http_{status}",
        message=_refusal_text(status, headers, error, private),
        action=_action(status, error, told),
        billing=_billing(status, error.stated),
        status=status,
        retry_after=retry_after(headers, now),
        latency=latency,
        limits=limits,
        told_not_to_retry=told is False,
    )


def _refusal_text(status: int, headers: Mapping[str, str], error: ErrorBody, private: Private) -> str:
    if 300 <= status < 400:
        target = sanitize(headers.get("location", "an unnamed place"), private)
        return shortened(
            f"redirects to {target}. Redirects are not followed, since the key would go along; "
            "set endpoint.base_url to the final address"
        )
    if status in _HINTS and not error.stated:
        return shortened(f"{_HINTS[status]} {error.message or _EMPTY}")
    return error.message or f"status {status} with {_EMPTY}"


def _action(status: int, error: ErrorBody, told_to_retry: bool | None) -> FailureAction:
    if speaks_of_the_account(status, error):
        return FailureAction.STOP_RUN
    if status in _UNREADABLE_BODY and says_body_was_cut(error):
        return FailureAction.RETRY
    action = _action_by_status(status)
    if told_to_retry is True and 400 <= status < 500 and action is not FailureAction.SLOW_DOWN:
        return FailureAction.RETRY
    return action


def _action_by_status(status: int) -> FailureAction:
    if status in _STOPS_RUN or 300 <= status < 400:
        return FailureAction.STOP_RUN
    if status in _REFUSES:
        return FailureAction.REFUSE
    if status == 429:
        return FailureAction.SLOW_DOWN
    if 400 <= status < 500 and status not in _TRANSIENT_4XX:
        return FailureAction.FAIL_ROW
    return FailureAction.RETRY


def _billing(status: int, stated: bool) -> BillingStatus:
    refused = 300 <= status < 500 and status not in _UNDECIDED_4XX
    failed = status in _OWN_5XX and stated
    return BillingStatus.NO if refused or failed else BillingStatus.UNKNOWN


def never_sent(code: str, message: str, latency: float, *, hopeless: bool = False) -> Failure:
    """Returns the failure of a request of which no byte left. `hopeless`: no later attempt can succeed."""
    action = FailureAction.STOP_RUN if hopeless else FailureAction.RETRY
    return Failure(code, message, action, BillingStatus.NO, latency=latency)


def fate_unknown(code: str, message: str, latency: float) -> Failure:
    """Returns the failure of a request that may have been processed, but got no complete response."""
    return Failure(code, message, FailureAction.RETRY, BillingStatus.UNKNOWN, latency=latency)


def stated_failure(
    error: ErrorBody, status: int, latency: float, limits: RateLimits | None = None, *, begun: bool = False
) -> Failure:
    """Returns the failure for an error that came with a status of success, by the status that it names.

    `begun`: it came within a stream, which may be billed up to there.
    """
    named = named_status(error) or (402 if speaks_of_the_account(400, error) else None)
    action, billing = FailureAction.RETRY, BillingStatus.UNKNOWN
    if named is not None:
        action = _action(named, error, None)
        billing = BillingStatus.UNKNOWN if begun else _billing(named, stated=True)
    if billing is BillingStatus.UNKNOWN and action is FailureAction.SLOW_DOWN:
        action = FailureAction.RETRY  # a request that may have been billed uses up an attempt
    return Failure(
        code=error.code or "error_in_answer",
        message=error.message or "an error came in the place of a message",
        action=action,
        billing=billing,
        status=status,
        latency=latency,
        limits=limits,
    )


def broken_answer(
    error: MessageError,
    status: int,
    latency: float,
    limits: RateLimits | None = None,
    private: Private = NOTHING,
) -> Failure:
    """Returns the failure for a status of success without a complete message, which may well be billed."""
    return Failure(
        code=usable_code(error.code, private) or "broken_answer",
        message=sanitize(str(error), Private(private.key)),
        action=FailureAction.FAIL_ROW if isinstance(error, AnswerTooLargeError) else FailureAction.RETRY,
        billing=BillingStatus.UNKNOWN,
        status=status,
        latency=latency,
        limits=limits,
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, by tenacity's strategies.

    The wait before the n-th repetition is uniform(0, min(max_wait_seconds, 2^(n-1))) seconds: "Full Jitter"
    of the AWS Architecture Blog, "Exponential Backoff And Jitter". It is drawn from Python's `random`, whose
    seed makes it repeatable.
    """

    max_attempts: int = 6
    max_wait_seconds: float = 120.0

    def delay(self, failure: Failure, attempts: int, longest: float = math.inf) -> float | None:
        """Returns the seconds to wait before the row is sent again, or None where it must not be.

        `longest`: a bound on the wait, in seconds, that is lower than `max_wait_seconds`.

        `attempts` counts the row's attempts so far, without those that use up none. None means that they are
        used up, or that waiting can't help. A `retry_after` is a minimum; it may exceed `max_wait_seconds`:
        then the caller ends the run.
        """
        if failure.action in (FailureAction.FAIL_ROW, FailureAction.STOP_RUN):
            return None
        state = RetryCallState(_STRATEGIES_ALONE, None, (), {})
        state.attempt_number = max(1, attempts)
        used_up = attempts > 0 and stop_after_attempt(self.max_attempts)(state)
        if failure.action is FailureAction.RETRY and used_up:
            return None
        wait = wait_random_exponential(max=min(longest, self.max_wait_seconds))(state)
        return max(wait, failure.retry_after or 0.0)


# tenacity's strategies need a retry loop's state. This one never runs: the scheduler keeps waiting rows.
_STRATEGIES_ALONE = Retrying()
