"""The pace of sending: limits that were given or that headers state, and a search where there are none.

Each known limit is kept twice. A GCRA spreads it evenly over the minute; an exact window makes sure that no
60 seconds hold more than it. Tokens are paced by what requests are expected to use, and bounded by what those
that are out will hardly pass. Only the first in line is asked about: a large request isn't overtaken.

Of the headers, limits are used, and neither what remains nor when it resets: the run's own count says the
same sooner, and providers mean different things by them.

Times are seconds of one monotonic clock, given by the caller: nothing here sleeps or reads a clock.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import msgspec

from batchrun.exchange import Billed, Failure, RateLimits, Remedy
from batchrun.limits.gcra import Gcra
from batchrun.limits.rate_search import BETA, FIRST_RATE, STEADY, RateSearch
from batchrun.limits.send_log import MINUTE, Bucket, SendLog
from batchrun.limits.token_estimate import TokenEstimate

SPREAD = 60.25
"""Seconds over which a minute's limit is spread: a little longer than the window that guards it."""
REQUESTS_CATCH_UP = 0.1
"""Seconds of the pace that a late wake-up may make good."""
TOKENS_CATCH_UP = 2.0
"""The same for tokens: it also makes good what the window held back on too high an estimate."""
MEASURED_REQUESTS = 10
"""Requests, or a second of a known limit if that is fewer, that are enough to tell what the server takes."""
LONGEST_OWN_WAIT = 4.0
"""Seconds between two tries at a server that refuses everything and names no wait."""


class Admission(msgspec.Struct, frozen=True, gc=False):
    """One request that was let go. `paced_tokens` is what it was counted at in the pace of tokens."""

    sent_at: float
    epoch: int
    worst_tokens: int
    paced_tokens: float
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Pace:
    """For display. `requests_per_minute` is None where nothing bounds it, `tokens_per_minute` where no limit
    is known; `source` is that of the former. `paused_until` may have passed.
    """

    requests_per_minute: float | None
    source: Literal["given", "headers", "search"]
    tokens_per_minute: int | None
    paused_until: float


class KnownLimit:
    """One limit per minute: `given` by the job, `stated` by headers; the lower one counts."""

    def __init__(self, given: int | None, catch_up: float) -> None:
        self.given = given
        self.stated: int | None = None
        self.per_minute = given
        self.pace = Gcra(SPREAD / given if given else 0.0, catch_up)

    def state(self, stated: int | None, now: float) -> bool:
        """Takes a header's word; True where it changes the limit."""
        if not stated or stated == self.stated:
            return False
        self.stated = stated
        lowest = min(stated, self.given or stated)
        if lowest == self.per_minute:
            return False
        self.per_minute = lowest
        self.pace = self.pace.at_interval(SPREAD / lowest, now)
        return True


class Limiter:
    """Decides when the first in line may go. Every admission is ended by `answered` or `failed`."""

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self.paused_until = float("-inf")
        self._requests = KnownLimit(requests_per_minute, REQUESTS_CATCH_UP)
        self._tokens = KnownLimit(tokens_per_minute, TOKENS_CATCH_UP)
        self._search = RateSearch(None if requests_per_minute or tokens_per_minute else FIRST_RATE)
        self._sent = SendLog()
        self._estimate = TokenEstimate()
        self._began: float | None = None
        self._cut_at = float("-inf")
        self._waited = 0.0
        self._refused_since_cut = 0

    @property
    def pace(self) -> Pace:
        known, searched = self._requests.per_minute, self._search.rate
        if known and (searched is None or known <= searched * MINUTE):
            source: Literal["given", "headers"] = "given" if known == self._requests.given else "headers"
            return Pace(known, source, self._tokens.per_minute, self.paused_until)
        rate = None if searched is None else searched * MINUTE
        return Pace(rate, "search", self._tokens.per_minute, self.paused_until)

    def delay(self, now: float, worst_tokens: int) -> float:
        """Seconds until a request of at most `worst_tokens` tokens may go; 0 or less: now."""
        delay = max(self.paused_until - now, self._search.delay(now))
        if self._requests.per_minute or self._tokens.per_minute:
            self._sent.expire(now)
        if self._requests.per_minute:
            delay = max(delay, self._requests.pace.delay(now), self._request_window(now))
        if self._tokens.per_minute:
            delay = max(delay, self._tokens.pace.delay(now), self._token_window(now, worst_tokens))
        return delay

    def admit(self, now: float, worst_tokens: int) -> Admission:
        """Counts a request that goes now."""
        if self._began is None:
            self._began = now
        self._search.admit(now)
        self._requests.pace.admit(now, 1)
        paced_tokens = self._estimate.share * worst_tokens
        self._tokens.pace.admit(now, paced_tokens)
        bucket = self._sent.add(now, worst_tokens)
        return Admission(now, self._search.epoch, worst_tokens, paced_tokens, bucket)

    def answered(self, admission: Admission, now: float, used_tokens: int, limits: RateLimits | None) -> None:
        """Counts what an answered request used, and takes what its headers say."""
        self._settle(admission, used_tokens)
        self._estimate.learn(admission.worst_tokens, used_tokens)
        if limits is not None:
            self._take_limits(limits, now)

    def failed(self, admission: Admission, now: float, failure: Failure) -> None:
        """Slows down for a 429, stops growth for trouble, and frees what a refused request didn't use."""
        newly_known = failure.limits is not None and self._take_limits(failure.limits, now)
        if failure.remedy is Remedy.SLOW_DOWN:
            self._sent.expire(now)
            self._sent.remove(admission.bucket, admission.worst_tokens)
            self._tokens.pace.correct(-admission.paced_tokens)
            self.paused_until = max(self.paused_until, now + (failure.retry_after or 0.0))
            if newly_known:
                # The server's window holds more than the new limit: what follows says nothing about the rate.
                self._begin_again(now, failure.retry_after or 0.0)
            elif admission.epoch == self._search.epoch:
                self._slow_down(now, failure.retry_after or 0.0)
            return
        if failure.billed is Billed.NO:
            self._settle(admission, 0)
        if failure.remedy is Remedy.RETRY:
            self._search.hold()

    def _settle(self, admission: Admission, used_tokens: int) -> None:
        self._sent.settle(admission.bucket, admission.worst_tokens, used_tokens)
        self._tokens.pace.correct(used_tokens - admission.paced_tokens)

    def _take_limits(self, limits: RateLimits, now: float) -> bool:
        """True where the headers change a limit: then that, and no cut, is the answer to a 429."""
        new_requests = self._requests.state(limits.limit_requests, now)
        new_tokens = self._tokens.state(limits.limit_tokens, now)
        if new_requests or new_tokens:
            self._search.release()
        return new_requests or new_tokens

    # The windows: what of a limit the last 60 seconds have left.

    def _request_window(self, now: float) -> float:
        excess = self._sent.requests + 1 - (self._requests.per_minute or 0)
        return self._sent.delay(now, excess, lambda bucket: bucket.requests)

    def _token_window(self, now: float, worst_tokens: int) -> float:
        """A request that is larger than the limit goes when the window is empty: the server has to decide."""
        sent = self._sent
        open_tokens = self._estimate.bound(sent.open_requests + 1, sent.open_tokens + worst_tokens)
        excess = sent.tokens + open_tokens - (self._tokens.per_minute or 0)
        return sent.delay(now, excess, lambda bucket: bucket.tokens + bucket.open_tokens)

    # A 429 of the present epoch.

    def _slow_down(self, now: float, wait: float) -> None:
        # Estimates of tokens that were too low are as good a cause as any.
        self._estimate = TokenEstimate()
        if self._refused_since_cut and self._sent.sent_since(self._cut_at) < self._least_measured:
            self._wait_longer(now, wait)
            return
        accepted, seconds = self._accepted(now, wait)
        if now - self._cut_at - self._waited >= STEADY:
            # A known limit that was kept to for so long is about right: the server counts it otherwise.
            accepted = max(accepted, (self._requests.per_minute or 0) / MINUTE)
        self._search.cut(accepted, seconds, now - self._cut_at, now + wait)
        self._begin_again(now, wait)

    def _begin_again(self, now: float, wait: float) -> None:
        self._cut_at, self._waited, self._refused_since_cut = now, wait, 1
        self._sent.begin_anew()

    @property
    def _least_measured(self) -> float:
        """Requests that must have come through since the cut if the rate is to be what was refused.

        More than one where a limit is known: then a full window is the likely cause.
        """
        return max(1.0, min(MEASURED_REQUESTS, (self._requests.per_minute or 0) / MINUTE))

    def _wait_longer(self, now: float, wait: float) -> None:
        """Next to nothing has come through since the cut: the rate is not the cause, and only time helps."""
        own_wait = min(LONGEST_OWN_WAIT, 2.0 ** (self._refused_since_cut - 1))
        self.paused_until = max(self.paused_until, now + (wait or own_wait))
        self._waited = self.paused_until - self._cut_at
        self._refused_since_cut += 1
        self._search.new_epoch()

    def _accepted(self, now: float, wait: float) -> tuple[float, float]:
        """The rate in requests per second that the server took before it refused, and over how many seconds.

        What it took in the last minute is its limit, whatever it counts by. A run that is younger sees by a
        long `wait` that a window was full, and by a short one that a bucket is empty. Since the last cut, a
        bucket gave its rate, or that and what came in during the pause. Which, can't be seen: the geometric
        mean lies between. While the rate grew it is too low, and the last second tells more. What came
        through in less than a second tells little: the ceiling falls by one cut at most.
        """
        age = now + wait - (now if self._began is None else self._began)
        since_cut = now - self._cut_at
        if age >= MINUTE or since_cut > age:
            seconds = max(0.001, min(MINUTE, age))
            return self._sent.sent_since(now - MINUTE) / seconds, seconds
        sending = max(0.001, since_cut - self._waited)
        accepted = self._sent.sent_since(self._cut_at) / sqrt(since_cut * sending)
        if self._requests.per_minute:
            return accepted, since_cut
        if sending < 1.0:
            return max(accepted, BETA * self._search.ceiling), since_cut
        return max(accepted, self._sent.sent_since(now - 1.0)), since_cut
