"""Interprets the words of an error, where its status does not tell. No I/O.

The words come from the public APIs: Anthropic's error types, OpenAI's codes, and the messages of both, of
gateways (LiteLLM, OpenRouter) and of web frameworks.
"""

import re
from http import HTTPStatus

from batchrun.client.error_body import ErrorBody

_STATUS_BY_WORD = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_parameter": 400,
    "bad_request": 400,
    "bad_request_error": 400,
    "validation_error": 400,
    "context_length_exceeded": 400,
    "content_flagged": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "string_above_max_length": 400,
    "unprocessable_entity": 422,
    "unprocessable_entity_error": 422,
    "request_too_large": 413,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "invalid_key": 401,
    "unauthorized": 401,
    "billing_error": 402,
    "payment_required": 402,
    "insufficient_quota": 402,
    "insufficient_credits": 402,
    "insufficient_balance": 402,
    "billing_hard_limit_reached": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "permission_denied_error": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "conflict_error": 409,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    "unavailable": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
    "overloaded": 529,
}
# Waiting doesn't restore the quota, whatever the status.
_ACCOUNT_STATUSES = frozenset((402,))

# "billing" and the like as a word in a sentence, and not as a field's name: `metadata.billing`.
_ACCOUNT_WORDS = re.compile(
    r"""
    \bcredit\ balance\b
    | \b(?:insufficient|not\ enough|no\ (?:more|remaining)|out\ of|used\ all(?:\ \w+)?|exhausted)\ (?:\w+\ )?
      (?:credits?|balance|funds|quota)\b
    | \b(?:balance|credits?|funds|quota)\ (?:\w+\ ){0,2}
      (?:insufficient|exhausted|depleted|too\ low|exceeded|used\ up)\b
    | \bexceeded\ (?:your|the)\ (?:\w+\ ){0,2}quota\b
    | \b(?:usage|spend|spending|billing)\ (?:\w+\ )?limits?\b
    | (?<![\w.`'"\[])billing(?![\w`'"\]]|\.\w|:)
    | \bpayment\ (?:is\ )?(?:required|method|overdue|failed)\b
    | \b(?:account|organi[sz]ation|workspace)\ (?:\w+\ ){0,3}
      (?:disabled|suspended|deactivated|restricted|overdue)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CUT_BODY_WORDS = re.compile(
    r"""
    \bunexpected\ (?:end\b|eof\b) | \beof\ while\ parsing\b | \bunterminated\ string\b
    | \bpremature(?:ly)?\ end | \bjson\ decode\ error\b
    | \bexpecting\ (?:value|'|property\ name).*\bchar\b
    | \b(?:could\ not|couldn't|can\ ?not|can't|unable\ to|failed\ to|error)\ (?:\w+\ )?
      (?:pars(?:e|ing)|decod(?:e|ing)|read(?:ing)?)\ (?:\w+\ ){0,3}(?:json|body)\b
    | \b(?:invalid|malformed|truncated|incomplete)\ json\b(?!\ (?:schema|payload))
    | \bbody\ (?:\w+\ ){0,2}(?:truncated|incomplete|cut\ off|not\ valid\ json)\b
    | \b(?:truncated|incomplete)\ (?:request\ )?body\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def named_status(error: ErrorBody) -> int | None:
    """Returns the status that an error names, by its number or its word; None without one."""
    if error.status is not None:
        return error.status
    statuses = (_STATUS_BY_WORD.get(word.lower()) for word in error.words)
    return next((status for status in statuses if status is not None), None)


def speaks_of_the_account(status: int, error: ErrorBody) -> bool:
    """Whether an error concerns the account: credits, quota, billing. Then it isn't the row's fault.

    For a 429, only its code tells: sentences about a "quota" may mean the rate.
    """
    if any(_STATUS_BY_WORD.get(word.lower()) in _ACCOUNT_STATUSES for word in error.words):
        return True
    by_sentence = 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
    return by_sentence and bool(_ACCOUNT_WORDS.search(error.message))


def says_body_was_cut(error: ErrorBody) -> bool:
    """Whether the server could not parse the request's body, which was complete JSON when it was sent."""
    return bool(_CUT_BODY_WORDS.search(error.message))
