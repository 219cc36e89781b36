"""The provider's side of `POST /v1/messages`: decides what is answered and charged, and does no I/O."""

import hashlib
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache

from batchrun.sandbox import faults, wire
from batchrun.sandbox.bill import NO_CHARGE, Arrival, Bill, Charge, charge_for
from batchrun.sandbox.errors import Rejection, invalid_request
from batchrun.sandbox.faults import FaultDraw
from batchrun.sandbox.limits import Limits, UsageWindow, limit_headers
from batchrun.sandbox.payload import Prompt, parse_prompt
from batchrun.sandbox.prompt_cache import NO_CACHE, CacheUse, PromptCache
from batchrun.sandbox.replies import Repetitions, load_replies, reply_text, scripted_fault
from batchrun.sandbox.settings import KNOWN_MODELS, Settings

Headers = list[tuple[bytes, bytes]]

NO_STATUS = 0
"""In the bill: the connection ended before a status line."""

_JSON: Headers = [(b"content-type", b"application/json")]
_EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
_PROXY_PAGE = b"<html><head><title>One moment, please</title></head><body>Checking.</body></html>\n"


def _rate_limited(message: str, retry_after: float | None) -> Rejection:
    return Rejection(429, "rate_limit_error", "rate_limit_exceeded", message, retry_after)


_FRONT_ERRORS = {
    faults.RATE_LIMITED: _rate_limited("injected fault", 1),
    faults.SERVER_ERROR: Rejection(500, "api_error", "internal_error", "injected fault"),
    faults.OVERLOADED: Rejection(529, "overloaded_error", "overloaded", "injected fault"),
    faults.FORBIDDEN: Rejection(403, "permission_error", "forbidden", "injected fault"),
    faults.NO_CREDIT: Rejection(
        400, "invalid_request_error", "invalid_request", "Your credit balance is too low (injected fault)"
    ),
    faults.NO_RETRY: Rejection(503, "api_error", "unavailable", "injected fault"),
    faults.ERROR_IN_ANSWER: Rejection(200, "overloaded_error", "overloaded", "injected fault"),
}


@dataclass(frozen=True, slots=True)
class Stream:
    """The parts of a streamed answer, as bytes to be sent."""

    opening: bytes
    deltas: list[wire.Delta]
    closing: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What is to be sent: `body`, or `stream` where there is one. `delay`: seconds before the headers.

    `fault` is the kind of fault that the sending has to bring about.
    """

    status: int
    headers: Headers
    body: bytes = b""
    stream: Stream | None = None
    delay: float = 0.0
    fault: str | None = None


@dataclass(slots=True)
class Account:
    """One key's balance (None: not kept), what it used lately, and its cache of prompts."""

    balance: int | None
    is_free_tier: bool
    window: UsageWindow
    cache: PromptCache = field(default_factory=PromptCache)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that is in order: what is left is to make the answer and to charge for it."""

    arrival: Arrival
    account: Account
    prompt: Prompt
    fault: str | None


class Provider:
    """All state of a sandbox. `limits` and `fault_draw.shares` may be changed while it runs.

    `open_requests` counts those that have arrived and whose response isn't sent; the server keeps it.
    `receive` and `answer` are the two halves of a request: a real model takes its time between them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = Limits(settings.rpm, settings.tpm)
        self.fault_draw = FaultDraw(settings.faults, settings.seed)
        self.bill = Bill(settings.bill_requests)
        self.open_requests = 0
        self._models = None if settings.real else dict.fromkeys((*KNOWN_MODELS, *settings.models))
        # A model on this machine serves its own user: no key is needed unless some are named.
        self._open = settings.real and not settings.keys
        self._random_refusal = _rate_limited("injected fault", settings.retry_after or None)
        self._replies = load_replies(settings.replies) if settings.replies else []
        self._repetitions = Repetitions(settings.bill_requests)
        self._latency = random.Random(f"latency {settings.seed}")  # noqa: S311 - repeatable on purpose
        self._accounts: dict[str | None, Account] = {}
        self._starting_credits = settings.credits
        self._free_tier_used = False
        self._arrivals = 0

    def set_credits(self, balance: int | None) -> None:
        """Gives every key this balance, future keys too; None: no balance is kept."""
        self._starting_credits = balance
        for account in self._accounts.values():
            account.balance = balance

    def respond(self, headers: Mapping[bytes, bytes], body: bytes | None) -> Response:
        """Returns the scripted or drawn response to a request, already in the bill. `body`: see `receive`."""
        accepted = self.receive(headers, body)
        if isinstance(accepted, Response):
            return accepted
        return self.answer(accepted, self._completion(accepted.prompt))

    def receive(self, headers: Mapping[bytes, bytes], body: bytes | None) -> Accepted | Response:
        """Checks one arriving request: a Response is its refusal, already entered in the bill.

        `body` is None where it was too large.
        """
        self._arrivals += 1
        key = _presented_key(headers)
        digest = None if body is None else hashlib.sha256(body).digest()
        arrival = Arrival(self._arrivals, _key_label(key), digest, time.time())
        fault = self.fault_draw.draw()
        if fault in faults.UNBILLED_KINDS and fault != faults.RATE_LIMITED_AT_RANDOM:
            return self._fail_in_front(arrival, fault)
        account = None
        try:
            account = self._account(key, headers.get(b"x-free-tier"))
            if fault == faults.RATE_LIMITED_AT_RANDOM:
                return self._reject(arrival, account, self._random_refusal, fault)
            self._check_concurrency()
            prompt = parse_prompt(self._readable(body), self._models)
            fault = fault or scripted_fault(self._replies, prompt.system, prompt.turns[-1].text)
            if fault in faults.UNBILLED_KINDS:
                return self._fail_in_front(arrival, fault)
            return Accepted(arrival, account, prompt, fault)
        except Rejection as rejection:
            return self._reject(arrival, account, rejection)

    def _check_concurrency(self) -> None:
        most = self.settings.concurrency
        if most is not None and self.open_requests > most:
            raise _rate_limited(f"over the limit of {most} requests at a time", None)

    def _readable(self, body: bytes | None) -> bytes:
        if body is None:
            message = f"the body is larger than {self.settings.max_body_bytes} bytes"
            raise Rejection(413, "request_too_large", "request_too_large", message)
        return body

    def _account(self, key: str | None, free_tier: bytes | None) -> Account:
        if free_tier not in (None, b"true"):
            raise invalid_request("X-Free-Tier: the only value is true")
        if key is None and free_tier:
            if self._free_tier_used:
                raise _unauthorized("the free request is used up; send an API key", "free_tier_used")
            return self._new_account(None, is_free_tier=True)
        if key is None and not self._open:
            raise _unauthorized("no API key; send the header Authorization: Bearer <key>", "missing_api_key")
        if self.settings.keys and key not in self.settings.keys:
            raise _unauthorized("the API key is not known", "invalid_api_key")
        if key not in self._accounts:
            self._accounts[key] = self._new_account(self._starting_credits)
        return self._accounts[key]

    def _new_account(self, balance: int | None, *, is_free_tier: bool = False) -> Account:
        return Account(balance, is_free_tier, UsageWindow(self.settings.limit_window))

    def check_admission(self, accepted: Accepted) -> None:
        """Raises Rejection where credits or rate don't allow an answer of a single token; takes neither."""
        charge = charge_for(accepted.prompt.input_tokens, 1)
        self._check_balance(accepted.account, charge)
        if self.limits.are_set:
            self._check_rate(accepted.account.window, charge.input_tokens + charge.output_tokens)

    def answer(self, accepted: Accepted, completion: wire.Completion) -> Response:
        """Returns the response with this completion, admitted, charged and entered in the bill."""
        try:
            return self._answer(accepted, completion)
        except Rejection as rejection:
            return self.reject(accepted, rejection)

    def _answer(self, accepted: Accepted, completion: wire.Completion) -> Response:
        account, prompt = accepted.account, accepted.prompt
        fault = None if accepted.fault == faults.STREAM_ERROR and not prompt.stream else accepted.fault
        if fault == faults.STREAM_ERROR:
            # Only what is streamed before the error is generated, counted and charged.
            half = max(1, completion.output_tokens // 2)
            completion = wire.complete(completion.text, half, ())
        cache = account.cache.look_up(prompt.cache_marks, time.monotonic()) if prompt.cache_marks else None
        charge = charge_for(prompt.input_tokens, completion.output_tokens, cache or NO_CACHE)
        self._admit(account, charge)
        if account.is_free_tier:
            charge = NO_CHARGE
        status = NO_STATUS if fault in (faults.RESET_AFTER, faults.HANG) else 200
        self.bill.record(accepted.arrival, status, charge, fault)
        response = self._message(accepted.arrival, account, prompt, completion, charge, cache, fault)
        now = time.monotonic()
        account.cache.keep(prompt.cache_marks, now, begins=now + response.delay)
        return response

    def reject(self, accepted: Accepted, rejection: Rejection) -> Response:
        """Returns the refusal of a valid request, entered in the bill."""
        return self._reject(accepted.arrival, accepted.account, rejection)

    def abandon(self, accepted: Accepted) -> None:
        """Enters in the bill that the client disconnected before anything was generated."""
        self.bill.record(accepted.arrival, NO_STATUS, NO_CHARGE, None)

    def max_tokens(self, prompt: Prompt) -> int:
        """The most tokens that the answer to `prompt` may have."""
        return prompt.max_tokens or self.settings.default_max_tokens

    def _completion(self, prompt: Prompt) -> wire.Completion:
        draw = self._repetitions.draw(prompt.digest) if prompt.temperature else prompt.digest
        last = prompt.turns[-1].text
        text = reply_text(self._replies, prompt.system, last, draw, self.settings.answers)
        thinking = self.settings.thinking if prompt.thinks else 0
        if thinking:
            return wire.complete_after_thinking(
                text, thinking, self.max_tokens(prompt), prompt.stop_sequences
            )
        return wire.complete(text, self.max_tokens(prompt), prompt.stop_sequences)

    def _admit(self, account: Account, charge: Charge) -> None:
        """Takes credits and rate for one request, or raises Rejection and takes neither."""
        self._check_balance(account, charge)
        if self.limits.are_set:
            tokens = charge.input_tokens + charge.output_tokens
            account.window.grant(self._check_rate(account.window, tokens), tokens)
        if account.balance is not None:
            account.balance -= charge.credits
        if account.is_free_tier:
            self._free_tier_used = True

    def _check_balance(self, account: Account, charge: Charge) -> None:
        if account.balance is not None and account.balance < charge.credits:
            raise Rejection(
                402,
                "billing_error",
                "insufficient_credits",
                f"the request takes {charge.credits} credits and {account.balance} are left; top up",
            )

    def _check_rate(self, window: UsageWindow, tokens: int) -> float:
        """The instant (of the monotonic clock) at which `tokens` tokens fit; raises Rejection if not now."""
        limits = self.limits
        most = window.most_tokens(limits)
        if most is not None and tokens > most:
            seconds = self.settings.limit_window
            raise invalid_request(
                f"the request takes {tokens} tokens, and {most} are allowed in {seconds:g} seconds",
                "tokens_over_limit",
            )
        now = time.monotonic()
        seconds = window.wait(limits, now, tokens)
        if seconds > 0:
            raise _rate_limited(f"over the limit of {_limits_text(limits)} a minute", math.ceil(seconds))
        return now

    def _message(
        self,
        arrival: Arrival,
        account: Account,
        prompt: Prompt,
        completion: wire.Completion,
        charge: Charge,
        cache: CacheUse | None,
        fault: str | None,
    ) -> Response:
        cost, usage = self._cost_fields(account, charge), wire.input_usage(prompt.input_tokens, cache)
        headers = [*self._common_headers(arrival, account)]
        delay = self._draw_latency() + (self.settings.slow_seconds if fault == faults.SLOW_HEADERS else 0)
        if prompt.stream:
            stream = Stream(
                wire.opening_events(
                    arrival.id,
                    prompt.model,
                    usage,
                    "thinking" if completion.thinking else "text",
                ),
                list(wire.delta_events(completion)),
                wire.error_event("overloaded_error", "overloaded", "injected fault")
                if fault == faults.STREAM_ERROR
                else wire.closing_events(completion, usage, cost),
            )
            return Response(200, _EVENT_STREAM + headers, stream=stream, delay=delay, fault=fault)
        delay += self.settings.first_token + generation_seconds(completion.output_tokens, self.settings)
        body = wire.message_body(arrival.id, prompt.model, completion, usage, cost)
        return Response(200, _JSON + headers, body, delay=delay, fault=fault)

    def _cost_fields(self, account: Account, charge: Charge) -> wire.CostFields:
        if self.settings.cost_fields == "absent":
            return {}
        cost = wire.cost_fields(account.balance, charge.credits, charge.nano_usd)
        return dict.fromkeys(cost) if self.settings.cost_fields == "null" else cost

    def _draw_latency(self) -> float:
        """Log-normal: the median times e to the power of a normal draw with deviation sigma."""
        settings = self.settings
        if not settings.latency or not settings.latency_sigma:
            return settings.latency
        return settings.latency * math.exp(self._latency.gauss(0, settings.latency_sigma))

    def _fail_in_front(self, arrival: Arrival, fault: str) -> Response:
        if fault in _FRONT_ERRORS:
            return self._reject(arrival, None, _FRONT_ERRORS[fault], fault)
        self.bill.record(arrival, 200 if fault == faults.HTML else NO_STATUS, NO_CHARGE, fault)
        return Response(200, [(b"content-type", b"text/html")], _PROXY_PAGE, fault=fault)

    def _reject(
        self, arrival: Arrival, account: Account | None, rejection: Rejection, fault: str | None = None
    ) -> Response:
        self.bill.record(arrival, rejection.status, NO_CHARGE, fault)
        headers = _JSON + self._common_headers(arrival, account)
        if rejection.retry_after is not None:
            headers.append((b"retry-after", self._retry_after(rejection.retry_after)))
        if fault == faults.NO_RETRY:
            headers.append((b"x-should-retry", b"false"))
        body = wire.error_body(rejection.error_type, rejection.code, rejection.message)
        return Response(rejection.status, headers, body)

    def _retry_after(self, seconds: float) -> bytes:
        if not self.settings.retry_after_date:
            return f"{seconds:.10g}".encode()
        # A date has whole seconds: rounded up, so that a client that waits for it isn't early.
        return formatdate(math.ceil(time.time() + seconds), usegmt=True).encode()

    def _common_headers(self, arrival: Arrival, account: Account | None) -> Headers:
        headers: Headers = [(b"request-id", arrival.id.replace("msg", "req").encode())]
        if account and self.limits.are_set and self.settings.limit_headers:
            headers += limit_headers(account.window, self.limits, time.monotonic(), time.time())
        return headers


def generation_seconds(tokens: int, settings: Settings) -> float:
    """How long the generation of that many tokens takes."""
    return tokens / settings.tokens_per_second if settings.tokens_per_second else 0.0


def _presented_key(headers: Mapping[bytes, bytes]) -> str | None:
    authorization = headers.get(b"authorization")
    if authorization is None:
        key = headers.get(b"x-api-key", b"")
    else:
        scheme, _, key = authorization.partition(b" ")
        key = key if scheme.lower() == b"bearer" else b""
    return key.strip().decode("latin-1") or None


@lru_cache(maxsize=1024)
def _key_label(key: str | None) -> str:
    """What the bill calls a key: keys are secrets and are never shown."""
    return "no key" if key is None else "key_" + hashlib.sha256(key.encode()).hexdigest()[:12]


def _unauthorized(message: str, code: str) -> Rejection:
    return Rejection(401, "authentication_error", code, message)


def _limits_text(limits: Limits) -> str:
    amounts = ((limits.rpm, "requests"), (limits.tpm, "tokens"))
    return " and ".join(f"{amount} {name}" for amount, name in amounts if amount is not None)
