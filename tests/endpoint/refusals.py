"""What servers refuse with, and whose fault that is. A new case is a line in `REFUSALS`.

A case is a status line, header lines that end in CRLF, a body, and what the attempt comes to: its action, and
what is known about the charge.
"""

from dataclasses import dataclass

from batchrun.exchange import BillingStatus, FailureAction

ROW, RUN, OTHERS = FailureAction.FAIL_ROW, FailureAction.STOP_RUN, FailureAction.REFUSE
SLOW, RETRY = FailureAction.SLOW_DOWN, FailureAction.RETRY
NO, UNKNOWN = BillingStatus.NO, BillingStatus.UNKNOWN


@dataclass(frozen=True)
class Refusal:
    name: str
    status: bytes
    body: bytes
    action: FailureAction
    billing: BillingStatus = NO
    headers: bytes = b""


def error(kind: str, message: str = "said so") -> bytes:
    return f'{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}'.encode()


PAGE = b"<html><head><title>Forbidden</title></head><body>blocked</body></html>"
JSON_CUT = error("invalid_request_error", "Unexpected end of JSON input")
NOT_TO_RETRY = b"x-should-retry: false\r\n"

REFUSALS = [
    Refusal("a wrong request", b"400 Bad Request", error("invalid_request_error"), ROW),
    Refusal("no credit", b"400 Bad Request", error("x", "Your credit balance is too low"), RUN),
    Refusal("a usage limit", b"400 Bad Request", error("x", "You have reached your usage limit"), RUN),
    Refusal("a body cut in transit", b"400 Bad Request", JSON_CUT, RETRY),
    Refusal("a wrong key", b"401 Unauthorized", error("authentication_error"), RUN),
    Refusal("not paid", b"402 Payment Required", error("billing_error"), RUN),
    Refusal("a firewall", b"403 Forbidden", PAGE, OTHERS),
    Refusal("a missing model", b"404 Not Found", error("not_found_error"), OTHERS),
    Refusal("a wrong method", b"405 Method Not Allowed", b"", OTHERS),
    Refusal("a proxy's login", b"407 Proxy Authentication Required", b"", RUN),
    Refusal("too early", b"425 Too Early", b"", RETRY),
    Refusal("a rate limit", b"429 Too Many Requests", error("rate_limit_error"), SLOW),
    Refusal(
        "a limit not to retry", b"429 Too Many Requests", error("rate_limit_error"), SLOW, NO, NOT_TO_RETRY
    ),
    Refusal("an error of its own", b"500 Internal Server Error", error("api_error"), RETRY),
    Refusal("not implemented", b"501 Not Implemented", error("x"), RUN),
    Refusal("a gateway's", b"502 Bad Gateway", PAGE, RETRY, UNKNOWN),
    Refusal("down, not to retry", b"503 Service Unavailable", error("x"), RETRY, NO, NOT_TO_RETRY),
    Refusal("overloaded", b"529 Overloaded", error("overloaded_error"), RETRY),
    Refusal("200: a wrong key", b"200 OK", error("authentication_error"), RUN),
    Refusal("200: billing", b"200 OK", error("billing_error"), RUN),
    Refusal("200: a wrong request", b"200 OK", error("invalid_request_error"), ROW),
    Refusal("200: a rate limit", b"200 OK", error("rate_limit_error"), SLOW),
    Refusal("200: overloaded", b"200 OK", error("overloaded_error"), RETRY),
]
