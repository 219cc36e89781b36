"""Limits per minute from the job or from headers, on requests and on tokens.

Each limit is kept twice. A GCRA spreads it evenly over the minute; an exact window ensures that no 60 seconds
hold more than it. Tokens are paced by the requests' expected use, and bounded by a total that the requests in
flight will hardly exceed. Only the first in line is considered: a large request isn't overtaken.

Of the headers only the limits count, not the remaining amounts or reset times: the run's own count shows the
same sooner, and providers mean different things by them. But where these contradict a limit per minute
plainly, `stated_window` has the shorter window.

Times are seconds, given by the caller.
"""

import math
from dataclasses import dataclass
from typing import Literal

from batchrun.engine.limits.gcra import Gcra
from batchrun.engine.limits.sliding_window import MINUTE, Bucket, SendLog
from batchrun.engine.limits.stated_window import StatedWindow
from batchrun.engine.limits.token_estimate import TokenEstimate
from batchrun.exchange import RateLimits

REQUESTS_CATCH_UP = 0.1
"""Seconds of the pace that may be caught up after a late wake-up."""
TOKENS_CATCH_UP = 2.0
"""The same for tokens: also catches up what the window held back because of too high an estimate."""

SPREAD = 60.25
"""Seconds over which a minute's limit is spread: a little longer than the window that guards it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace for display. `requests_per_minute` is None without a bound, `tokens_per_minute` without a
    known limit; `source` is the source of the former. `paused_until` may have passed. `in_flight` is the
    server's bound on concurrent requests, None if none was found.
    """

    requests_per_minute: float | None
    source: Literal["given", "headers", "search"]
    tokens_per_minute: int | None
    paused_until: float
    in_flight: int | None = None


class KnownLimit:
    """One limit per minute: `given` by the job, `stated` by headers; the lower one counts."""

    def __init__(self, given: int | None, catch_up: float) -> None:
        self.given = given
        self.stated: int | None = None
        self.per_minute = given
        self.pace = Gcra(SPREAD / given if given else 0.0, catch_up)

    def state(self, stated: int | None, now: float) -> bool:
        """Takes the limit that a header states; returns whether that changes the limit."""
        if not stated or stated == self.stated:
            return False
        self.stated = stated
        return self._take_lowest(now)

    def give(self, given: int | None, now: float) -> None:
        """Takes another limit than the job's; None: none."""
        self.given = given
        self._take_lowest(now)

    def _take_lowest(self, now: float) -> bool:
        lowest = min(filter(None, (self.stated, self.given)), default=None)
        if lowest == self.per_minute:
            return False
        self.per_minute = lowest
        self.pace = self.pace.at_interval(SPREAD / lowest if lowest else 0.0, now)
        return True


class KnownLimits:
    """The limits of one key, and its requests of the last minute in `sent`."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self.requests = KnownLimit(requests_per_minute, REQUESTS_CATCH_UP)
        self.tokens = KnownLimit(tokens_per_minute, TOKENS_CATCH_UP)
        self.sent = SendLog()
        self._estimate = TokenEstimate()
        self._window = StatedWindow()

    @property
    def requests_per_second(self) -> float:
        """Returns the limit on requests; 0 if there is none."""
        return (self.requests.per_minute or 0) / MINUTE

    def pace(self, searched: float | None, in_flight: int | None, paused_until: float) -> Pace:
        """Returns the pace for display. `searched`: requests a second, `in_flight` a bound that was found."""
        known, tokens = self.requests.per_minute, self.tokens.per_minute
        if known and (searched is None or known <= searched * MINUTE):
            source: Literal["given", "headers"] = "given" if known == self.requests.given else "headers"
            return Pace(known, source, tokens, paused_until, in_flight)
        # A bound that holds the run back leaves the rate to grow: it says nothing then.
        rate = None if searched is None or in_flight is not None else searched * MINUTE
        return Pace(rate, "search", tokens, paused_until, in_flight)

    def delay(self, now: float, worst_tokens: int) -> float:
        """Returns the seconds until a request of at most `worst_tokens` tokens fits; 0 or less: now."""
        if not self.requests.per_minute and not self.tokens.per_minute:
            return -math.inf
        delay = -math.inf
        self.sent.expire(now)
        if self.requests.per_minute:
            delay = max(delay, self._request_delay(now))
        if self.tokens.per_minute:
            delay = max(delay, self.tokens.pace.delay(now), self._token_window(now, worst_tokens))
        return delay

    def admit(self, now: float, worst_tokens: int) -> tuple[float, Bucket]:
        """Counts a request that is sent now; returns what `settle` and `refused` need."""
        if self.requests.per_minute:
            self.requests.pace.admit(now, 1)
        self._window.sent += 1
        paced_tokens = self._estimate.share * worst_tokens
        if self.tokens.per_minute:
            self.tokens.pace.admit(now, paced_tokens)
        return paced_tokens, self.sent.add(now, worst_tokens)

    def learn(self, worst_tokens: int, used_tokens: int) -> None:
        """Takes a response into account for the estimate of tokens."""
        self._estimate.learn(worst_tokens, used_tokens)

    def forget_use(self) -> None:
        """Begins the estimate of tokens again: it may have been too low."""
        self._estimate = TokenEstimate()

    def settle(self, bucket: Bucket, worst_tokens: int, paced_tokens: float, used_tokens: int) -> None:
        """Replaces a request's expected use by its use."""
        self.sent.settle(bucket, worst_tokens, used_tokens)
        if self.tokens.per_minute:
            self.tokens.pace.correct(used_tokens - paced_tokens)

    def refused(self, now: float, bucket: Bucket, worst_tokens: int, paced_tokens: float) -> None:
        """Frees what a refused request took."""
        self.sent.expire(now)
        self.sent.remove(bucket, worst_tokens)
        self.tokens.pace.correct(-paced_tokens)

    def state(self, limits: RateLimits, now: float) -> bool:
        """Takes the limits that headers state; returns whether one of them changes."""
        self._window.see(limits, now)
        per_minute = int((limits.limit_requests or 0) * MINUTE / self._window.seconds)
        new_requests = self.requests.state(per_minute, now)
        new_tokens = self.tokens.state(limits.limit_tokens, now)
        return new_requests or new_tokens

    def give(self, requests: int | None, tokens: int | None, now: float) -> bool:
        """Takes other limits than the job's; returns whether more requests are allowed, or now bounded."""
        former = self.requests.per_minute or 0
        self.requests.give(requests, now)
        self.tokens.give(tokens, now)
        return (self.requests.per_minute or 0) > former

    def _request_delay(self, now: float) -> float:
        delay = max(self.requests.pace.delay(now), self._request_window(now))
        given = self.requests.given
        is_stated = given is None or (self.requests.per_minute != given and self.sent.requests < given)
        return self._window.probe_in(now, delay) if is_stated and delay > 0 else delay

    def _request_window(self, now: float) -> float:
        excess = self.sent.requests + 1 - (self.requests.per_minute or 0)
        return self.sent.delay(now, excess, lambda bucket: bucket.requests)

    def _token_window(self, now: float, worst_tokens: int) -> float:
        """A request larger than the limit is sent once the window is empty: the server has to decide."""
        sent = self.sent
        open_tokens = self._estimate.bound(sent.open_requests + 1, sent.open_tokens + worst_tokens)
        excess = sent.tokens + open_tokens - (self.tokens.per_minute or 0)
        return sent.delay(now, excess, lambda bucket: bucket.tokens + bucket.open_tokens)
