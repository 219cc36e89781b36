"""The virtual network and provider: what is billed and when, and what arrives of it."""

import heapq
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchrun.amounts import NOTHING, Amount
from batchrun.client.wire import ConnectionMemory, Headers, Interruption
from batchrun.engine.accounting import ActiveRequest
from proofs.simulation.draw import Draw

NANO_USD_PER_TOKEN = 5_000
CREDITS_PER_TOKEN = 1
TIMEOUT = 30.0
LATEST = 120.0
"""Seconds after a request's arrival at which the provider may still bill it."""

FAULTS = (
    "lost answer", "reset after billing", "reset before billing", "late answer", "rate limit", "overloaded",
    "proxy error", "cut answer", "doubled answer", "never sent", "bad request", "bare answer", "forbidden",
    "unauthorized",
)  # fmt: skip
_RESET = Interruption("connection_lost", "reset")
_UNBILLED = {
    "never sent": Interruption("connect_failed", "refused", sent=False),
    "reset before billing": _RESET,
}
_REFUSALS = {
    "rate limit": (429, "rate_limit_error"),
    "overloaded": (529, "overloaded_error"),
    "bad request": (400, "invalid_request_error"),
    "forbidden": (403, "permission_error"),
    "unauthorized": (401, "authentication_error"),
}
_BALANCE = 10**12 + 1
"""Stands in a response for the account's balance after its charge, until that is made."""
_TEXTS = ("yes", "no", "Perhaps.", "")


@dataclass(slots=True)
class Connection:
    """`leftover` is a second copy of the response to `request`, which comes before the next response."""

    memory: ConnectionMemory = field(default_factory=ConnectionMemory)
    request: bytes = b""
    leftover: bytes | None = None


class Arrival(NamedTuple):
    """What reaches the client for an attempt: a response, or an interruption. Times are seconds."""

    at: float
    attempt: int
    connection: Connection
    status: int | None = None
    headers: Headers = []  # noqa: RUF012  # never changed
    body: bytes = b""
    interruption: Interruption | None = None


class Charge(NamedTuple):
    """`exact`: the response states all that it costs."""

    at: float
    attempt: int
    amount: Amount
    exact: bool


class Provider:
    """`billed` has every charge by its attempt, `balance_after` the account's balance after it; `balance` is
    None where responses don't state it. `faults_left` bounds the trouble of one history.
    """

    def __init__(self, draw: Draw, balance: int | None) -> None:
        self._draw = draw
        self.balance = balance
        self.faults_left = draw.below(13)
        self.billed: dict[int, Charge] = {}
        self._charges: list[Charge] = []
        self.balance_after: dict[int, int] = {}
        self._arrivals: dict[int, Arrival] = {}
        self._idle: list[Connection] = []

    # The provider.

    def bill_until(self, now: float) -> None:
        while self._charges and self._charges[0].at <= now:
            charge = heapq.heappop(self._charges)
            self.billed[charge.attempt] = charge
            if self.balance is not None:
                self.balance -= charge.amount.credits
                self.balance_after[charge.attempt] = self.balance

    def take(self, active: ActiveRequest, now: float) -> str:
        """Takes a request from the wire; returns its fate."""
        connection = self._idle.pop() if self._idle else Connection()
        fate = "answered"
        if self.faults_left and self._draw.one_in(2):
            self.faults_left -= 1
            fate = self._draw.of(FAULTS)
        if connection.request == active.request.body:
            connection.leftover = None  # nothing tells it from the response to the same request
        elif connection.leftover is not None:
            fate = "misplaced answer"
        connection.request = active.request.body
        latency = 0.05 + self._draw.up_to(2.0)
        self._arrivals[active.attempt] = self._arrival(fate, active, connection, now, latency)
        return fate

    def _arrival(
        self, fate: str, active: ActiveRequest, connection: Connection, now: float, latency: float
    ) -> Arrival:
        arrival = Arrival(now + latency, active.attempt, connection)
        if fate in _REFUSALS:
            return self._refusal(fate, arrival)
        if fate in _UNBILLED:
            return arrival._replace(interruption=_UNBILLED[fate])
        late = fate in ("late answer", "proxy error")
        billed_at = now + (self._draw.up_to(LATEST) if late else latency / 2)
        charge, body = self._answer(active, billed_at, bare=fate == "bare answer")
        heapq.heappush(self._charges, charge)
        return self._answered(fate, arrival, body, now)

    def _answered(self, fate: str, arrival: Arrival, body: bytes, now: float) -> Arrival:
        """Returns what arrives of a billed answer."""
        connection = arrival.connection
        match fate:
            case "lost answer" | "late answer":
                return arrival._replace(at=now + TIMEOUT, interruption=Interruption("timeout"))
            case "reset after billing":
                return arrival._replace(interruption=_RESET)
            case "proxy error":
                return arrival._replace(status=502, body=b"<html>Bad gateway</html>")
            case "cut answer":
                half = body[: 1 + self._draw.below(len(body) - 1)]
                return arrival._replace(status=200, body=half, interruption=_RESET)
            case "misplaced answer" if connection.leftover is not None:
                body, connection.leftover = connection.leftover, None
            case "doubled answer":
                connection.leftover = body
        return arrival._replace(status=200, body=body)

    def _refusal(self, fate: str, arrival: Arrival) -> Arrival:
        status, kind = _REFUSALS[fate]
        said = {"type": "error", "error": {"type": kind, "message": f"simulated: {fate}"}}
        wait = self._draw.below(10)
        headers = [(b"retry-after", str(wait).encode())] if wait else []
        return arrival._replace(status=status, headers=headers, body=json.dumps(said).encode())

    def _answer(self, active: ActiveRequest, billed_at: float, *, bare: bool) -> tuple[Charge, bytes]:
        """Returns the charge, of at most the request's bounds, and the message. A bare one states no cost."""
        request, draw = active.request, self._draw
        most_out = active.output_bound
        read = request.input_bound - draw.below(request.input_bound)
        written = most_out - draw.below(most_out)
        text = _TEXTS[(0, 0, 0, 0, 1, 1, 2, 3)[draw.below(8)]] if self.faults_left else "yes"
        tokens = read + written
        amount = Amount(tokens * NANO_USD_PER_TOKEN, tokens * CREDITS_PER_TOKEN, tokens)
        message: dict[str, Any] = {
            "id": f"msg_{active.attempt}",
            "type": "message",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "max_tokens" if self.faults_left and draw.one_in(5) else "end_turn",
        }
        if not bare:
            message["usage"] = {"input_tokens": read, "output_tokens": written}
            message["estimated_credits_used"] = amount.credits
            if draw.below(2):
                message["estimated_cost_usd"] = amount.nano_usd / 10**9
            if self.balance is not None:
                message["remaining_credits"] = _BALANCE
        return Charge(billed_at, active.attempt, amount, not bare), json.dumps(message).encode()

    # The network.

    @property
    def next_arrival(self) -> float:
        return min((arrival.at for arrival in self._arrivals.values()), default=float("inf"))

    def arrived(self, now: float) -> list[Arrival]:
        """Returns what has arrived by now, in the order of arrival."""
        due = sorted((each for each in self._arrivals.values() if each.at <= now), key=lambda each: each.at)
        return [each._replace(body=self._with_balance(each)) for each in due]

    def _with_balance(self, arrival: Arrival) -> bytes:
        balance = self.balance_after.get(arrival.attempt, self.balance)
        return arrival.body.replace(str(_BALANCE).encode(), str(balance).encode())

    def delivered(self, arrival: Arrival, *, trusted: bool) -> None:
        """Removes an arrival; a connection that can't be trusted is closed."""
        del self._arrivals[arrival.attempt]
        if trusted and arrival.interruption is None:
            self._idle.append(arrival.connection)

    def forget_client(self) -> None:
        """Ends all connections with their process. What was taken is still billed."""
        self._arrivals.clear()
        self._idle.clear()

    @property
    def owed(self) -> Amount:
        """All that is billed so far."""
        total = NOTHING
        for charge in self.billed.values():
            total = total.plus(charge.amount)
        return total
